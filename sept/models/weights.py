"""Backbone weights in and out: published checkpoints checked key by key, ours in a form that timm loads.

A weights file is never executed: pickles are read with torch's weights-only loader, our own files are safetensors.
"""

import argparse
import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sept.errors import ConfigError

IGNORED = ("masked_embed", "head.", "fc_norm.")  # of a published file: heads and iBOT's mask token
DERIVED = ("attn_mask", "relative_position_index")  # buffers that a model computes itself

# What published files hold beside tensors, each read as plain data: iBOT's options and MoBY's configuration.
INERT: list[Any] = [argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]


def read_state(path: Path, branch: str = "teacher") -> dict[str, Tensor]:
    """The backbone's tensors of a published or own file, under plain keys, without the wrappers around them.

    Understands iBOT (full: `branch`; backbone only), MoBY (online encoder), official Swin, timm and our files.
    Raises ConfigError when the file is not one of these, or cannot be read without running code from it.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path} is not a readable safetensors file: {error}") from None
    try:
        with torch.serialization.safe_globals(INERT):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch raise half a dozen kinds
        raise ConfigError(f"{path} cannot be read as tensors without running code from it: {_reason(error)}") from None
    for wrapper in (branch, "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(f"{path} holds no state dict of tensors (looked under {branch}, model and state_dict)")
    return _unwrap({str(key): value for key, value in content.items()})


def load_backbone(model: nn.Module, path: Path, branch: str = "teacher") -> None:
    """Fill `model` (built with num_classes=0) from the file, every key accounted for.

    Raises ConfigError listing what is missing, unexpected or of another shape: a partly random encoder is never
    accepted.
    """
    state = read_state(path, branch)
    if any(key.startswith("layers.0.downsample.reduction") for key in state):
        state = _timm_swin(state)
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(DERIVED)}
    state = {key: value for key, value in state.items() if not key.endswith(DERIVED)}
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(key for key in state.keys() - own.keys() if not key.startswith(IGNORED))
    shapes = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if missing or unexpected or shapes:
        raise ConfigError(
            f"{path} does not fit {type(model).__name__}: "
            f"missing {_some(missing)}; unexpected {_some(unexpected)}; other shape {_some(shapes)}"
        )
    model.load_state_dict({key: state[key] for key in own}, strict=False)


def save_backbone(model: nn.Module, folder: Path, name: str, args: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write model.safetensors, config.json and a card: `timm.create_model("local-dir:FOLDER", ...)` loads the folder.

    name and args are the timm name and constructor arguments; facts go to the card and the file's metadata.
    """
    from timm.models import save_for_hf

    model.pretrained_cfg = {**model.pretrained_cfg, "num_classes": 0}  # type: ignore
    save_for_hf(model, str(folder), model_args=args, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    config["architecture"] = name
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "README.md").write_text(_card(name, args, facts))


def _card(name: str, args: dict[str, Any], facts: dict[str, Any]) -> str:
    lines = [f"# {name}, pre-trained by sept", "", "```python", "import timm", ""]
    lines += ['model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True, num_classes=10)', "```", ""]
    lines += [f"- constructor arguments: `{json.dumps(args)}`"]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    return "\n".join(lines) + "\n"


def _unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Strip `module.`, then `backbone.` (iBOT) or `encoder.` (MoBY's online branch), dropping all beside it."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    for prefix in ("backbone.", "encoder."):
        if any(key.startswith(prefix) for key in state):
            return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state


def _timm_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official Swin names to timm's: a stage's downsample moves to the stage it opens."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if len(parts) > 2 and parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) + 1)
        renamed[".".join(parts)] = value
    return renamed


def _some(keys: list[str]) -> str:
    return "none" if not keys else f"{len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"


def _reason(error: Exception) -> str:
    """What a person can use of torch's long message: the class or function in the file, or else the first line."""
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return f"it refers to {foreign[1]}"
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
