"""Published checkpoint formats, each read to a plain state dict under timm's names.

A weights file is never executed: pickles are read with torch's weights-only loader, our own files are safetensors.
A checkpoint is dictionaries within dictionaries, the innermost of tensors under dotted names. A dictionary's name and
the first part of a tensor's mean the same: {"model": {"norm.weight": w}} is {"model.norm.weight": w}. What training
tools put around the network's own names is found and removed in whatever order it comes.
"""

import argparse
import logging
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sept.backbones.files import head_of, is_safetensors, is_torch
from sept.errors import ConfigError

log = logging.getLogger(__name__)
# Anywhere in a name: of a module that a tool wrapped, which may be any.
INNER = {
    *("module", "_module"),  # DDP, DataParallel, DeepSpeed, AveragedModel; opacus
    "_orig_mod",  # torch.compile
    *("_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"),  # FSDP, fairscale, activation checkpoints
    "_forward_module",  # Fabric, and DeepSpeed in it
}
# Of two branches: the one that follows as a moving average, and the one that is trained.
TEACHER = ("teacher", "teacher_backbone", "momentum_backbone", "state_dict_ema", "model_ema", "ema_model", "ema")
STUDENT = ("student", "student_backbone")
# Around the one there is, or around either.
PLAIN = ("model", "state_dict", "model_state_dict", "network", "net", "backbone", "encoder")
MOMENTUM = ("encoder_k", "momentum_encoder")  # beside the trained `encoder`, which is MoBY's backbone for either branch
WRAPPERS = {*TEACHER, *STUDENT, *PLAIN}
DEEPEST = 4  # dictionaries within each other: a hostile file could nest without end


class IgnoredObject:
    """Takes the place of a value that is no tensor and of no use here, whatever it is made from; keeps nothing."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# What published files hold beside tensors, each read as plain data or not at all: iBOT's options, MoBY's
# configuration, Lightning's hyperparameters, paths among options, and the NumPy numbers among a training loop's records
# (the best score in mmcv's `meta`, say).
INERT: list[Any] = [argparse.Namespace, (IgnoredObject, "numpy.dtype")]
INERT += [(OrderedDict, name) for name in ("yacs.config.CfgNode", "lightning.fabric.utilities.data.AttributeDict")]
INERT += [(OrderedDict, f"{name}.utilities.data.AttributeDict") for name in ("lightning_fabric", "pytorch_lightning")]
INERT += [(IgnoredObject, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
INERT += [
    (IgnoredObject, f"{module}.{kind}Path") for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")
]


def read_state(path: Path, branch: str = "teacher", own: Collection[str] = ()) -> dict[str, Tensor]:
    """The backbone's tensors of a published or own file, under timm's names, without the wrappers around them.

    Understands iBOT (full: `branch`; backbone only), MoBY (online encoder), official Swin (supervised, detection),
    timm and our files, in what training tools put around them (`sept.backbones.formats`); own: as there. Warns where
    the student is asked for and the file knows no branches. Raises ConfigError when the file is not one of these, or
    cannot be read without running code from it.
    """
    head = head_of(path)
    if not (is_safetensors(head) or is_torch(head)):
        raise ConfigError(f"{path} cannot be read as tensors: it is no file of torch or safetensors")
    content = _safetensors(path) if is_safetensors(head) else _pickle(path)
    try:
        state, told = unwrap(content, branch, own)
    except ConfigError as error:
        raise ConfigError(f"{path} {error}") from None
    if branch == "student" and not told:
        log.warning("retriever.branch=student: %s does not say whose weights it holds; they are used as they are", path)
    return _timm_swin(_classifier_norm(state))


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} is not a readable safetensors file: {error}") from None


def _pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(INERT), path.open("rb") as file:  # by a path torch would go by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch raise half a dozen kinds
        raise ConfigError(f"{path} cannot be read as tensors{_reason(error)}") from None


def _classifier_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a detection trunk's norms, one an output, the last stage's stands where a classifier has its `norm`.

    Those of the earlier stages (norm0 to norm2 of four) have no counterpart and are left out. With these weights
    timm's forward is the detection trunk's where each stage's side is a multiple of the window (224 pixels) and
    the model has always_partition=True: elsewhere the trunk pads before it shifts, timm after, and timm by default
    does not shift a stage that one window covers.
    """
    stages = {int(key.split(".")[1]) for key in state if re.match(r"layers\.\d+\.", key)}
    last = max(stages, default=0)
    if not any(key in state for key in _norm(last)):
        return state
    names = dict(zip(_norm(last), ("norm.weight", "norm.bias"), strict=True))
    others = {key for stage in range(last) for key in _norm(stage)}
    return {names.get(key, key): value for key, value in state.items() if key not in others}


