"""MAE and SimMIM of the smallest useful size, for their tests."""

from collections.abc import Callable
from functools import partial
from typing import Any

from micro import SIDE, SWIN, VIT

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
