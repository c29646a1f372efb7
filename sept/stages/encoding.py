"""The encoder of a retriever artefact."""

from typing import TYPE_CHECKING

from sept.backbones import Backbone
from sept.backbones.saved import BACKBONE, WEIGHTS
from sept.retrievers.settings import Preprocess
from sept.runtime.hardware import Runtime
from sept.store.step import Artefact

if TYPE_CHECKING:
    from sept.retrievers.encoder import Encoder


def backbone_of(retriever: Artefact) -> Backbone:
    """The backbone whose weights the artefact holds."""
    return Backbone(**retriever.manifest["spec"]["backbone"])


def library_of(retriever: Artefact) -> str:
    """The library of its network; networks trained here are timm's."""
    return str(retriever.manifest["spec"].get("library", "timm"))


def open_encoder(
    retriever: Artefact, feature: str, preprocess: Preprocess, runtime: Runtime, batch_size: int, precision: str
) -> "Encoder":
    """Computes in the precision of the features that it makes or is compared with, whatever the runtime's is."""
    from sept.retrievers.encoder import Encoder

    return Encoder(
        *(retriever.path / BACKBONE / WEIGHTS, backbone_of(retriever), feature, preprocess, runtime, batch_size),
        precision=precision,
        library=library_of(retriever),
    )
