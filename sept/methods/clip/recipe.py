"""CLIP's recipe: its settings, what they must be, and what a sample costs."""

from dataclasses import dataclass
from typing import ClassVar

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, training_flops, width
from sept.errors import ConfigError
from sept.methods.recipe import OneViewRecipe

MLP = 4  # times the width of the text tower


@dataclass
class ClipRecipe(OneViewRecipe):
    """CLIP. Values and their sources: conf/pretrain/clip_*.yaml."""

    method: ClassVar[str] = "clip"
    title: ClassVar[str] = "CLIP"
    learner: ClassVar[str] = "sept.methods.clip.learner:Clip"

    tokens: str = ranges.choice("bpe", ("bpe", "bytes"))  # CLIP's 49,408 of open_clip; or letters, for small worlds
    context: int = ranges.whole(77, least=3, most=1024)  # tokens of a caption at most; longer ones are cut
    text_width: int = ranges.channels(512)
    text_layers: int = ranges.whole(12, least=1, most=100)
    text_heads: int = ranges.whole(8, least=1, most=128)
    out_dim: int = ranges.channels(512)  # of the space that images and captions share
    temperature: float = ranges.temperature(0.07)  # at the start
    least_temperature: float = ranges.temperature(0.01)

    @property
    def reads(self) -> str:
        return "captions"

    @property
    def package(self) -> tuple[str, str] | None:
        return ("open_clip", "text") if self.tokens == "bpe" else None

    def check(self, prefix: str) -> None:
        super().check(prefix)
        if self.text_width % self.text_heads:
            raise ConfigError(
                f"{prefix}.text_width={self.text_width} does not split over {prefix}.text_heads={self.text_heads}"
            )
        if self.temperature < self.least_temperature:
            raise ConfigError(
                f"{prefix}.temperature={self.temperature} is below {prefix}.least_temperature={self.least_temperature}"
            )

    def flops(self, backbone: Backbone) -> float:
        """One view and one caption with gradient, and a row of similarities. The caption counts with all of `context`,
        where batches are cut to their longest: an upper bound."""
        length, dim, out = self.context, self.text_width, self.out_dim
        block = 2 * length * dim * (4 * dim + 2 * MLP * dim) + 2 * 2 * length**2 * dim
        text = self.text_layers * block + 2 * dim * out
        image = 2 * width(backbone) * out
        similarities = 2 * out * self.batch_size
        return training_flops(backbone, self.side) + (1 + BACKWARD) * (text + image + similarities)
