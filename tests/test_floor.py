"""Chance and floor: what the nearest neighbour on raw pixels gets on images whose answer is known."""

import numpy as np
import pytest
from PIL import Image

from sept.data.tasks.task import Example
from sept.transfer.probe import floor, nearest, standardised


def written(folder, name, image, label):
    Image.fromarray(image).save(folder / f"{name}.png")
    return Example(name, folder / f"{name}.png", label)


def noisy(base, rng, deviation):
    return np.clip(base + rng.normal(0, deviation, base.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def bases():
    return np.random.default_rng(0).integers(0, 255, (4, 40, 40, 3)).astype(np.float64)


def test_images_like_a_shot_are_all_found_and_unlike_images_are_not(tmp_path, bases):
    rng = np.random.default_rng(1)
    shots = [written(tmp_path, f"shot{i}", noisy(base, rng, 5), i) for i, base in enumerate(bases)]
    alike = [written(tmp_path, f"test{i}", noisy(base, rng, 5), i) for i, base in enumerate(bases)]
    wrong = [example._replace(label=(example.label + 1) % 4) for example in alike]
    assert floor(shots, alike, threads=1) == {"chance": 25.0, "floor": 100.0}
    assert floor(shots, wrong, threads=2) == {"chance": 25.0, "floor": 0.0}


def test_chance_is_what_naming_the_most_frequent_class_gets(tmp_path, bases):
    shots = [written(tmp_path, f"shot{i}", bases[i].astype(np.uint8), i) for i in range(2)]
    assert floor(shots, [shots[0], shots[1], shots[1], shots[1]], threads=1)["chance"] == 75.0


def test_brightness_and_contrast_do_not_count(bases):
    image = bases[0].astype(np.uint8)
    dimmed = (bases[0] / 2 + 30).astype(np.uint8)
    assert standardised(image) @ standardised(dimmed) > 0.99
    assert np.linalg.norm(standardised(image)) == pytest.approx(1)


def test_an_image_of_one_colour_has_no_pixels_to_compare():
    assert not standardised(np.full((8, 8, 3), 77, np.uint8)).any()


def test_of_equal_neighbours_the_first_counts():
    known = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert nearest(known, np.array([[2.0, 0.0], [0.0, 3.0]])).tolist() == [0, 2]
