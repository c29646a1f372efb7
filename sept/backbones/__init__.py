"""Networks by timm name: what a plan knows of them. No torch here; `sept.backbones.networks` builds them."""

from dataclasses import dataclass, field
from typing import Any

from sept import ranges
from sept.errors import ConfigError


@dataclass
class Backbone:
    """A network: its name in timm, and its arguments where they differ from timm's."""

    name: str = ranges.text("")
    args: dict[str, Any] = field(default_factory=dict)  # tried before any work: sept.capability

    def check(self, prefix: str) -> None:
        """ConfigError for an argument that is null: timm leaves it out."""
        for name, value in self.args.items():
            if value is None:
                raise ConfigError(f"{prefix}.args.{name}=null would have no effect: timm takes its own; leave it out")
