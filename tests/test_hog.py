"""Histograms of oriented gradients: what they see, the shipped map of them, and the network that learns on them."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sept import compose
from sept.backbones.hog import CELL, STRIDE, histograms
from sept.backbones.networks import build, layer_ids, width
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks.hog import HOG, whitening

BINS = 8
IMPORTS = re.compile(r"^import sept\.\S+", re.MULTILINE)
OWN = ("pool=folder", "pool.path=/photos", "task=imagefolder", "task.path=/flowers")


def stripes(degrees: float, side: int = 48) -> torch.Tensor:
    """(1, 3, side, side): waves of 12 pixels whose gradient points in that direction."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angle = torch.tensor(degrees).deg2rad()
    wave = 0.5 + 0.4 * torch.sin((x * angle.cos() + y * angle.sin()) * 2 * torch.pi / 12)
    return wave.expand(1, 3, side, side)


def slowly(image: np.ndarray, bins: int, faint: float) -> np.ndarray:
    """(h, w, bins), by loops over pixels, of one image (H, W) of grey levels."""
    padded = np.pad(image.astype(np.float64), 1, mode="edge")
    height, across = image.shape
    cells = (height - CELL) // STRIDE + 1
    found = np.zeros((cells, cells, bins))
    for i in range(height):
        for j in range(across):
            dx, dy = padded[i + 1, j + 2] - padded[i + 1, j], padded[i + 2, j + 1] - padded[i, j + 1]
            place = np.arctan2(dy, dx) % np.pi * bins / np.pi
            low = int(place) % bins
            share = place - int(place)
            for a in range(cells):
                for b in range(cells):
                    if a * STRIDE <= i < a * STRIDE + CELL and b * STRIDE <= j < b * STRIDE + CELL:
                        found[a, b, low] += np.hypot(dx, dy) * (1 - share) / CELL**2
                        found[a, b, (low + 1) % bins] += np.hypot(dx, dy) * share / CELL**2
    squares = np.pad((found**2).sum(2), 1)
    around = sum(squares[a : a + cells, b : b + cells] for a in range(3) for b in range(3))
    return np.minimum(found / (np.sqrt(around)[..., None] + faint), 0.4)


def test_they_are_those_of_a_slow_restatement():
    grey = np.random.default_rng(0).random((20, 20))
    image = torch.from_numpy(grey).float().expand(1, 3, 20, 20)
    found = histograms(image, BINS, 0.16)[0].permute(1, 2, 0).double().numpy()
    np.testing.assert_allclose(found, slowly(grey, BINS, 0.16), atol=1e-5)


@pytest.mark.parametrize("place", range(BINS))
def test_the_direction_of_edges_is_told(place):
    found = histograms(stripes(180 * place / BINS), BINS, 0.01)[0, :, 3:8, 3:8].mean((1, 2))
    assert found.argmax() == place


def test_light_on_dark_is_as_dark_on_light_and_contrast_hardly_matters():
    image = torch.rand(2, 3, 48, 48)
    there = histograms(image, BINS, 0.0)
    torch.testing.assert_close(histograms(1 - image, BINS, 0.0), there)
    torch.testing.assert_close(histograms(0.5 * image + 0.2, BINS, 0.0), there)


def test_the_map_centres_and_whitens_each_folder_alike():
    rng = np.random.default_rng(0)
    one, other = rng.normal(1, [5, 2, 1, 0.1], (2000, 4)), rng.normal(-1, [5, 2, 1, 0.1], (500, 4))
    mean, axes = whitening([one, other], 3)
    np.testing.assert_allclose(mean, (one.mean(0) + other.mean(0)) / 2)
    mapped = (np.concatenate([one, one[:0], other]) - mean) @ axes
    deviations = mapped.std(0)
    assert deviations[0] / deviations[2] < 2.5, "5 to 1 before"
    assert (axes[np.abs(axes).argmax(0), range(3)] > 0).all()


