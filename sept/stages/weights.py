"""A published checkpoint, checked key by key against its model and kept in the form our own backbones have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sept.backbones.networks import build as build_model
from sept.backbones.weights import load_backbone, save_backbone
from sept.errors import ConfigError
from sept.store import Artefact
from sept.store.disk import sha256

BACKBONE = "backbone"  # of every artefact that holds weights


def build(
    folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, file: Path, option: str
) -> dict[str, Any]:
    """option: the setting that names the file, for messages."""
    name, args = spec["model"]["name"], spec["model"]["args"]
    model = build_model(name, args)
    try:
        load_backbone(model, file, spec["branch"])
        if sha256(file) != spec["sha256"]:
            raise ConfigError(f"{file} was changed since the plan was made; run again")
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None
    facts = {"source": file.name, "sha256": spec["sha256"]}
    save_backbone(model, folder / BACKBONE, name, args, facts)
    return {**facts, "flops": 0.0, "images_seen": 0}
