"""MAE and SimMIM of the smallest useful size, for their tests."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from micro import SIDE, SWIN, VIT, cropped, curve, run, subset
from torch import Tensor

from sept.backbones import Backbone
from sept.methods.mae.learner import MAE
from sept.methods.mae.recipe import MAERecipe
from sept.methods.recipe import Length
from sept.methods.simmim.learner import SimMIM
from sept.methods.simmim.recipe import SimMIMRecipe

STEPS, BATCH, IMAGES = 4, 8, 24
POOLED = Backbone(VIT.name, VIT.args | {"global_pool": "avg"}, VIT.statistics)
SHORT = {"side": SIDE, "store_side": SIDE, "batch_size": BATCH, "lr_batch": BATCH, "warmup_epochs": 0, "lr": 1e-4}


def mae_recipe(**changes: Any) -> MAERecipe:
    """Of a ViT of 16 patches of 8 pixels."""
    sizes = {"decoder_depth": 1, "decoder_width": 16, "decoder_heads": 2}
    kept = {"crop_scale": [0.2, 1.0], "clip": None, "betas": [0.9, 0.95], "schedule": "cosine_after_warmup"}
    return MAERecipe(**{**SHORT, **sizes, **kept} | changes)


def simmim_recipe(**changes: Any) -> SimMIMRecipe:
    """Of a Swin of 8 x 8 patches of 4 pixels, whose last map has 4 x 4 cells."""
    return SimMIMRecipe(**{**SHORT, "mask_unit": 8, "crop_scale": [0.67, 1.0]} | changes)


def mae(steps: int = STEPS, backbone: Backbone = VIT, made: type[MAE] = MAE, **changes: Any) -> MAE:
    return made(mae_recipe(**changes), backbone, seed=3, length=Length(steps, IMAGES // BATCH))


def simmim(steps: int = STEPS, backbone: Backbone = SWIN, made: type[SimMIM] = SimMIM, **changes: Any) -> SimMIM:
    return made(simmim_recipe(**changes), backbone, seed=3, length=Length(steps, IMAGES // BATCH))


MAKES: dict[str, Callable[..., Any]] = {
    "mae": mae,
    "mae of a ViT that pools patches": partial(mae, backbone=POOLED),
    "simmim": simmim,
}


def adamw_step(learner: Any, state: dict[str, Tensor], gradients: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """The weights after AdamW's first step with these gradients (Loshchilov and Hutter 2019, Algorithm 2)."""
    after, r = {}, learner.recipe
    norm = torch.stack([each.square().sum() for each in gradients.values()]).sum().sqrt()
    shrink = 1.0 if r.clip is None else min(1.0, r.clip / norm.item())
    for name, gradient in gradients.items():
        g, weight = gradient * shrink, state[name].double()
        first, second = (1 - r.betas[0]) * g, (1 - r.betas[1]) * g.square()
        direction = first / (1 - r.betas[0]) / ((second / (1 - r.betas[1])).sqrt() + r.eps)
        decay = 0.0 if learner.is_undecayed(name, weight) else r.weight_decay
        after[name] = weight - rate * (direction + decay * weight)
    return after


def by_heart(make: Callable[..., Any], folder: Path, **changes: Any) -> tuple[list[float], list[float]]:
    """Losses of the steps of a training on a few images, and their curve relative to predicting zero."""
    learner = make(steps=60, batch_size=8, lr_batch=8, crop_scale=[0.9, 1.0], flip=0.0, **changes)
    run(learner, cropped(learner, subset(folder / "images", 8), 8), folder)
    return learner.losses, curve(folder, "loss_over_chance")
