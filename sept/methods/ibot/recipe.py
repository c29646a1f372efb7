"""iBOT's recipe: its settings, what they must be, and what a sample costs."""

from dataclasses import dataclass
from typing import ClassVar

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import shape_of
from sept.errors import ConfigError
from sept.methods.recipe import GLOBAL_CROPS, SelfDistillationRecipe
from sept.ranges import SHARE, format_value

TOLERANCE = 1e-9  # of sums of decimal fractions


@dataclass
class IBotRecipe(SelfDistillationRecipe):
    """iBOT. Values and their sources: conf/pretrain/ibot_vit_s16.yaml."""

    method: ClassVar[str] = "ibot"
    title: ClassVar[str] = "iBOT"
    learner: ClassVar[str] = "sept.methods.ibot.learner:IBot"
    needs: ClassVar[tuple[str, ...]] = ("cls", "tokens", "plain_vit", "normed_tokens")

    out_dim: int = ranges.channels(8192)
    pred_ratio: list[float] = ranges.several([0.0, 0.3], SHARE, fewest=1)
    pred_ratio_var: list[float] = ranges.several([0.0, 0.2], SHARE, fewest=1)

    def check(self, prefix: str) -> None:
        super().check(prefix)
        if len(self.pred_ratio) != len(self.pred_ratio_var):
            raise ConfigError(
                f"{prefix}.pred_ratio={format_value(self.pred_ratio)} and {prefix}.pred_ratio_var="
                f"{format_value(self.pred_ratio_var)}: one of each, in pairs"
            )
        for ratio, variance in zip(self.pred_ratio, self.pred_ratio_var, strict=True):
            if ratio - variance < -TOLERANCE or ratio + variance > 1 + TOLERANCE:
                raise ConfigError(f"{prefix}.pred_ratio={ratio} +- {variance} of an image leaves [0, 1]")

    def view_bytes(self, backbone: Backbone) -> int:
        """A byte per patch for the mask of each global crop, besides the crops."""
        return super().view_bytes(backbone) + GLOBAL_CROPS * self._patches(backbone)

    def tokens(self, backbone: Backbone) -> int:
        """[CLS] and all patches."""
        return self._patches(backbone) + 1

    def _patches(self, backbone: Backbone) -> int:
        """Patches of a global crop."""
        return (self.side // int(shape_of(backbone).get("patch_size", 16))) ** 2
