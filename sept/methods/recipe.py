"""The base of the recipes of self-supervised methods; without torch, because a plan reads it."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from sept import ranges
from sept.backbones import Backbone
from sept.data import steps_per_epoch
from sept.ranges import MOST_BLUR, MOST_JITTER, require_rates

CHANNELS = 3
MOST_LARS = 1000.0  # its steps are a thousandth of the norm of the weights, times the rate
RATES = ("lr", "warmup_lr", "min_lr")  # learning rates of a schedule that a recipe may have


@dataclass(frozen=True)
class Length:
    """How long a training is. steps: in all. per_epoch: of one pass over the images. warmup_share: of all steps, where
    it replaces the epochs that a recipe warms up for."""

    steps: int
    per_epoch: int
    warmup_share: float | None = None

    @classmethod
    def of_epochs(cls, epochs: int, images: int, batch_size: int) -> Self:
        """So many passes over the images, in whole batches."""
        per_epoch = steps_per_epoch(images, batch_size)
        return cls(epochs * per_epoch, per_epoch)

    def warmup(self, epochs: int) -> int:
        """Steps of a warm-up of so many epochs."""
        return epochs * self.per_epoch if self.warmup_share is None else round(self.warmup_share * self.steps)


@dataclass
class Recipe:
    """A self-supervised method with its settings, to train the target's backbone or a retriever.

    A method is a folder in `sept.methods`: its recipe, a subclass of this one; its learner, named here and imported
    when training starts; and whatever else it needs. `sept.methods.METHODS` lists the recipes.

    method: the name in METHODS. title: its name in print. learner: "module:class", called with (recipe, backbone,
    seed=, length=). needs: what a backbone must offer (`sept.backbones.OFFERS`).
    """

    method: ClassVar[str]
    title: ClassVar[str]
    learner: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("pooled",)

    name: str = ranges.text("")
    side: int = ranges.side(224)  # pixels of a training view
    batch_size: int = ranges.batch(512, least=2)
    drop_path_rate: float = ranges.share(0.2, below=1)
    flip: float = ranges.share(0.5)  # probability of a mirrored view: 0 where a mirrored image shows another thing
    store_side: int = ranges.side(256)  # shorter side at which images are stored locally
    lr: float = ranges.rate(1e-3)
    warmup_epochs: int = ranges.epochs(5)
    # Continued pre-training: weights of the backbone to start from, a file or `hub`; null: random ones. On a command
    # line it is `from`, which no field of Python can be called.
    start: str | None = ranges.text(None)
    # It has its own rates and warm-up. Rates: the full rate would destroy good weights; 1/10 to 1/100 is usual, the
    # upper end for weights that are far from the selected images. Warm-up: one epoch, for AdamW's moments and the
    # heads, which published backbones lack.
    start_lr: float = ranges.share(0.1, above=0)  # times each rate of the recipe
    start_warmup_epochs: int = ranges.epochs(1)

    def check(self, prefix: str) -> None:
        """Rules for several settings together; raises ConfigError. prefix: the recipe's group, such as `pretrain`."""

    def check_network(self, prefix: str, backbone: Backbone) -> None:
        """Rules for the settings together with the sizes of a network that offers what the method needs; raises
        ConfigError."""

    def settled(self) -> Self:
        """The recipe as it enters the key: with the rates and the warm-up of a continued training, if it is one;
        without the file and the storage side, which are part of the inputs' keys."""
        blank: dict[str, Any] = {"name": "", "store_side": self.side}
        blank |= {"start": None, "start_lr": 1.0, "start_warmup_epochs": 0}
        if self.start is None:
            return replace(self, **blank)
        rates = {name: getattr(self, name) * self.start_lr for name in RATES if hasattr(self, name)}
        return replace(self, **rates, warmup_epochs=self.start_warmup_epochs, **blank)

    def fitted(self, images: int, steps: int) -> Self:
        """The recipe with what follows from the length of a training, where a setting leaves it to that. images: of an
        epoch."""
        return self

    def sides(self) -> list[int]:
        """Sides in pixels of the square views that the backbone must accept, the largest first."""
        return [self.side]

    def view_bytes(self, backbone: Backbone) -> int:
        """Bytes of the views of one sample as workers pass them: uint8; two of `side` pixels."""
        return 2 * CHANNELS * self.side**2

    def flops(self, backbone: Backbone) -> float:
        """FLOPs of one sample in one step: all its views through all networks, forward and backward."""
        raise NotImplementedError


@dataclass
class PlainRecipe(Recipe):
    """The base of methods with one rate, one schedule and one optimiser for all weights, and views of one size."""

    lr_batch: int = ranges.batch(512)  # batch size that `lr` refers to
    rate_rule: str = ranges.choice("linear", ("linear", "sqrt", "fixed"))  # of `lr` with the batch size
    schedule: str = ranges.choice("cosine", ("cosine", "cosine_after_warmup", "constant", "step"))
    warmup_lr: float = ranges.least_rate(5e-7)
    min_lr: float = ranges.least_rate(5e-6)
    optimiser: str = ranges.choice("adamw", ("adamw", "lars"))  # lars: with momentum 0.9 and trust 0.001
    betas: list[float] = ranges.pair(0.9, 0.999, least=0, below=1)  # of AdamW
    eps: float = ranges.real(1e-8, above=0, most=1)  # of AdamW
    weight_decay: float = ranges.share(0.05)
    clip: float | None = ranges.clip(5.0)  # of the joint norm of all gradients; null: none
    crop_scale: list[float] = ranges.pair(0.08, 1.0, above=0, most=1)
    interpolation: str = ranges.choice("bilinear", ("bilinear", "bicubic"))  # of the crops

    def check(self, prefix: str) -> None:
        slowest = {"warmup_lr": self.warmup_lr, "min_lr": self.min_lr}
        require_rates(prefix, self.lr, self.rate_factor, slowest, most=MOST_LARS if self.optimiser == "lars" else 1)

    @property
    def rate_factor(self) -> float:
        """What rates are multiplied by for this batch size."""
        times = self.batch_size / self.lr_batch
        return {"linear": times, "sqrt": math.sqrt(times), "fixed": 1.0}[self.rate_rule]


@dataclass
class OneViewRecipe(PlainRecipe):
    """The base of methods that show a network one view of an image."""

    interpolation: str = ranges.choice("bicubic", ("bilinear", "bicubic"))

    def view_bytes(self, backbone: Backbone) -> int:
        return CHANNELS * self.side**2


@dataclass
class TwoViewRecipe(PlainRecipe):
    """The base of methods that compare two augmented views of an image: MoBy and its relatives."""

    blur: list[float] = ranges.pair(1.0, 0.1, ordered=False, least=0, most=1)  # probability, view 1 and 2
    blur_radius: list[float] = ranges.pair(0.1, 2.0, above=0, most=MOST_BLUR)
    solarise: list[float] = ranges.pair(0.0, 0.2, ordered=False, least=0, most=1)
    jitter: float = ranges.real(
        1.0, least=0, most=MOST_JITTER
    )  # multiplies the published brightness .4, contrast .4, saturation .2, hue .1
    grayscale: float = ranges.share(0.2)
