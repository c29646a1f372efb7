"""The base of the recipes of methods; without torch, because a plan reads it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

from sept import ranges
from sept.backbones import Backbone
from sept.data import steps_per_epoch
from sept.ranges import MOST_BLUR, MOST_JITTER, require_rates

CHANNELS = 3
POOL_FEATURES = "features"  # what a method reads that learns from the retriever's vectors
VIEWS = 2  # of an image, where a method compares views
MOST_LAYERS = 10  # of a head
LAST_NORMS = ("none", "scale", "plain")  # BatchNorm after the last layer of a head: `mlp` in methods/learner.py
AVERAGED, SHORTEST, LONGEST = 60, 5, 250  # steps that a moving average is over: 1/60 of all, within bounds
GLOBAL_CROPS = 2
SELF_DISTILLATION_BATCH = 256  # batch size that the published base rates of DINO and iBOT refer to
MOST_RATE = {  # of each optimiser: LARS's steps are a thousandth of the norm of the weights, times the rate
    "adamw": 1.0,
    "lars": 1000.0,
    "sgd": 100.0,
}
RATES = ("lr", "warmup_lr", "min_lr")  # learning rates of a schedule that a recipe may have


@dataclass(frozen=True)
class Length:
    """How long a training is. steps: in all. per_epoch: of one pass over the images. warmup_share: of all steps, where
    it replaces the epochs that a recipe warms up for; whatever else a recipe has in epochs keeps its ratio to them."""

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

    def epoch(self, step: int, warmup_epochs: int) -> int:
        """The epoch of a step for a recipe that warms up for so many epochs: of those, while they have another
        length."""
        if not self.warmup_share or not warmup_epochs:
            return step // self.per_epoch
        return int(step * warmup_epochs / (self.warmup_share * self.steps))


@dataclass
class Recipe:
    """A method of pre-training with its settings, to train the target's backbone or a retriever.

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

    @property
    def reads(self) -> str | None:
        """What it learns from besides images: the pool's `labels` or `captions`, the retriever's `features` of them, or
        None. A property, since every field is part of the key, and the method says it already."""
        return None

    @property
    def package(self) -> tuple[str, str] | None:
        """A package that it needs, and the extra that brings it; None: what every installation has."""
        return None

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

    def of_classes(self, count: int) -> Self:
        """The recipe with what follows from the number of classes of the images, for a method that reads labels."""
        return self

    def of_width(self, count: int) -> Self:
        """The recipe with what follows from the width of the retriever's vectors, for a method that reads them."""
        return self

    def sides(self) -> list[int]:
        """Sides in pixels of the square views that the backbone must accept, the largest first."""
        return [self.side]

    def view_bytes(self, backbone: Backbone) -> int:
        """Bytes of the views of one sample as workers pass them: uint8; two of `side` pixels."""
        return VIEWS * CHANNELS * self.side**2

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
    optimiser: str = ranges.choice("adamw", MOST_RATE)  # lars and sgd: with momentum 0.9; lars: with trust 0.001
    betas: list[float] = ranges.pair(0.9, 0.999, least=0, below=1)  # of AdamW
    eps: float = ranges.real(1e-8, above=0, most=1)  # of AdamW
    weight_decay: float = ranges.share(0.05)
    clip: float | None = ranges.clip(5.0)  # of the joint norm of all gradients; null: none
    crop_scale: list[float] = ranges.pair(0.08, 1.0, above=0, most=1)
    interpolation: str = ranges.choice("bilinear", ("bilinear", "bicubic"))  # of the crops

    def check(self, prefix: str) -> None:
        slowest = {"warmup_lr": self.warmup_lr, "min_lr": self.min_lr}
        require_rates(prefix, self.lr, self.rate_factor, slowest, most=MOST_RATE[self.optimiser])

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
    )  # multiplies the published brightness .4, contrast .4 and hue .1, and the saturation
    saturation: float = ranges.real(0.2, least=0, most=MOST_JITTER)  # of BYOL, MoBy, MoCo v3; SimCLR: .4
    grayscale: float = ranges.share(0.2)


