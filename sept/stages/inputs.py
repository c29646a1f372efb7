"""Inputs that several stages have: one per source of the pool, data and weights that may be absent, an encoder."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from sept.backbones import Backbone
from sept.backbones.saved import BACKBONE, WEIGHTS
from sept.errors import ConfigError, DataError
from sept.runtime.hardware import Runtime
from sept.store.step import Artefact, Step

T = TypeVar("T")


def number_inputs(name: str, steps: Sequence[Step]) -> dict[str, Step]:
    """`name`0, `name`1, ..: their order is the order of the pool's rows, and part of the key."""
    return {f"{name}{i}": step for i, step in enumerate(steps)}


def in_order(inputs: Mapping[str, Artefact], name: str) -> list[Artefact]:
    """The inputs `name`0, `name`1, .. in this order."""
    return [inputs[f"{name}{i}"] for i in range(sum(each.startswith(name) for each in inputs))]


class Presence:
    """absent: for a plan, which uses published sizes for data or weights that are not on this machine, and records them
    here with the reason; without it they are refused."""

    def __init__(self, absent: dict[str, str] | None = None) -> None:
        self.absent = absent

    def find(self, what: str, find: Callable[[], T], otherwise: T) -> T:
        """The result of `find`; in a plan `otherwise`, if it is not on this machine."""
        try:
            return find()
        except (DataError, ConfigError) as error:
            if self.absent is None:
                raise
            self.absent[what] = str(error)
            return otherwise


if TYPE_CHECKING:
    from sept.retrievers.encoder import Encoder
    from sept.retrievers.settings import Preprocess


def backbone_of(retriever: Artefact) -> Backbone:
    """The backbone whose weights the artefact holds."""
    return Backbone(**retriever.manifest["spec"]["backbone"])


def library_of(retriever: Artefact) -> str:
    """The library of its network; networks trained here are timm's."""
    return str(retriever.manifest["spec"].get("library", "timm"))


def open_encoder(
    retriever: Artefact, feature: str, preprocess: "Preprocess", runtime: Runtime, batch_size: int, precision: str
) -> "Encoder":
    """Computes in the precision of the features that it makes or is compared with, whatever the runtime's is."""
    from sept.retrievers.encoder import Encoder

    return Encoder(
        *(retriever.path / BACKBONE / WEIGHTS, backbone_of(retriever), feature, preprocess, runtime, batch_size),
        precision=precision,
        library=library_of(retriever),
    )
