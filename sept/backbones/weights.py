"""Backbone weights in and out: files checked key by key against a model, ours in a form that timm loads."""

import json
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sept.backbones import IMAGENET, Statistics
from sept.backbones.files import LENGTH_BYTES, part_of_several
from sept.backbones.formats import read_state
from sept.backbones.saved import CARD, CONFIG, WEIGHTS, card, header_of
from sept.errors import ConfigError

# Of a file: iBOT's and DINOv2's mask token, heads, a mean's count.
IGNORED = ("masked_embed", "mask_token", "head.", "fc_norm.", "n_averaged")
DERIVED = ("attn_mask", "relative_position_index")  # buffers that a model computes itself
LISTED = 8  # keys of each kind in a message

# Of timm's description of a model: what it says of the published weights, which are not ours.
FOREIGN = ("tag", "url", "hf_hub_id", "license", "origin_url", "paper_ids", "paper_name", "notes", "license_url")
PATCHES, PLACES, WINDOWS = "patch_embed.proj.weight", "pos_embed", "relative_position_bias_table"
State = Mapping[str, Tensor]


def load_backbone(model: nn.Module, path: Path, branch: str = "teacher") -> None:
    """Fill `model` (built with num_classes=0) from the file, every key accounted for, in the model's own precision.

    Raises ConfigError listing what is missing, unexpected or of another shape (a partly random encoder is never
    accepted), and naming a tensor of another kind of number or with values that are not finite.
    """
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(DERIVED)}
    state = {key: value for key, value in read_state(path, branch, own).items() if not key.endswith(DERIVED)}
    missing = sorted(own.keys() - state.keys())
    ignored = (*IGNORED, *_heads(model))
    unexpected = sorted(key for key in state.keys() - own.keys() if not key.startswith(ignored))
    shapes = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if missing or unexpected or shapes:
        raise ConfigError(
            f"{path} does not fit {type(model).__name__}: "
            f"missing {_some(missing)}; unexpected {_some(unexpected)}; other shape {_some(shapes)}"
            f"{sizes_apart(own, state)}{part_of_several(path)}"
        )
    for key, value in own.items():
        if why := _unusable(state[key], value):
            raise ConfigError(f"{path}: the tensor {key} {why}")
    model.load_state_dict({key: state[key] for key in own}, strict=False)


def _heads(model: nn.Module) -> list[str]:
    """Beginnings of the names of a classifier's tensors, which timm calls otherwise in every family."""
    record: Any = getattr(model, "pretrained_cfg", None) or {}
    named = record.get("classifier") or ()
    return [f"{name}." for name in ((named,) if isinstance(named, str) else named)]


def _unusable(found: Tensor, own: Tensor) -> str | None:
    """Why a tensor of a file cannot stand where `own` does; None where it can."""
    if found.layout != torch.strided or found.is_quantized or found.is_meta:
        return "is sparse, quantised or without its values: save it as a plain one"
    if found.is_floating_point() != own.is_floating_point() or found.is_complex():
        return f"is of {found.dtype}, the model's of {own.dtype}".replace("torch.", "")
    off = found.numel() - int(found.to(own.dtype).isfinite().sum())
    of = f"{off:,} of {found.numel():,}"
    return f"holds values that are not finite (NaN or infinite, {of}): the file is of no use" if off else None


def save_backbone(
    model: nn.Module,
    folder: Path,
    name: str,
    args: dict[str, Any],
    facts: dict[str, Any],
    statistics: Statistics = IMAGENET,
) -> None:
    """Write model.safetensors, config.json and a card: `timm.create_model("local-dir:FOLDER", ...)` loads the folder.

    name and args are the timm name and constructor arguments, those of `sized_args` where the model was built for
    another side. facts (JSON values: recipe, selection key, pool, FLOPs, ..) go to the card and into the header of
    the weights file, from where `facts_of` reads them. statistics: what its images are normalised by. `folder` is
    unfinished work: written without care for crashes.
    """
    from timm.models import save_for_hf

    ours = {"num_classes": 0, "mean": statistics[0], "std": statistics[1]}
    described = {key: value for key, value in model.pretrained_cfg.items() if key not in FOREIGN}  # type: ignore
    model.pretrained_cfg = {**described, **ours}  # type: ignore
    save_for_hf(model, str(folder), model_args=args, safe_serialization=True)
    config = json.loads((folder / CONFIG).read_text())
    config["architecture"] = name
    (folder / CONFIG).write_text(json.dumps(config, indent=2))
    write_weights(model, folder, facts)
    (folder / CARD).write_text(card(name, config.get("model_args", args), facts, statistics))


def write_weights(model: nn.Module, folder: Path, facts: dict[str, Any]) -> None:
    """Write model.safetensors, with the facts in its header: equal weights with equal facts give equal bytes."""
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS, header_of(facts))
    _order_header(folder / WEIGHTS)


def _order_header(path: Path) -> None:
    """Write the facts in a safetensors file sorted: the library leaves them in an order of chance, and equal weights
    with equal facts would be different files."""
    content = path.read_bytes()
    start = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # tensors stay aligned
    path.write_bytes(len(text).to_bytes(LENGTH_BYTES, "little") + text + content[start:])


def _some(keys: list[str]) -> str:
    return "none" if not keys else f"{len(keys)} ({', '.join(keys[:LISTED])}{', ...' if len(keys) > LISTED else ''})"


def sizes_apart(own: State, state: State) -> str:
    """ "; its images are of 224 pixels, the model's of 96 ..", for each size that both have and that differs."""
    lines = []
    for what, unit, size in (
        ("patches", " pixels", _patch),
        ("images", " pixels", _side),
        ("windows", " patches", _window),
        ("width", "", _width),
        ("depth", "", _depth),
    ):
        theirs, ours = size(state), size(own)
        if theirs and ours and theirs != ours:
            lines.append(f"its {what} are {theirs}{unit}, the model's {ours}{unit}")
    return "; " + ", ".join(lines) + ": take the network of the file, by its name and args" if lines else ""


def _patch(state: State) -> int:
    weight = state.get(PATCHES)
    return weight.shape[-1] if weight is not None and weight.ndim == 4 else 0


def _side(state: State) -> int:
    """Pixels of the images that the position embedding is for, of as many tokens as a square of patches and a few."""
    places, patch = state.get(PLACES), _patch(state)
    if places is None or places.ndim != 3 or not patch:
        return 0
    grid = isqrt(places.shape[1])
    return grid * patch if places.shape[1] - grid**2 <= 2 * grid else 0


def _window(state: State) -> int:
    table = next((value for key, value in sorted(state.items()) if key.endswith(WINDOWS)), None)
    return 0 if table is None or table.ndim != 2 else (isqrt(table.shape[0]) + 1) // 2


def _width(state: State) -> int:
    weight = state.get(PATCHES)
    return weight.shape[0] if weight is not None and weight.ndim == 4 else 0


def _depth(state: State) -> int:
    """Blocks, over all stages."""
    return len(
        {key.partition("blocks.")[0] + key.partition("blocks.")[2].split(".")[0] for key in state if "blocks." in key}
    )
