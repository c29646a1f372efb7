"""A published checkpoint, checked key by key against its network and kept in the form our own backbones have."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sept.backbones import Backbone
from sept.backbones.files import origin, resolve
from sept.backbones.saved import BACKBONE
from sept.errors import ConfigError
from sept.stages import VERSIONS
from sept.stages.presence import Presence
from sept.store import Artefact, Step
from sept.store.disk import sha256


@dataclass(frozen=True)
class WeightsSpec:
    """branch: of a full iBOT checkpoint."""

    backbone: Backbone
    sha256: str
    branch: str


def step(
    stage: str, option: str, weights: str, backbone: Backbone, slug: str, presence: Presence, branch: str = "teacher"
) -> Step:
    """The weights in the file that the setting `option` names; stage: `weights`, or `retriever` for an encoder."""
    file, digest = presence.find(weights, partial(_digested, weights, option), (Path(weights), weights))
    spec = WeightsSpec(backbone, digest, branch)
    return Step(stage, VERSIONS[stage], spec, {}, partial(build, spec=spec, file=file, option=option), slug=slug)


def start(option: str, weights: str | None, backbone: Backbone, presence: Presence) -> Step | None:
    """The weights that a pre-training goes on from; None where it starts at random."""
    if weights is None:
        return None
    return step("weights", option, weights, backbone, f"start-{origin(weights)}", presence)


def _digested(weights: str, option: str) -> tuple[Path, str]:
    file = resolve(weights, option)
    return file, sha256(file)


def build(
    folder: Path, inputs: Mapping[str, Artefact], *, spec: WeightsSpec, file: Path, option: str
) -> dict[str, Any]:
    """option: the setting that names the file, for messages."""
    from sept.backbones.networks import build as build_network
    from sept.backbones.weights import load_backbone, save_backbone

    name, args = spec.backbone.name, spec.backbone.args
    network = build_network(name, args)
    try:
        load_backbone(network, file, spec.branch)
        if sha256(file) != spec.sha256:
            raise ConfigError(f"{file} was changed since the plan was made; run again")
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None
    facts = {"source": file.name, "sha256": spec.sha256}
    save_backbone(network, folder / BACKBONE, name, args, facts)
    return {**facts, "flops": 0.0, "images_seen": 0}
