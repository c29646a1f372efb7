"""A published checkpoint, checked key by key against its model and kept in the form our own backbones have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sept.models.backbones import build as build_model
from sept.models.weights import load_backbone, save_backbone
from sept.store import Artefact

BACKBONE = "backbone"  # of every artefact that holds weights


def build(folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, file: Path) -> dict[str, Any]:
    name, args = spec["model"]["name"], spec["model"]["args"]
    model = build_model(name, args)
    load_backbone(model, file, spec["branch"])
    facts = {"source": file.name, "sha256": spec["sha256"]}
    save_backbone(model, folder / BACKBONE, name, args, facts)
    return {**facts, "flops": 0.0, "images_seen": 0}
