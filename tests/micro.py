"""Recipes, images and runs of the smallest useful size, shared by the tests of models, losses and learners."""

import csv
from pathlib import Path

import pytest
import torch

from sept.backbones import Backbone
from sept.gpu.micro import SIDE, SWIN, VIT, Labelled, cropped, dino, finetune, ibot, images, labelled, moby, subset
from sept.methods.byol.recipe import BYOLRecipe
from sept.methods.simclr.recipe import SimCLRRecipe
from sept.runtime.hardware import Runtime
from sept.training.learner import Chunk
from sept.training.loop import train

__all__ = [
    "MACHINE",
    "RESNET",
    "SIDE",
    "SWIN",
    "VIT",
    "Labelled",
    "cropped",
    "curve",
    "dino",
    "finetune",
    "ibot",
    "images",
    "labelled",
]
__all__ += ["assert_chunks_change_nothing", "byol", "moby", "recorded", "run", "simclr", "subset"]

MACHINE = Runtime(threads=1)
RESNET = Backbone("resnet18", {"layers": [1, 1, 1, 1], "channels": [16, 16, 32, 32], "output_stride": 8})
SHORT: dict = {"side": SIDE, "batch_size": 16, "lr_batch": 16, "warmup_epochs": 0, "drop_path_rate": 0.0}


def simclr(**changes) -> SimCLRRecipe:
    return SimCLRRecipe(**{**SHORT, "store_side": SIDE, "hidden_dim": 64, "out_dim": 32} | changes)


def byol(**changes) -> BYOLRecipe:
    return BYOLRecipe(**{**SHORT, "store_side": SIDE, "hidden_dim": 64, "out_dim": 32} | changes)


def run(learner, batches, folder: Path, runtime: Runtime = MACHINE):
    """Train to the last step."""
    train(learner, batches, folder, runtime, what="test")
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


def assert_chunks_change_nothing(trained, batch: int) -> None:
    """trained(chunk): losses of a training, its gradients and its last buffers, by name."""
    losses, gradients, buffers = trained(None)
    assert len(gradients) > 20
    for chunk in (Chunk(1), Chunk(3), Chunk(2, 4), Chunk(batch)):
        found = trained(chunk)
        assert found[0] == pytest.approx(losses, rel=1e-4)
        assert found[1].keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)
        for name, buffer in buffers.items():
            torch.testing.assert_close(found[2][name], buffer, rtol=1e-3, atol=1e-3)
