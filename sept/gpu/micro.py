"""Recipes and images of the smallest useful size, for the tests and for checks without a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from sept.backbones import Backbone
from sept.data.images import Pixels
from sept.data.loading import Batches, Place
from sept.data.rng import numpy_rng
from sept.data.subset import Subset, write_subset
from sept.methods.dino.recipe import DinoRecipe
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.views import CroppedSubset
from sept.transfer.recipes import Classify, Detect, Segment

SIDE = 32
SCENE = 64  # pixels of an image with boxes or masks
SWIN = Backbone(
    "swin_tiny_patch4_window7_224",
    {"img_size": SIDE, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2]},
)
Sizes = dict[str, Any]
VIT = Backbone(
    "vit_small_patch16_224",
    {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "imagenet",
)


def moby(**changes: Any) -> MoByRecipe:
    sizes: Sizes = {
        "batch_size": 16,
        "lr_batch": 16,
        "warmup_epochs": 0,
        "hidden_dim": 64,
        "out_dim": 32,
        "queue": 64,
    }
    return MoByRecipe(**{"side": SIDE, "drop_path_rate": 0.0, "store_side": SIDE, **sizes} | changes)


PROTOTYPES: Sizes = {"out_dim": 64, "head_hidden_dim": 48, "head_bottleneck_dim": 16}
CROPS: Sizes = {"side": SIDE, "local_side": 16, "local_crops": 2}
BRIEF: Sizes = {"batch_size": 8, "warmup_epochs": 0, "warmup_teacher_temp_epochs": 2, "drop_path_rate": 0.0}


def dino(**changes: Any) -> DinoRecipe:
    return DinoRecipe(**PROTOTYPES | CROPS | BRIEF | changes)


def ibot(**changes: Any) -> IBotRecipe:
    return IBotRecipe(**PROTOTYPES | CROPS | BRIEF | changes)


def finetune(**changes: Any) -> Classify:
    short = {"side": SIDE, "epochs": 4, "batch_size": 8, "lr_batch": 8, "warmup_epochs": 0, "drop_path_rate": 0.0}
    return Classify(**{"lr": 1e-3, **short} | changes)


def detect(**changes: Any) -> Detect:
    """It learns from every anchor and every proposal, since a GPU would sample different ones from a CPU."""
    sizes: Sizes = {
        "fpn_width": 32,
        "head_width": 64,
        "anchor_sides": [8, 16, 32, 64, 128],
        "rpn_samples": 4096,
    }
    sides = {"short_sides": [SCENE], "long_side": SCENE, "test_short_side": SCENE}
    boxes = {"rpn_samples": 4096, "proposals": [60, 30], "roi_samples": 256, "detections": 10}
    short = {"epochs": 2, "batch_size": 4, "lr": 1e-4, "milestones": [], "warmup_steps": 0, "drop_path_rate": 0.0}
    return Detect(**{"name": "detect_micro", **sizes, **sides, **boxes, **short} | changes)


def segment(**changes: Any) -> Segment:
    sizes: Sizes = {
        "side": SCENE,
        "long_side": SCENE,
        "scale": [1.0, 1.0],
        "decoder_width": 32,
        "dropout": 0.0,
    }
    short = {"epochs": 2, "batch_size": 4, "lr": 1e-4, "warmup_steps": 0, "drop_path_rate": 0.0}
    return Segment(**{"name": "segment_micro", **sizes, **short} | changes)


def images(count: int, side: int = SIDE) -> list[Pixels]:
    """uint8 (side, side, 3) images, each with its own two colours and pattern."""
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


def cropped(learner: Any, packed: Subset, batch_size: int, seed: int = 0) -> Batches:
    """What `fit` reads a self-supervised learner's batches with."""
    return Batches(CroppedSubset(packed, learner.views), len(packed), batch_size, seed)


class Labelled(Dataset):
    """Images of classes 0, 1, .., the same in every epoch."""

    def __init__(self, count: int, classes: int) -> None:
        self.images, self.classes = images(count), classes

    def __getitem__(self, place: Place) -> dict[str, Any]:
        pixels = torch.from_numpy(self.images[place[1]]).permute(2, 0, 1).contiguous()
        return {"images": pixels, "labels": place[1] % self.classes}


def labelled(learner: Any, count: int, classes: int, batch_size: int) -> Batches:
    """What `fit` reads a classifier's batches with."""
    return Batches(Labelled(count, classes), count, batch_size, 0)
