"""Encoders that embed pool and task: what is taken from a network as the vector of an image. No torch here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sept.errors import ConfigError
from sept.runtime.named import load


@dataclass(frozen=True)
class Feature:
    """What is taken from a network. function: "module:function", called with (network, images (B, 3, H, W)), gives
    (B, times * width) float32, not yet of unit length. needs: what the network must offer. library: whose networks."""

    function: str
    needs: tuple[str, ...]
    times: int = 1
    library: str = "timm"

    def load(self) -> Callable[..., Any]:
        found: Callable[..., Any] = load(self.function)
        return found


@dataclass(frozen=True)
class Library:
    """Where networks come from. module: has the functions that `sept.retrievers.timm_networks` has. text: whether
    they embed text beside images, by the module's `embed_text`. package, extra: what it needs, and how to install it.
    """

    module: str
    text: bool = False
    package: str = ""
    extra: str = ""

    def load(self) -> Any:
        """The module. ConfigError where the package is not installed."""
        if self.package and find_spec(self.package) is None:
            raise ConfigError(
                f"retriever.library={self.package} needs {self.package}, which is not installed: "
                f"pip install 'sept[{self.extra}]'"
            )
        return import_module(self.module)


FEATURES = {
    "cls_mean": Feature("sept.retrievers.encoder:cls_mean", ("cls", "tokens"), 2),
    "cls": Feature("sept.retrievers.encoder:cls", ("cls", "tokens")),
    "mean": Feature("sept.retrievers.encoder:mean", ("tokens",)),
    "pooled": Feature("sept.retrievers.encoder:pooled", ("pooled",)),
    "joint": Feature("sept.retrievers.encoder:joint", (), library="open_clip"),
}
LIBRARIES = {
    "timm": Library("sept.retrievers.timm_networks"),
    "open_clip": Library("sept.retrievers.open_clip_networks", text=True, package="open_clip", extra="text"),
}
