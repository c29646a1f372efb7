"""Recipes, images and runs of the smallest useful size, shared by the tests of models, losses and learners."""

import csv
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from sept.config import Classify, IBotRecipe, Model, Pretrain
from sept.data.loading import Batches
from sept.data.rng import numpy_rng
from sept.data.subset import Subset, write_subset
from sept.data.views import CroppedSubset
from sept.fit import fit
from sept.machine import Machine

SIDE = 32
SWIN = Model(
    "swin_tiny_patch4_window7_224",
    {"img_size": SIDE, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2]},
)
VIT = Model("vit_small_patch16_224", {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2})
MACHINE = Machine(threads=1)


def moby(**changes):
    sizes = {"batch_size": 16, "lr_batch": 16, "warmup_epochs": 0, "hidden_dim": 64, "out_dim": 32, "queue": 64}
    return Pretrain(**{"model": SWIN, "side": SIDE, "drop_path_rate": 0.0, "store_side": SIDE, **sizes} | changes)


def ibot(**changes):
    sizes = {"out_dim": 64, "head_hidden_dim": 48, "head_bottleneck_dim": 16, "side": SIDE, "local_side": 16}
    short = {"epochs": 4, "batch_size": 8, "warmup_epochs": 0, "local_crops": 2, "warmup_teacher_temp_epochs": 2}
    return IBotRecipe(**{"drop_path_rate": 0.0, **sizes, **short} | changes)


def finetune(**changes):
    short = {"side": SIDE, "epochs": 4, "batch_size": 8, "lr_batch": 8, "warmup_epochs": 0, "drop_path_rate": 0.0}
    return Classify(**{"lr": 1e-3, **short} | changes)


def images(count, side=SIDE):
    """uint8 (side, side, 3) images, each of two colours of its own in a pattern of its own."""
    drawn = []
    for i in range(count):
        rng = numpy_rng(0, "image", i)
        coarse = rng.random((4, 4, 1)).repeat(side // 4, 0).repeat(side // 4, 1)
        first, second = rng.integers(0, 256, (2, 3))
        drawn.append((coarse * first + (1 - coarse) * second).astype(np.uint8))
    return drawn


def subset(folder: Path, count: int) -> Subset:
    folder.mkdir(parents=True, exist_ok=True)
    write_subset(folder, enumerate(images(count)), SIDE)
    return Subset.open(folder)


def cropped(learner, packed: Subset, batch_size: int, seed: int = 0):
    """What `fit` reads a self-supervised learner's batches with."""
    return Batches(CroppedSubset(packed, learner.views), len(packed), batch_size, seed)


class Labelled(Dataset):
    """Images of classes 0, 1, .., the same in every epoch."""

    def __init__(self, count: int, classes: int) -> None:
        self.images, self.classes = images(count), classes

    def __getitem__(self, place):
        pixels = torch.from_numpy(self.images[place[1]]).permute(2, 0, 1).contiguous()
        return {"images": pixels, "labels": place[1] % self.classes}


def labelled(learner, count: int, classes: int, batch_size: int):
    """What `fit` reads a classifier's batches with."""
    return Batches(Labelled(count, classes), count, batch_size, 0)


def run(learner, batches, folder: Path, machine: Machine = MACHINE):
    """Train to the last step."""
    fit(learner, batches, folder, machine, what="test")
    return learner


def curve(folder: Path, name: str) -> list[float]:
    """A logged curve of the latest attempt, a point every ten steps."""
    path = sorted((folder / "curves").glob("*/metrics.csv"))[-1]
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def recorded(learner_class):
    """The class, keeping what its state was before every step, its rates, and the loss of the step."""

    class Recorded(learner_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.before, self.rates, self.losses, self.batches = [], [], [], []

        def on_train_batch_start(self, batch, batch_idx):
            super().on_train_batch_start(batch, batch_idx)
            self.before.append({key: value.clone() for key, value in self.state_dict().items()})
            self.rates.append([group["lr"] for group in self.trainer.optimizers[0].param_groups])
            self.batches.append(batch)

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.losses.append(loss.item())
            return loss

    return Recorded