@dataclass
class MomentumRecipe(TwoViewRecipe):
    """The base of methods with a momentum encoder, projectors and a predictor: BYOL and MoBy."""

    hidden_dim: int = ranges.channels(4096)  # of projectors and predictor
    out_dim: int = ranges.channels(256)
    momentum: float | None = ranges.share(0.99)  # of the moving average at the first step; null: see `fitted`

    def fitted(self, images: int, steps: int) -> Self:
        """A target network that averages over a sixtieth of the steps: 0.9 in 600 steps, where 0.99 lags behind what it
        is compared with, 0.99 in 6,000, and no more than BYOL's 0.996 however many there are."""
        averaged = min(max(steps / AVERAGED, SHORTEST), LONGEST)
        return replace(self, momentum=1 - 1 / averaged if self.momentum is None else self.momentum)

    def projector(self, features: int) -> list[int]:
        """Widths before, between and after the projector's layers. features: of the encoder."""
        return [features, self.hidden_dim, self.out_dim]

    def predictor(self) -> list[int]:
        """Widths before, between and after the predictor's layers."""
        return [self.out_dim, self.hidden_dim, self.out_dim]

    def flops(self, backbone: Backbone) -> float:
        """Two views through online encoder, projector and predictor with gradient, and through the target without."""
        from sept.backbones.flops import BACKWARD, forward_flops, training_flops, width

        projector, predictor = mlp_flops(self.projector(width(backbone))), mlp_flops(self.predictor())
        online = training_flops(backbone, self.side) + (1 + BACKWARD) * (projector + predictor)
        return VIEWS * (online + forward_flops(backbone, self.side) + projector)


def mlp_flops(widths: Sequence[int]) -> int:
    """FLOPs of one vector through linear layers between these widths."""
    return 2 * sum(before * after for before, after in pairwise(widths))


@dataclass
class SelfDistillationRecipe(Recipe):
    """The base of methods whose student, shown global and local crops of an image, has to give what its own moving
    average, the teacher, gives for the global ones: DINO and iBOT."""

    lr: float = ranges.rate(5e-4)  # per 256 images
    min_lr: float = ranges.least_rate(1e-6)
    warmup_epochs: int = ranges.epochs(10)
    weight_decay: float = ranges.share(0.04)
    weight_decay_end: float = ranges.share(0.4)
    clip: float | None = ranges.clip(3.0)  # of the norm of each tensor's gradient; null: none
    freeze_prototypes_epochs: int = ranges.epochs(1)  # of the last layer of the head, at the beginning
    momentum: float = ranges.share(0.996)
    out_dim: int = ranges.channels(65_536)
    head_hidden_dim: int = ranges.channels(2048)
    head_bottleneck_dim: int = ranges.channels(256)
    student_temp: float = ranges.temperature(0.1)
    teacher_temp: float = ranges.temperature(0.07)
    warmup_teacher_temp: float = ranges.temperature(0.04)
    warmup_teacher_temp_epochs: int = ranges.epochs(30)
    center_momentum: float = ranges.share(0.9)
    global_scale: list[float] = ranges.pair(0.25, 1.0, above=0, most=1)
    local_crops: int = ranges.whole(10, most=100)
    local_side: int = ranges.side(96)
    local_scale: list[float] = ranges.pair(0.05, 0.25, above=0, most=1)
    blur_radius: list[float] = ranges.pair(0.1, 2.0, above=0, most=MOST_BLUR)
    jitter: float = ranges.real(
        1.0, least=0, most=MOST_JITTER
    )  # multiplies the published brightness .4, contrast .4, saturation .2, hue .1

    def check(self, prefix: str) -> None:
        require_rates(prefix, self.lr, self.rate_factor, {"min_lr": self.min_lr})

    @property
    def rate_factor(self) -> float:
        """What the highest rate is multiplied by for this batch size; the lowest is not scaled."""
        return self.batch_size / SELF_DISTILLATION_BATCH

    def sides(self) -> list[int]:
        return [self.side, *([self.local_side] if self.local_crops else [])]

    def view_bytes(self, backbone: Backbone) -> int:
        """Global and local crops."""
        return CHANNELS * (GLOBAL_CROPS * self.side**2 + self.local_crops * self.local_side**2)

    def tokens(self, backbone: Backbone) -> int:
        """Vectors of a global crop that pass the head."""
        return 1

    def flops(self, backbone: Backbone) -> float:
        """Global crops through student and teacher, local crops, at their own size, through the student."""
        from sept.backbones.flops import BACKWARD, forward_flops, training_flops, width

        bottleneck = self.head_bottleneck_dim
        hidden = self.head_hidden_dim * (width(backbone) + self.head_hidden_dim + bottleneck)
        head = 2 * (hidden + bottleneck * self.out_dim)
        tokens = self.tokens(backbone)
        student = training_flops(backbone, self.side) + (1 + BACKWARD) * tokens * head
        total = GLOBAL_CROPS * (student + forward_flops(backbone, self.side) + tokens * head)
        if self.local_crops:
            local = training_flops(backbone, self.local_side, self.side) + (1 + BACKWARD) * head
            total += self.local_crops * local
        return total
