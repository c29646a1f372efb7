"""iBOT's recipe: its settings, what they must be, and what a sample costs."""

from dataclasses import dataclass, replace
from typing import ClassVar

from sept import ranges
from sept.backbones import Backbone
from sept.backbones.flops import BACKWARD, forward_flops, shape_of, training_flops, width
from sept.errors import ConfigError
from sept.methods.recipe import CHANNELS, Recipe
from sept.ranges import MOST_BLUR, MOST_JITTER, SHARE, format_value, require_rates

LR_BATCH = 256  # batch size that iBOT's published base rate refers to
TOLERANCE = 1e-9  # of sums of decimal fractions


@dataclass
class IBotRecipe(Recipe):
    """iBOT. Values and their sources: conf/pretrain/ibot_vit_s16.yaml."""

    method: ClassVar[str] = "ibot"
    title: ClassVar[str] = "iBOT"
    learner: ClassVar[str] = "sept.methods.ibot.learner:IBot"
    needs: ClassVar[tuple[str, ...]] = ("cls", "tokens", "plain_vit")

    lr: float = ranges.rate(5e-4)  # per 256 images
    min_lr: float = ranges.least_rate(1e-6)
    warmup_epochs: int = ranges.epochs(10)
    weight_decay: float = ranges.share(0.04)
    weight_decay_end: float = ranges.share(0.4)
    clip: float = ranges.clip(3.0)
    freeze_last_layer_epochs: int = ranges.epochs(1)
    momentum: float = ranges.share(0.996)
    out_dim: int = ranges.channels(8192)
    head_hidden_dim: int = ranges.channels(2048)
    head_bottleneck_dim: int = ranges.channels(256)
    student_temp: float = ranges.temperature(0.1)
    teacher_temp: float = ranges.temperature(0.07)
    warmup_teacher_temp: float = ranges.temperature(0.04)
    warmup_teacher_temp_epochs: int = ranges.epochs(30)
    center_momentum: float = ranges.share(0.9)
    pred_ratio: list[float] = ranges.several([0.0, 0.3], SHARE, fewest=1)
    pred_ratio_var: list[float] = ranges.several([0.0, 0.2], SHARE, fewest=1)
    global_scale: list[float] = ranges.pair(0.25, 1.0, above=0, most=1)
    local_crops: int = ranges.whole(10, most=100)
    local_side: int = ranges.side(96)
    local_scale: list[float] = ranges.pair(0.05, 0.25, above=0, most=1)
    blur_radius: list[float] = ranges.pair(0.1, 2.0, above=0, most=MOST_BLUR)
    jitter: float = ranges.real(
        1.0, least=0, most=MOST_JITTER
    )  # multiplies the published brightness .4, contrast .4, saturation .2, hue .1

    def check(self, prefix: str) -> None:
        require_rates(prefix, self.lr, self.batch_size / LR_BATCH, {"min_lr": self.min_lr})
        if len(self.pred_ratio) != len(self.pred_ratio_var):
            raise ConfigError(
                f"{prefix}.pred_ratio={format_value(self.pred_ratio)} and {prefix}.pred_ratio_var="
                f"{format_value(self.pred_ratio_var)}: one of each, in pairs"
            )
        for ratio, variance in zip(self.pred_ratio, self.pred_ratio_var, strict=True):
            if ratio - variance < -TOLERANCE or ratio + variance > 1 + TOLERANCE:
                raise ConfigError(f"{prefix}.pred_ratio={ratio} +- {variance} of an image leaves [0, 1]")

    def sides(self) -> list[int]:
        return [self.side, *([self.local_side] if self.local_crops else [])]

    def view_bytes(self, backbone: Backbone) -> int:
        """Two global crops with a mask each, a byte per patch, and the local crops."""
        patches = (self.side // _patch(backbone)) ** 2
        pixels = CHANNELS * (2 * self.side**2 + self.local_crops * self.local_side**2)
        return int(pixels + 2 * patches)

    def flops(self, backbone: Backbone) -> float:
        """Two global crops through student and teacher with all tokens, local crops through the student."""
        backbone = replace(backbone, args={**backbone.args, "dynamic_img_size": True})  # as the learner builds it
        dim = width(backbone)
        head = 2 * (
            dim * self.head_hidden_dim
            + self.head_hidden_dim * (self.head_hidden_dim + self.head_bottleneck_dim)
            + self.head_bottleneck_dim * self.out_dim
        )
        tokens = (self.side // _patch(backbone)) ** 2 + 1
        student = training_flops(backbone, self.side) + (1 + BACKWARD) * tokens * head
        teacher = forward_flops(backbone, self.side) + tokens * head
        local = training_flops(backbone, self.local_side) + (1 + BACKWARD) * head
        return 2 * (student + teacher) + self.local_crops * local


def _patch(backbone: Backbone) -> int:
    """Side of a patch in pixels."""
    return int(shape_of(backbone).get("patch_size", 16))
