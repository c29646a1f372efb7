"""MoBy's recipe: its settings, what they must be, and what a sample costs."""

from dataclasses import dataclass
from typing import ClassVar

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, forward_flops, training_flops, width
from sept.errors import ConfigError
from sept.methods.recipe import Recipe
from sept.ranges import MOST_BLUR, MOST_JITTER, require_rates


@dataclass
class MoByRecipe(Recipe):
    """MoBy. Values and their sources: conf/pretrain/moby_swin_t.yaml."""

    method: ClassVar[str] = "moby"
    title: ClassVar[str] = "MoBy"
    learner: ClassVar[str] = "sept.methods.moby.learner:MoBy"

    lr: float = ranges.rate(1e-3)  # per `lr_batch` images
    lr_batch: int = ranges.batch(512)
    schedule: str = ranges.choice("cosine", ("cosine", "constant"))
    warmup_epochs: int = ranges.epochs(5)
    warmup_lr: float = ranges.least_rate(5e-7)
    min_lr: float = ranges.least_rate(5e-6)
    weight_decay: float = ranges.share(0.05)
    decay_bias_table: bool = True
    clip: float = ranges.clip(5.0)
    hidden_dim: int = ranges.channels(4096)
    out_dim: int = ranges.channels(256)
    queue: int = ranges.whole(4096, least=1, most=2**20)
    temperature: float = ranges.temperature(0.2)
    momentum: float = ranges.share(0.99)
    crop_scale: list[float] = ranges.pair(0.08, 1.0, above=0, most=1)
    blur: list[float] = ranges.pair(1.0, 0.1, ordered=False, least=0, most=1)  # probability, view 1 and 2
    blur_radius: list[float] = ranges.pair(0.1, 2.0, above=0, most=MOST_BLUR)
    solarise: list[float] = ranges.pair(0.0, 0.2, ordered=False, least=0, most=1)
    jitter: float = ranges.real(
        1.0, least=0, most=MOST_JITTER
    )  # multiplies the published brightness .4, contrast .4, saturation .2, hue .1
    grayscale: float = ranges.share(0.2)

    def check(self, prefix: str) -> None:
        slowest = {"warmup_lr": self.warmup_lr, "min_lr": self.min_lr}
        require_rates(prefix, self.lr, self.batch_size / self.lr_batch, slowest)
        if self.queue < self.batch_size:
            raise ConfigError(
                f"{prefix}.queue={self.queue} does not hold one batch of keys: {prefix}.batch_size={self.batch_size}"
            )

    def flops(self, backbone: Backbone) -> float:
        """Two views through the online branch and predictor with gradient, and through the target without."""
        hidden, out = self.hidden_dim, self.out_dim
        encoder = forward_flops(backbone, self.side)
        projector = 2 * hidden * (width(backbone) + out)
        predictor = 2 * hidden * (out + out)
        logits = 2 * out * self.queue
        online = training_flops(backbone, self.side) + (1 + BACKWARD) * (projector + predictor) + 2 * logits
        return 2.0 * (online + encoder + projector)
