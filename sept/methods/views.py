"""The views of a learner: cropped one by one by CPU workers, colour-augmented in batches on the
device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from sept.backbones import IMAGENET, Statistics
from sept.data.augment import Policy, draw_parameters, photometric_together, scaled_blur_radius
from sept.data.colour import EAGER, compiled
from sept.data.loading import Place
from sept.data.rng import generator, numpy_rng
from sept.data.subset import Joined, Subset
from sept.data.transforms import Interpolation, crop_resize, random_resized_crop_box
from sept.methods.recipe import GLOBAL_CROPS, OneViewRecipe, SelfDistillationRecipe, TwoViewRecipe
from sept.runtime.device import rank_and_world

CROP_RATIO = (3 / 4, 4 / 3)
JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.8, 0.4, 0.4, 0.2, 0.1  # MoBy and iBOT released code
CROP_BLUR, LOCAL_BLUR, CROP_SOLARISE, CROP_GRAYSCALE = (1.0, 0.1), 0.5, (0.0, 0.2), 0.2  # DINO and iBOT released code


def policy(
    *,
    flip: float,
    jitter: float,
    saturation: float = SATURATION,
    grayscale: float,
    blur: float,
    radius: Sequence[float],
    side: int,
    solarise: float,
) -> Policy:
    """The published colour pipeline, with jitter scaled by `jitter`, and the blur radius given for 224-px views."""
    return Policy(
        flip=flip,
        jitter=JITTER if jitter else 0.0,
        brightness=BRIGHTNESS * jitter,
        contrast=CONTRAST * jitter,
        saturation=saturation * jitter,
        hue=HUE * jitter,
        grayscale=grayscale,
        blur=blur,
        blur_radius=scaled_blur_radius(radius[0], radius[1], side),
        solarise=solarise,
    )


class Views:
    """Crops of an image as (side, scale) of each view, and the colour policy of each.

    compile: augment colours with torch.compile, which rounds differently. Data workers only crop. statistics:
    normalisation of the augmented views.
    """

    compile = False
    statistics: Statistics = IMAGENET

    def __init__(
        self, seed: int, crops: list[tuple[int, tuple[float, float]]], policies: list[Policy], how: Interpolation
    ) -> None:
        self.seed, self.crops, self.policies, self.how = seed, crops, policies, how

    def crop(self, image: np.ndarray, epoch: int, sample: int) -> list[Tensor]:
        """uint8 (3, side, side) crops of a uint8 (H, W, 3) image: a function of (seed, epoch, sample)."""
        rng = numpy_rng(self.seed, "crop", epoch, sample)
        height, width = image.shape[:2]
        boxes = [random_resized_crop_box(rng, height, width, scale, CROP_RATIO) for _, scale in self.crops]
        return [crop_resize(image, box, side, self.how) for box, (side, _) in zip(boxes, self.crops, strict=True)]

    def sample(self, image: np.ndarray, epoch: int, sample: int) -> dict[str, Any]:
        """The sample that a data worker makes from an image for one step."""
        return {"crops": self.crop(image, epoch, sample)}

    def colour(self, crops: list[Tensor], step: int) -> list[Tensor]:
        """Float views of uint8 crops (B, 3, side, side): a function of (seed, step) and position in the global
        batch."""
        rank, world = rank_and_world()
        draws = []
        for view, (crop, policy_) in enumerate(zip(crops, self.policies, strict=True)):
            whole = draw_parameters(generator(self.seed, "colour", step, view), len(crop) * world, policy_)
            draws.append(whole[rank * len(crop) : (rank + 1) * len(crop)])
        return photometric_together(crops, draws, compiled() if self.compile else EAGER, self.statistics)


class OneView(Views):
    """One view: a crop, mirrored or not; colours stay."""

    def __init__(self, recipe: OneViewRecipe, seed: int) -> None:
        still = policy(
            flip=recipe.flip, jitter=0.0, grayscale=0.0, blur=0.0, radius=(1.0, 1.0), side=recipe.side, solarise=0.0
        )
        crop = (recipe.side, (recipe.crop_scale[0], recipe.crop_scale[1]))
        super().__init__(seed, [crop], [still], recipe.interpolation)  # type: ignore[arg-type]

    def __call__(self, batch: dict[str, Any], step: int) -> Tensor:
        return self.colour(batch["crops"], step)[0]


class TwoViews(Views):
    """Two asymmetric views: blur and solarise differ between them."""

    def __init__(self, recipe: TwoViewRecipe, seed: int) -> None:
        policies = [
            policy(
                flip=recipe.flip,
                jitter=recipe.jitter,
                saturation=recipe.saturation,
                grayscale=recipe.grayscale,
                blur=recipe.blur[view],
                radius=recipe.blur_radius,
                side=recipe.side,
                solarise=recipe.solarise[view],
            )
            for view in range(2)
        ]
        scale = (recipe.crop_scale[0], recipe.crop_scale[1])
        super().__init__(seed, [(recipe.side, scale)] * 2, policies, recipe.interpolation)  # type: ignore[arg-type]

    def __call__(self, batch: dict[str, Any], step: int) -> list[Tensor]:
        return self.colour(batch["crops"], step)


class MultiCrop(Views):
    """Two global and several local crops, bicubic (DINO and iBOT)."""

    def __init__(self, recipe: SelfDistillationRecipe, seed: int) -> None:
        self.recipe = recipe

        def coloured(blur: float, solarise: float) -> Policy:
            radius, side = recipe.blur_radius, recipe.side  # local crops are blurred by as many pixels
            return policy(
                flip=recipe.flip,
                jitter=recipe.jitter,
                grayscale=CROP_GRAYSCALE,
                blur=blur,
                radius=radius,
                side=side,
                solarise=solarise,
            )

        globals_ = (recipe.side, (recipe.global_scale[0], recipe.global_scale[1]))
        locals_ = (recipe.local_side, (recipe.local_scale[0], recipe.local_scale[1]))
        policies = [coloured(*each) for each in zip(CROP_BLUR, CROP_SOLARISE, strict=True)]
        policies += [coloured(LOCAL_BLUR, 0.0)] * recipe.local_crops
        super().__init__(seed, [globals_] * GLOBAL_CROPS + [locals_] * recipe.local_crops, policies, "bicubic")

    def __call__(self, batch: dict[str, Any], step: int) -> Any:
        """Crops (B, 3, side, side), the global ones first."""
        return self.colour(batch["crops"], step)


class CroppedSubset(Dataset):
    """A locally stored selection with new crops every epoch, indexed by (epoch, sample)."""

    def __init__(self, subset: Subset | Joined, views: Views) -> None:
        self.subset, self.views = subset, views

    def __getitem__(self, place: Place) -> dict[str, Any]:
        epoch, sample = place
        return self.views.sample(self.subset.image(sample), epoch, sample) | self.subset.annotation(sample)
