"""MoBy's recipe: its settings, what they must be, and what a sample costs."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, forward_flops, training_flops, width
from sept.errors import ConfigError
from sept.methods.recipe import TwoViewRecipe

MOST_QUEUE = 4096  # keys: MoBy's published queue
AVERAGED, SHORTEST, LONGEST = 60, 5, 250  # steps: a share of 1/60 of them, within bounds


@dataclass
class MoByRecipe(TwoViewRecipe):
    """MoBy. Values and their sources: conf/pretrain/moby_swin_t.yaml."""

    method: ClassVar[str] = "moby"
    title: ClassVar[str] = "MoBy"
    learner: ClassVar[str] = "sept.methods.moby.learner:MoBy"

    decay_bias_table: bool = True
    hidden_dim: int = ranges.channels(4096)
    out_dim: int = ranges.channels(256)
    queue: int | None = ranges.whole(4096, least=1, most=2**20)  # keys; null: see `fitted`
    temperature: float = ranges.temperature(0.2)
    momentum: float | None = ranges.share(0.99)  # null: see `fitted`

    def fitted(self, images: int, steps: int) -> Self:
        """A queue of at most half of the images, so that it holds no older key of an image in the batch; and a target
        network that averages over a sixtieth of the steps: 0.9 in 600 steps, where 0.99 lags behind what it is compared
        with, 0.99 in 6,000, and no more than BYOL's 0.996 however many there are.
        """
        batch = self.batch_size
        averaged = min(max(steps / AVERAGED, SHORTEST), LONGEST)
        most = max(batch, min(MOST_QUEUE, images // 2 // batch * batch))
        queue = most if self.queue is None else self.queue
        return replace(self, queue=queue, momentum=1 - 1 / averaged if self.momentum is None else self.momentum)

    def check(self, prefix: str) -> None:
        super().check(prefix)
        if self.queue is not None and self.queue < self.batch_size:
            raise ConfigError(
                f"{prefix}.queue={self.queue} does not hold one batch of keys: {prefix}.batch_size={self.batch_size}"
            )

    def flops(self, backbone: Backbone) -> float:
        """Two views through the online branch and predictor with gradient, and through the target without."""
        hidden, out = self.hidden_dim, self.out_dim
        encoder = forward_flops(backbone, self.side)
        projector = 2 * hidden * (width(backbone) + out)
        predictor = 2 * hidden * (out + out)
        logits = 2 * out * (MOST_QUEUE if self.queue is None else self.queue)
        online = training_flops(backbone, self.side) + (1 + BACKWARD) * (projector + predictor) + 2 * logits
        return 2.0 * (online + encoder + projector)
