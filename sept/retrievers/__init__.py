"""Encoders that embed pool and task: what is taken from a network as the vector of an image. No torch here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Feature:
    """What is taken from a network. function: "module:function", called with (network, images (B, 3, H, W)), gives
    (B, times * width) float32, not yet of unit length. needs: what the network must offer."""

    function: str
    needs: tuple[str, ...]
    times: int = 1

    def load(self) -> Callable[..., Any]:
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]


FEATURES = {
    "cls_mean": Feature("sept.retrievers.pooling:cls_mean", ("cls", "tokens"), 2),
    "cls": Feature("sept.retrievers.pooling:cls", ("cls", "tokens")),
    "mean": Feature("sept.retrievers.pooling:mean", ("tokens",)),
    "pooled": Feature("sept.retrievers.pooling:pooled", ("pooled",)),
}
