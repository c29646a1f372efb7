"""iBOT's views: global crops with masks, and local crops."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sept.data.augment import Policy
from sept.data.rng import numpy_rng
from sept.methods.ibot.masking import block_mask, mask_ratio
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.views import Views, policy


class MultiCrop(Views):
    """iBOT's two global and several local crops (bicubic), and the masks of the global ones."""

    def __init__(self, recipe: IBotRecipe, seed: int, grid: tuple[int, int]) -> None:
        self.recipe, self.grid = recipe, grid

        def coloured(blur: float, solarise: float) -> Policy:
            radius, side = recipe.blur_radius, recipe.side  # local crops are blurred by as many pixels
            return policy(
                flip=recipe.flip,
                jitter=recipe.jitter,
                grayscale=0.2,
                blur=blur,
                radius=radius,
                side=side,
                solarise=solarise,
            )

        globals_ = (recipe.side, (recipe.global_scale[0], recipe.global_scale[1]))
        locals_ = (recipe.local_side, (recipe.local_scale[0], recipe.local_scale[1]))
        policies = [coloured(1.0, 0.0), coloured(0.1, 0.2)]
        policies += [coloured(0.5, 0.0)] * recipe.local_crops
        super().__init__(seed, [globals_] * 2 + [locals_] * recipe.local_crops, policies, "bicubic")

    def masks(self, epoch: int, sample: int) -> list[Tensor]:
        """Bool (L,) masks of the two global crops."""
        rng = numpy_rng(self.seed, "mask", epoch, sample)
        ratios = [mask_ratio(rng, self.recipe.pred_ratio, self.recipe.pred_ratio_var) for _ in range(2)]
        return [torch.from_numpy(block_mask(rng, *self.grid, ratio).reshape(-1)) for ratio in ratios]

    def sample(self, image: np.ndarray, epoch: int, sample: int) -> dict[str, Any]:
        return {**super().sample(image, epoch, sample), "masks": self.masks(epoch, sample)}

    def __call__(self, batch: dict[str, Any], step: int) -> tuple[list[Tensor], list[Tensor]]:
        return self.colour(batch["crops"], step), batch["masks"]
