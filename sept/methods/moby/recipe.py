"""MoBy's recipe: its settings, what they must be, and what a sample costs."""

from dataclasses import dataclass
from typing import ClassVar

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, forward_flops, training_flops, width
from sept.errors import ConfigError
from sept.methods.recipe import TwoViewRecipe


@dataclass
class MoByRecipe(TwoViewRecipe):
    """MoBy. Values and their sources: conf/pretrain/moby_swin_t.yaml."""

    method: ClassVar[str] = "moby"
    title: ClassVar[str] = "MoBy"
    learner: ClassVar[str] = "sept.methods.moby.learner:MoBy"

    decay_bias_table: bool = True
    hidden_dim: int = ranges.channels(4096)
    out_dim: int = ranges.channels(256)
    queue: int = ranges.whole(4096, least=1, most=2**20)
    temperature: float = ranges.temperature(0.2)
    momentum: float = ranges.share(0.99)

    def check(self, prefix: str) -> None:
        super().check(prefix)
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
