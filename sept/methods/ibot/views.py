"""iBOT's views: global crops with masks, and local crops."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sept.data.rng import numpy_rng
from sept.methods import views
from sept.methods.ibot.masking import block_mask, mask_ratio
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.recipe import GLOBAL_CROPS


class MultiCrop(views.MultiCrop):
    """Global and local crops, and the masks of the global ones."""

    recipe: IBotRecipe

    def __init__(self, recipe: IBotRecipe, seed: int, grid: tuple[int, int]) -> None:
        super().__init__(recipe, seed)
        self.grid = grid

    def masks(self, epoch: int, sample: int) -> list[Tensor]:
        """Bool (L,) masks of the global crops."""
        rng = numpy_rng(self.seed, "mask", epoch, sample)
        ratios = [mask_ratio(rng, self.recipe.pred_ratio, self.recipe.pred_ratio_var) for _ in range(GLOBAL_CROPS)]
        return [torch.from_numpy(block_mask(rng, *self.grid, ratio).reshape(-1)) for ratio in ratios]

    def sample(self, image: np.ndarray, epoch: int, sample: int) -> dict[str, Any]:
        return {**super().sample(image, epoch, sample), "masks": self.masks(epoch, sample)}

    def __call__(self, batch: dict[str, Any], step: int) -> tuple[list[Tensor], list[Tensor]]:
        return super().__call__(batch, step), batch["masks"]
