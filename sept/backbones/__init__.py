"""Networks by timm name: what a plan knows of them. No torch here; `sept.backbones.networks` builds them."""

from dataclasses import dataclass, field
from typing import Any

from sept import ranges
from sept.errors import ConfigError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel
"""Mean and deviation of red, green and blue in [0, 1], by which images are normalised."""

IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

OWN = {"plain_conv": "sept.backbones.plain_conv"}
"""Networks that are not timm's, by the name under which their module registers them with timm."""


@dataclass
class Backbone:
    """A network: its name in timm, and its arguments where they differ from timm's."""

    name: str = ranges.text("")
    args: dict[str, Any] = field(default_factory=dict)  # tried before any work: sept.capability
    statistics: str = ranges.choice(
        "timm", ("timm", "imagenet")
    )  # of pixels: in timm's record of the name, or ImageNet's

    def check(self, prefix: str) -> None:
        """ConfigError for an argument that is null: timm leaves it out."""
        for name, value in self.args.items():
            if value is None:
                raise ConfigError(f"{prefix}.args.{name}=null would have no effect: timm takes its own; leave it out")

    @property
    def architecture(self) -> str:
        """The name without the tag of published weights: `resnet50` of `resnet50.a1_in1k`."""
        return self.name.partition(".")[0]
