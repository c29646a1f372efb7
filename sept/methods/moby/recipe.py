"""MoBy's recipe: its settings, what they must be, and what a sample costs."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from sept import ranges
from sept.backbones import Backbone
from sept.errors import ConfigError
from sept.methods.recipe import VIEWS, MomentumRecipe

MOST_QUEUE = 4096  # keys: MoBy's published queue


@dataclass
class MoByRecipe(MomentumRecipe):
    """MoBy. Values and their sources: conf/pretrain/moby_swin_t.yaml."""

    method: ClassVar[str] = "moby"
    title: ClassVar[str] = "MoBy"
    learner: ClassVar[str] = "sept.methods.moby.learner:MoBy"

    decay_bias_table: bool = True
    queue: int | None = ranges.whole(4096, least=1, most=2**20)  # keys; null: see `fitted`
    temperature: float = ranges.temperature(0.2)

    def fitted(self, images: int, steps: int) -> Self:
        """Also a queue of at most half of the images, so that it holds no older key of an image in the batch."""
        batch = self.batch_size
        most = max(batch, min(MOST_QUEUE, images // 2 // batch * batch))
        queue = most if self.queue is None else self.queue
        return replace(super().fitted(images, steps), queue=queue)

    def check(self, prefix: str) -> None:
        super().check(prefix)
        if self.queue is not None and self.queue < self.batch_size:
            raise ConfigError(
                f"{prefix}.queue={self.queue} does not hold one batch of keys: {prefix}.batch_size={self.batch_size}"
            )

    def flops(self, backbone: Backbone) -> float:
        """And the products with the queue, which needs no gradient."""
        logits = 2 * self.out_dim * (MOST_QUEUE if self.queue is None else self.queue)
        return super().flops(backbone) + VIEWS * 2 * logits