def test_the_shipped_map_fits_the_retriever_and_is_not_an_empty_one():
    from sept.backbones.files import resolve
    from sept.backbones.saved import facts_of
    from sept.retrievers import timm_networks

    network = timm_networks.build(HOG, 48)
    file = resolve("sept:hog", "retriever.weights")
    timm_networks.load(network, file)
    assert set(facts_of(file)["images"]) == {"glyphs", "icons"}
    features = network(torch.cat([stripes(0), stripes(90), stripes(5)]))
    unit = torch.nn.functional.normalize(features - features.mean(0), dim=1)
    assert unit[0] @ unit[2] > unit[0] @ unit[1]


def test_the_network_tells_the_quarters_of_an_image_apart():
    network = build("hog_conv", {"widths": [8, 16]}).eval()
    image = torch.rand(1, 3, 48, 48)
    assert network(image).shape == (1, 4 * 16) == (1, width(network))
    moved = image.roll(24, 3)
    assert not torch.allclose(network(image), network(moved), atol=1e-2)
    assert layer_ids(network)[1] == 3
    assert [each.shape[1:] for each in network.forward_intermediates(image)] == [(8, 12, 12), (16, 6, 6)]


def test_own_images_are_given_what_suits_them_unless_something_else_is_chosen():
    e = compose.experiment([*OWN])
    assert (e.retriever.name, e.backbone.name) == ("hog", "hog_conv")
    assert (e.pretrain.name, e.finetune.name) == ("moby_small", "classify_small")
    e = compose.experiment([*OWN, "retriever=ibot_micro", "backbone=resnet_micro", "finetune=classify_micro"])
    assert (e.retriever.name, e.backbone.name, e.finetune.name) == ("ibot_micro", "resnet18", "classify_micro")
    e = compose.experiment(["+experiment=food101_5shot", *OWN])
    assert (e.retriever.name, e.backbone.name, e.finetune.name) == (
        "ibot_vit_s16",
        "swin_tiny_patch4_window7_224",
        "classify",
    )
    assert compose.experiment([]).retriever.name == "ibot_micro"


def test_it_finds_what_has_the_shape_of_the_task_in_whatever_tint(tmp_path):
    import sept

    rng = np.random.default_rng(0)

    def save(path, degrees):
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = stripes(degrees + rng.normal(0, 4))[0].permute(1, 2, 0).numpy()
        colour = rng.uniform(0.7, 1, 3) * wave + rng.normal(0, 0.02, wave.shape)
        Image.fromarray((255 * colour.clip(0, 1)).astype(np.uint8)).save(path)

    for n in range(60):
        save(tmp_path / f"photos/{n:03d}.png", [0, 45, 90][n % 3])
    for n in range(4):
        save(tmp_path / f"flowers/train/a/{n}.png", 90)
        save(tmp_path / f"flowers/train/b/{n}.png", 90)
        save(tmp_path / f"flowers/test/a/{n}.png", 90)
        save(tmp_path / f"flowers/test/b/{n}.png", 90)
    found = sept.select(
        pool=tmp_path / "photos",
        task=tmp_path / "flowers",
        budget=20,
        retriever="hog",
        overrides=[f"store.root={tmp_path / 'store'}", "shot.per_class=2", "hardware.accelerator=cpu"],
    )
    assert {int(path[-7:-4]) % 3 for path in found.table["path"].to_pylist()} == {2}


def test_a_saved_one_is_loaded_by_the_lines_of_its_card(tmp_path):
    from sept.backbones import IMAGENET
    from sept.backbones.saved import CARD
    from sept.backbones.weights import save_backbone

    args = {"widths": [8, 16]}
    network = build("hog_conv", args).eval()
    save_backbone(network, tmp_path, "hog_conv", args, {"method": "none"}, IMAGENET)
    code = (tmp_path / CARD).read_text().split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path))
    image = torch.rand(1, 3, 48, 48)
    lines = [line for line in code.splitlines() if line.startswith("model = ")]
    shown = "\n".join(f"{line}\nprint(type(model).__name__)" for line in lines)
    done = subprocess.run(
        [sys.executable, "-c", f"{IMPORTS.search(code)[0]}\nimport timm\n{shown}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["PlainConv"] * len(lines) != [], done.stderr
    assert network(image).shape == (1, 64)
