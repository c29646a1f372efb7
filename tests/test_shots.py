"""Few-shot draws nest, do not depend on the order of listing, and tell which class is short of images."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sept.data.annotated import draw_shots
from sept.data.tasks.task import Example
from sept.errors import DataError

CLASSES = ["cat", "dog"]


def examples(counts: dict[str, int]) -> list[Example]:
    ids = [(f"{name}/{n:02d}.jpg", label) for label, (name, count) in enumerate(counts.items()) for n in range(count)]
    return [Example(name, Path("/data") / name, label) for name, label in ids]


TRAIN = examples({"cat": 12, "dog": 9})


def ids(drawn: list[Example]) -> list[str]:
    return [example.id for example in drawn]


GOLDEN = [  # of seeds 0 and 1, by b2sum
    ["cat/02.jpg", "cat/05.jpg", "cat/04.jpg", "dog/07.jpg", "dog/08.jpg", "dog/05.jpg"],
    ["cat/09.jpg", "cat/05.jpg", "cat/10.jpg", "dog/02.jpg", "dog/08.jpg", "dog/07.jpg"],
]


def test_the_draw_is_golden():
    """Another draw would change every few-shot result there is."""
    assert ids(draw_shots(TRAIN, 3, 0, CLASSES)) == GOLDEN[0]
    assert ids(draw_shots(TRAIN, 3, 1, CLASSES)) == GOLDEN[1]


@given(seed=st.integers(0, 2**31), few=st.integers(1, 9), more=st.integers(1, 9), shuffle=st.randoms())
def test_draws_nest_and_do_not_depend_on_the_order_of_listing(
    seed: int, few: int, more: int, shuffle: random.Random
) -> None:
    few, more = sorted((few, more))
    shuffled = list(TRAIN)
    shuffle.shuffle(shuffled)
    smaller, larger = draw_shots(TRAIN, few, seed, CLASSES), draw_shots(shuffled, more, seed, CLASSES)
    assert [example.label for example in smaller] == [0] * few + [1] * few
    assert smaller == larger[:few] + larger[more : more + few]
    assert len(set(larger)) == 2 * more


def test_classes_do_not_influence_each_other():
    alone = draw_shots(examples({"cat": 12}), 4, 0, ["cat"])
    assert ids(draw_shots(TRAIN, 4, 0, CLASSES))[:4] == ids(alone)


def test_every_image_is_drawn_about_as_often():
    counts = dict.fromkeys(ids(TRAIN), 0)
    for seed in range(600):
        for name in ids(draw_shots(TRAIN, 3, seed, CLASSES)):
            counts[name] += 1
    assert all(100 < count < 260 for count in counts.values()), counts  # 150 expected of cats, 200 of dogs


def test_none_draws_all():
    drawn = draw_shots(TRAIN, None, 0, CLASSES)
    assert sorted(drawn) == sorted(TRAIN)
    assert drawn[:3] == draw_shots(TRAIN, 3, 0, CLASSES)[:3]


def test_a_class_short_of_images_is_named():
    with pytest.raises(DataError, match=r"class 'dog' has 9 training images but shot\.per_class=10"):
        draw_shots(TRAIN, 10, 0, CLASSES)
    with pytest.raises(DataError, match=r"class 'cow' has 0 training images but shot\.per_class=1"):
        draw_shots(TRAIN, 1, 0, [*CLASSES, "cow"])
