"""Published weights, checked key by key against their network and saved in the form of our own backbones."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sept.backbones import Backbone, hub
from sept.backbones.files import origin, resolve
from sept.backbones.saved import BACKBONE
from sept.errors import ConfigError
from sept.retrievers import LIBRARIES
from sept.retrievers.settings import Retriever
from sept.stages import VERSIONS
from sept.stages.inputs import Presence
from sept.store.disk import sha256
from sept.store.step import Artefact, Step


@dataclass(frozen=True)
class WeightsSpec:
    """branch: of a full iBOT checkpoint. library: source of the network."""

    backbone: Backbone
    sha256: str
    branch: str
    library: str


def step(
    stage: str,
    option: str,
    weights: str,
    backbone: Backbone,
    slug: str,
    presence: Presence,
    branch: str = "teacher",
    library: str = "timm",
) -> Step:
    """The weights in the file named by the setting `option`, or from the Hub if it says so; stage: `weights`, or
    `retriever` for an encoder."""
    online = presence.absent is None
    find = partial(_digested, weights, option, backbone, library, online)
    what = f"{option}={weights}" if weights == hub.HUB else weights
    file, digest = presence.find(what, find, (Path(weights), weights))
    spec = WeightsSpec(backbone, digest, branch, library)
    return Step(stage, VERSIONS[stage], spec, {}, partial(build, spec=spec, file=file, option=option), slug=slug)


def retriever(r: Retriever, presence: Presence) -> Step:
    """The encoder that is read from a file or the Hub."""
    assert r.weights is not None
    what = ("retriever", "retriever.weights", r.weights, r.backbone, r.name, presence, r.branch)
    return step(*what, library=r.library)


def start(option: str, weights: str | None, backbone: Backbone, presence: Presence) -> Step | None:
    """The weights that a pre-training starts from; None for random ones."""
    if weights is None:
        return None
    return step("weights", option, weights, backbone, f"start-{origin(weights)}", presence)


def _digested(weights: str, option: str, backbone: Backbone, library: str, online: bool) -> tuple[Path, str]:
    if weights != hub.HUB:
        file = resolve(weights, option)
    elif library == "timm":
        file = hub.fetch(backbone.name, option, online=online)
    else:
        file = LIBRARIES[library].load().fetch(backbone, option, online=online)
    return file, sha256(file)


def build(
    folder: Path, inputs: Mapping[str, Artefact], *, spec: WeightsSpec, file: Path, option: str
) -> dict[str, Any]:
    """option: the setting that names the file, for messages."""
    library = LIBRARIES[spec.library].load()
    network = library.build(spec.backbone)
    try:
        library.load(network, file, spec.branch)
        if sha256(file) != spec.sha256:
            raise ConfigError(f"{file} changed after the plan was made; run again")
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None
    facts = {"source": file.name, "sha256": spec.sha256}
    library.save(network, folder / BACKBONE, spec.backbone, facts)
    return {**facts, "flops": 0.0, "images_seen": 0}
