"""Recipes of transfer to a task: a classifier, detector or segmenter, or an evaluation of the frozen backbone."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, forward_flops, training_flops, trunk_flops, width
from sept.data import steps_per_epoch
from sept.errors import ConfigError
from sept.ranges import COUNT, EPOCH, MOST_EPOCHS, RATIO, SIDE, require_rates

RAND_AUGMENT = (  # checked here, as timm silently ignores unknown parts
    r"rand(-(m(10|[0-9])|n[1-9]|mstd\d+(\.\d+)?|mmax\d+|inc[01]|p(0(\.\d+)?|1(\.0)?)|t(weights|3aw?)))*"
)


@dataclass
class Transfer:
    """How the backbone is transferred to the task and tested. fits: the kind of task, as in
    `sept.stages.finetune.kind_of`."""

    fits: ClassVar[str]

    name: str = ranges.text("")
    seed: int = ranges.seed()

    def check(self) -> None:
        """Rules for several settings of a recipe together."""

    @property
    def passes(self) -> int:
        """How many times a training image is seen."""
        return 1

    def settled(self, images: int) -> Self:
        """The recipe as it trains on this many images."""
        return self

    def flops(self, backbone: Backbone, classes: int) -> float:
        """FLOPs per training image and pass; for detectors and segmenters, in a plan, an estimate: only the trunk, at
        the size of a test image or of a crop."""
        raise NotImplementedError


@dataclass
class Probe(Transfer):
    """Logistic regression on frozen features: nothing else is trained, and nothing is random."""

    fits: ClassVar[str] = "classify"

    side: int = ranges.side(224)

    def check_unused(self) -> None:
        if self.seed:
            raise ConfigError(
                f"finetune.seed={self.seed} would have no effect: finetune={self.name} uses no randomness"
            )

    def flops(self, backbone: Backbone, classes: int) -> float:
        return forward_flops(backbone, self.side)


@dataclass
class Finetune(Transfer):
    """The base of trained classifiers, detectors and segmenters; values are set by the recipes below."""

    epochs: int = ranges.epochs(100, least=1)
    batch_size: int = ranges.batch(64)
    weight_decay: float = ranges.share(0.05)
    drop_path_rate: float = ranges.share(0.1, below=1)
    test_every: int = ranges.epochs(10, least=1)  # epochs

    @property
    def passes(self) -> int:
        return self.epochs


@dataclass
class Classify(Finetune):
    """The classifier. Values and their sources: conf/finetune/classify.yaml."""

    fits: ClassVar[str] = "classify"

    side: int = ranges.side(224)
    lr: float = ranges.rate(5e-3)  # per `lr_batch` images
    lr_batch: int = ranges.batch(512)
    warmup_epochs: int = ranges.epochs(10)
    warmup_lr: float = ranges.least_rate(2.5e-7)  # per `lr_batch` images
    min_lr: float = ranges.least_rate(2.5e-7)  # per `lr_batch` images
    min_steps: int = ranges.whole(0, most=MOST_EPOCHS)  # few images: as many more epochs as this takes; 0: `epochs`
    layer_decay: float = ranges.share(0.9, above=0)
    clip: float = ranges.clip(5.0)
    crop_scale: list[float] = ranges.pair(0.08, 1.0, above=0, most=1)
    flip: float = ranges.share(
        0.5
    )  # probability of a mirrored view: 0 where mirroring changes the class, as of letters
    color_jitter: float = ranges.share(0.4)  # brightness, contrast and saturation; unused if rand_augment is set
    rand_augment: str | None = ranges.text("rand-m9-mstd0.5-inc1", form=RAND_AUGMENT, example="rand-m9-mstd0.5-inc1")
    erasing: float = ranges.share(0.25)
    mixup: float = ranges.share(0.8)
    cutmix: float = ranges.share(1.0)
    mix_prob: float = ranges.share(1.0)
    smoothing: float = ranges.share(0.1, below=1)

    def check(self) -> None:
        slowest = {"warmup_lr": self.warmup_lr, "min_lr": self.min_lr}
        require_rates("finetune", self.lr, self.batch_size / self.lr_batch, slowest)

    def settled(self, images: int) -> Self:
        """With as many epochs as `min_steps` takes; warm-up and tests keep their share of the training."""
        epochs = max(self.epochs, math.ceil(self.min_steps / steps_per_epoch(images, self.batch_size)))
        stretch = epochs / self.epochs
        later = {name: round(getattr(self, name) * stretch) for name in ("warmup_epochs", "test_every")}
        return replace(self, epochs=epochs, **later)

    def flops(self, backbone: Backbone, classes: int) -> float:
        return training_flops(backbone, self.side) + (1 + BACKWARD) * 2 * width(backbone) * classes


@dataclass
class Detect(Finetune):
    """Faster R-CNN with FPN on the backbone. Values and their sources: conf/finetune/detect.yaml."""

    fits: ClassVar[str] = "detect"

    lr: float = ranges.rate(1e-4)
    milestones: list[int] = ranges.several(
        [27, 33], EPOCH, strictly=True
    )  # epochs after which the rate drops to a tenth
    warmup_steps: int = ranges.whole(500, most=MOST_EPOCHS)
    warmup_factor: float = ranges.share(1e-3, above=0)  # of the rate at step 0
    short_sides: list[int] = ranges.several(range(480, 801, 32), SIDE, fewest=1)  # one is drawn per image
    long_side: int = ranges.side(1333)  # at most
    test_short_side: int = ranges.side(800)
    fpn_width: int = ranges.channels(256)
    head_width: int = ranges.channels(1024)
    anchor_sides: list[int] = ranges.several([32, 64, 128, 256, 512], SIDE, strictly=True)  # one per pyramid level
    anchor_ratios: list[float] = ranges.several([0.5, 1.0, 2.0], RATIO, fewest=1)
    rpn_samples: int = ranges.whole(256, least=2, most=10**6)
    proposals: list[int] = ranges.several([2000, 1000], COUNT, count=2)  # per level before, per image after NMS
    roi_samples: int = ranges.whole(512, least=4, most=10**6)
    score: float = ranges.share(0.05, below=1)  # minimum, of a detection
    nms: float = ranges.share(0.5, above=0)
    detections: int = ranges.whole(100, least=1, most=10**5)  # at most, per image

    def check(self) -> None:
        super().check()
        if len(self.anchor_sides) != 5:
            raise ConfigError(f"finetune.anchor_sides={self.anchor_sides}: the pyramid has 5 levels, one side each")
        for name, side in (("short_sides", max(self.short_sides)), ("test_short_side", self.test_short_side)):
            if side > self.long_side:
                raise ConfigError(f"finetune.{name} of {side} pixels is more than finetune.long_side={self.long_side}")

    def flops(self, backbone: Backbone, classes: int) -> float:
        return trunk_flops(backbone, self.test_short_side * self.long_side)


@dataclass
class Segmentation(Finetune):
    """What all recipes of semantic segmentation have."""

    fits: ClassVar[str] = "segment"

    lr: float = ranges.rate(6e-5)
    warmup_steps: int = ranges.whole(1500, most=MOST_EPOCHS)
    warmup_factor: float = ranges.share(1e-6, above=0)  # of the rate at step 0
    side: int = ranges.side(512)  # of a training crop; the shorter side of a test image
    long_side: int = ranges.side(2048)  # at most, of a test image
    scale: list[float] = ranges.pair(0.5, 2.0, above=0, most=10)  # training: range of the random resize before the crop
    dropout: float = ranges.share(0.1, below=1)  # before the classifiers, of whole channels

    def check(self) -> None:
        super().check()
        if self.batch_size < 2:
            raise ConfigError(f"finetune.batch_size={self.batch_size}: batch norm needs at least 2 images")
        if self.side > self.long_side:
            raise ConfigError(f"finetune.side={self.side} is more than finetune.long_side={self.long_side}")


@dataclass
class Segment(Segmentation):
    """Semantic segmentation with UPerNet on the backbone. Values and their sources: conf/finetune/segment.yaml."""

    decoder_width: int = ranges.channels(512)
    auxiliary: float = ranges.real(0.4, least=0, most=10)  # weight of the loss at the map before the last

    def flops(self, backbone: Backbone, classes: int) -> float:
        return trunk_flops(backbone, self.side**2)


@dataclass
class SegmentLinear(Segmentation):
    """Semantic segmentation with a linear layer on the backbone's maps. Values: conf/finetune/segment_linear.yaml."""

    frozen: bool = True  # the backbone: only the layer is trained

    def flops(self, backbone: Backbone, classes: int) -> float:
        return trunk_flops(backbone, self.side**2, trains=not self.frozen)


RECIPES: dict[str, type[Transfer]] = {
    "classify": Classify,
    "probe": Probe,
    "detect": Detect,
    "segment": Segment,
    "segment_linear": SegmentLinear,
}
