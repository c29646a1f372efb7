"""Seeded mutations of a command line: nonsense of every kind in one setting of a small experiment."""

import random
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from conftest import TINY

from sept.compose import CONF
from sept.ranges import RULE, format_value

FEW = [
    *TINY,
    "pool.images=216",
    "task.train_per_class=2",
    "task.test_per_class=1",
    "shot.per_class=2",
    "store.root=STORE",
]
FEW += ["retriever.epochs=1", "compute.epochs=1", "pretrain.warmup_epochs=0", "finetune.epochs=1"]
SCENES = [text for text in FEW if not text.startswith(("finetune.", "shot."))]
SCENES += ["init=random", "finetune.epochs=1", "finetune.batch_size=4", "task.images=6", "task.train_per_class=1"]
WORLDS = {  # by what the stages do
    "sept": FEW,
    "trained": [*FEW, "retriever.train.batch_size=24"],
    "random": [*FEW, "init=random", "selector.source=curated", "selector.share=0.5"],
    "index": [*FEW, "index=ivf_sq8", "retriever=ibot_micro"],
    "cluster": [*FEW, "init=cluster", "retriever=ibot_micro", "leak=remove"],
    "simcore": [*FEW, "init=simcore", "selector.clusters=3", "budget.images=null", "include_task=true"],
    "own": [*FEW, "init=target_only"],
    "detect": [*SCENES, "task=patterns_boxes", "finetune=detect_micro"],
    "instance": [*SCENES, "task=patterns_boxes", "finetune=detect_micro", "init=sept", "query=instance"],
    "segment": [*SCENES, "task=patterns_masks", "finetune=segment_micro"],
}
WRONG = ["abc", "''", "null", "[]", "{}", "true", "nan", "inf", "-inf", "1e999", "0x10"]
NUMBERS = [-1, 0, 1, 2, 3, 0.5, 1.5, -0.1, 1e-9, 1e9, 10**12, 2**63]
MODEL_ARGS = [
    "img_size",
    "patch_size",
    "window_size",
    "embed_dim",
    "depth",
    "depths",
    "num_heads",
    "mlp_ratio",
    "in_chans",
]
MODEL_ARGS += ["num_classes", "global_pool", "drop_path_rate", "class_token", "features_only", "nonsense"]
NAMES = [
    "resnet18",
    "vit_tiny_patch16_224",
    "vgg11",
    "convnext_atto",
    "swin_tiny_patch4_window7_22",
    "",
    "deit3_small_patch16_224",
]
NAMES += ["swinv2_tiny_window8_256", "deit_tiny_distilled_patch16_224", "efficientnet_b0"]


def mutations(count: int, seed: int, experiments: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """(world, what is written after its overrides), `count` of them. experiments: each world's, as it is composed."""
    rng = random.Random(seed)
    for _ in range(count):
        world = rng.choice([*WORLDS])
        known = dict(_settings(experiments[world]))
        known.pop("selector.min_distance", None)  # how many images are that far apart is known after the embedding
        changed = [_mutated(rng, known) for _ in range(rng.choice([1, 1, 1, 2]))]
        yield world, changed


def _mutated(rng: random.Random, known: dict[str, Any]) -> str:
    kind = rng.random()
    if kind < 0.04:  # a group's option, whole or misspelt
        group = rng.choice([folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "settings"])
        option = rng.choice(sorted(path.stem for path in (CONF / group).glob("*.yaml")))
        return f"{group}={_near(rng, option)}"
    if kind < 0.08:
        name = rng.choice([*known])
        return f"{_near(rng, name)}={known[name]}"
    if kind < 0.14:
        group = rng.choice(["retriever.backbone", "backbone"])
        value = rng.choice([-1, 0, 2, 3, 8, 1.5, "abc", "null", "[1,1]", "[]", "true", 7])
        return f"++{group}.args.{rng.choice(MODEL_ARGS)}={value}"
    if kind < 0.16:
        return f"{rng.choice(['retriever.backbone', 'backbone'])}.name={rng.choice(NAMES)}"
    name = rng.choice([*known])
    return f"{name}={_value(rng, known[name])}"


def _settings(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting that is declared by itself, with its value."""
    for item in fields(group):
        value = getattr(group, item.name)
        if is_dataclass(value):
            yield from _settings(value, f"{prefix}{item.name}.")
        elif RULE in item.metadata or isinstance(value, bool):
            yield prefix + item.name, value


def _value(rng: random.Random, value: Any) -> str:
    if rng.random() < 0.2:
        return rng.choice(WRONG)
    match value:
        case bool():
            return rng.choice(["true", "false", "1", "maybe"])
        case list() if value and isinstance(value[0], str):
            return format_value([_near(rng, each) for each in value])
        case list():
            return format_value(_list(rng, value))
        case int() | float():
            return str(_number(rng, value))
        case str():
            return rng.choice([_near(rng, value), _near(rng, value), value.upper(), "1"])
    return rng.choice([str(rng.choice(NUMBERS)), "[finetun]", "nope", "[]", "x/y"])


def _number(rng: random.Random, value: float) -> float:
    around = [-value, 2 * value, value + 1, value / 2, value + 0.3]
    return rng.choice([*NUMBERS, *around, *around])


def _list(rng: random.Random, value: list) -> list:
    if not value:
        return rng.choice([["finetun"], ["finetune"], [1], ["pool", "nope"]])
    changed = [*value]
    place = rng.randrange(len(changed))
    match rng.randrange(5):
        case 0:
            changed.reverse()
        case 1:
            changed.pop()
        case 2:
            changed.append(changed[-1])
        case 3:
            changed = [changed[place]]
        case 4:
            changed[place] = _number(rng, changed[place])
    return changed


def _near(rng: random.Random, name: str) -> str:
    """The name with a letter left out, doubled or exchanged."""
    if not name:
        return "x"
    place = rng.randrange(len(name))
    return rng.choice([name[:place] + name[place + 1 :], name[:place] + name[place] + name[place:], name[:-1] + "q"])
