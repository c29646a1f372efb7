"""Computes the linear map of `retriever=hog`: mean and principal axes of what it sees of all images in some folders.

    python -m benchmarks.worlds glyphs glyphs && python -m benchmarks.worlds icons icons
    python benchmarks/hog.py glyphs/pool icons/pool --to sept/assets/hog.safetensors

Every folder weighs the same. An axis of deviation s is divided by (s^2 + SHRINKAGE * largest^2) ^ POWER: 0 would leave
the features as they are, 1/2 whiten them. The worlds are the development worlds; figures: docs/results/worlds.md.
"""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sept.backbones import Backbone
from sept.backbones.networks import build
from sept.backbones.saved import WEIGHTS
from sept.data.images import decode
from sept.data.transforms import embed_view
from sept.retrievers.settings import Preprocess
from sept.retrievers.timm_networks import preprocess, save

SHRINKAGE, POWER = 0.01, 0.4
BATCH = 500
HOG = Backbone("hog", {"img_size": 48})


def seen(folder: Path, network: torch.nn.Module) -> np.ndarray:
    """(N, D) float64, of the images in the order of their paths."""
    by = Preprocess(**preprocess(HOG.name, HOG.args, {}))
    view = partial(embed_view, resize_side=by.resize, crop_side=by.crop, squash=by.squash)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = []
    for first in range(0, len(paths), BATCH):
        views = torch.stack([view(decode(path.read_bytes())) for path in paths[first : first + BATCH]])
        with torch.no_grad():
            found.append(network.forward_features(views / 255).double().numpy())
    return np.concatenate(found)


def whitening(groups: list[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """mean (D,) and axes (D, width), the largest first; each axis has the sign of its largest element."""
    mean = np.mean([group.mean(0) for group in groups], axis=0)
    moments = np.mean([(group - mean).T @ (group - mean) / len(group) for group in groups], axis=0)
    values, axes = np.linalg.eigh(moments)
    values, axes = values[::-1][:width], axes[:, ::-1][:, :width]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(width)])
    return mean, axes / (values + SHRINKAGE * values[0]) ** POWER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    network = build(HOG.name, HOG.args)
    groups = [seen(folder, network) for folder in options.folders]
    mean, axes = whitening(groups, network.num_features)
    with torch.no_grad():
        network.projection.weight.copy_(torch.from_numpy(axes.T))
        network.projection.bias.copy_(torch.from_numpy(-mean @ axes))
    images = {folder.parent.name: len(group) for folder, group in zip(options.folders, groups, strict=True)}
    facts = {"method": "whitened histograms of oriented gradients, and colours", "images": images, "power": POWER}
    with tempfile.TemporaryDirectory() as made:
        save(network, Path(made), HOG, facts)
        shutil.copy(Path(made) / WEIGHTS, options.to)
    print(f"{options.to}: {axes.shape[0]} numbers an image to {axes.shape[1]}, of {images}")


if __name__ == "__main__":
    main()