def _norm(stage: int) -> tuple[str, str]:
    return f"norm{stage}.weight", f"norm{stage}.bias"


def _timm_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official Swin names to timm's: a stage's downsample moves to the stage it opens. timm's stage 0 has none.

    Keys that are not of a downsample as published keep their names, so that a message has them as in the file.
    """
    if not any(key.startswith("layers.0.downsample.") for key in state):
        return state
    known = re.compile(r"layers\.(\d+)\.(downsample\.(?:norm\.weight|norm\.bias|reduction\.weight))")
    matches = {key: known.fullmatch(key) for key in state}
    return {
        f"layers.{int(match[1]) + 1}.{match[2]}" if (match := matches[key]) else key: value
        for key, value in state.items()
    }


def _reason(error: Exception) -> str:
    """What a person can use of torch's long message: the class or function in the file, or else the first line."""
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return f" without running code from it: it refers to {foreign[1]}"
    told = str(error).partition(chr(10))[0][:200]
    if "weights_only" in told or "Unsupported" in told:  # torch's advice would be to run what the file says
        return ": it is cut, damaged or holds more than plain tensors"
    return f": it is cut, damaged or another kind of file ({type(error).__name__}: {told})"


def unwrap(content: Any, branch: str, own: Collection[str] = ()) -> tuple[dict[str, Tensor], bool]:
    """The tensors of a backbone under its own names without those beside it, and whether the file has branches at all.

    branch: teacher (where moving averages are kept beside the trained weights: those) or student (the trained ones).
    own: names of the network; where the state has one, nothing more is taken off. Raises ConfigError where there are
    no tensors, where only the other branch is there, and for two tensors of one name.
    """
    wanted, other = (TEACHER, STUDENT) if branch == "teacher" else (STUDENT, TEACHER)
    state, told = named(content), False
    while not state.keys() & {*own}:
        firsts = {name.partition(".")[0] for name in state if "." in name}
        told = told or bool(firsts & {*TEACHER, *STUDENT, *MOMENTUM})
        wrapper = next((name for name in (*wanted, *PLAIN) if name in firsts), None)
        if wrapper is None:
            there = ", ".join(name for name in other if name in firsts)
            if there:
                raise ConfigError(f"holds no state dict of tensors of the branch {branch}: it has {there}")
            break
        state = {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{wrapper}.")}
    if not state:
        raise ConfigError(f"holds no state dict of tensors (looked under {', '.join((*wanted, *PLAIN))})")
    return state, told


def named(content: Any, before: str = "", depth: int = 0) -> dict[str, Tensor]:
    """All tensors in `content` and in the wrappers' dictionaries within it, by their dotted names without INNER."""
    found: dict[str, Tensor] = {}
    for key, value in content.items() if isinstance(content, Mapping) else ():
        parts = [part for part in f"{before}{key}".split(".") if part not in INNER]
        name, last = ".".join(parts), str(key).rpartition(".")[2]
        more: dict[str, Tensor] = {}
        if isinstance(value, Tensor):
            more = {name: value}
        elif last in WRAPPERS | INNER and depth < DEEPEST:
            more = named(value, f"{name}." if name else "", depth + 1)
        if twice := found.keys() & more.keys():
            raise ConfigError(f"holds two tensors called {min(twice)}: it is not told which is meant")
        found |= more
    return found
