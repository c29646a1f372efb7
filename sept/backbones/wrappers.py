"""What training tools put around a network's tensors in a checkpoint, found and taken off in whatever order it comes.

A checkpoint is dictionaries within dictionaries, the innermost of tensors under dotted names. A dictionary's name and
the first part of a tensor's mean the same here: {"model": {"norm.weight": w}} is {"model.norm.weight": w}.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from sept.errors import ConfigError

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
