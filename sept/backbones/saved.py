"""What goes with the weights of a saved backbone: file names, the facts in their header, the model card. No torch."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sept.backbones import IMAGENET, OWN, Statistics
from sept.backbones.files import head_of
from sept.errors import ConfigError

BACKBONE = "backbone"  # folder of every artefact that holds weights
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FORMAT = {"format": "pt"}  # of a header: what loaders of safetensors ask for
TASK = "image-feature-extraction"
TAGS = (TASK, "timm", "sept")
IMPLIED = ("num_classes", "pretrained")  # arguments that the lines of the card give themselves


def header_of(facts: dict[str, Any]) -> dict[str, str]:
    """The header of a weights file: text as it is, unless it would be read as a value of another kind, else JSON."""
    assert not facts.keys() & FORMAT.keys()
    plain = {key: value for key, value in facts.items() if isinstance(value, str) and _decoded(value) == value}
    return {key: plain.get(key, json.dumps(value)) for key, value in facts.items()} | FORMAT


def facts_of(path: Path) -> dict[str, Any]:
    """The facts in the header of a weights file that `save_backbone` wrote. ConfigError where they cannot be read."""
    head_of(path)
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} is not a readable safetensors file: {error}") from None
    return {key: _decoded(text) for key, text in header.items() if key not in FORMAT}


def card(name: str, args: dict[str, Any], facts: dict[str, Any], statistics: Statistics) -> str:
    """Markdown with the header that the Hugging Face Hub reads: how to load, what from, and the figures.

    name and args rebuild the model in timm. The header names no licence: who publishes the weights chooses it.
    """
    words = {key: value for key, value in facts.items() if isinstance(value, str)}
    figures = {key: value for key, value in facts.items() if isinstance(value, int | float)}
    settings = {key: value for key, value in facts.items() if key not in words | figures}
    lines = ["---", "library_name: timm", f"pipeline_tag: {TASK}", "tags:", *(f"- {tag}" for tag in TAGS), "---", ""]
    lines += [f"# {name}, trained by sept", ""]
    lines += [f"A backbone without a head, for images normalised by {_statistics(statistics)}.", ""]
    lines += _loading(name, args)
    lines += _section("Trained from", [f"- {key}: {value}" for key, value in words.items()])
    lines += _section("Figures", [f"- {key}: {_number(value)}" for key, value in figures.items()])
    lines += _section("Settings", ["```json", json.dumps(settings, indent=2), "```"] if settings else [])
    return "\n".join(lines)


def _statistics(statistics: Statistics) -> str:
    if statistics == IMAGENET:
        return "the mean and standard deviation of ImageNet"
    return f"the mean {statistics[0]} and the standard deviation {statistics[1]}"


def _loading(name: str, args: dict[str, Any]) -> list[str]:
    registered = [f"import {OWN[name]}  # registers it with timm"] if name in OWN else []
    given = "".join(f", {key}={value!r}" for key, value in args.items() if key not in IMPLIED)
    return [
        "`FOLDER` is where this file lies; `hf-hub:OWNER/NAME` in place of `local-dir:FOLDER` takes it from the Hub.",
        "",
        "```python",
        *registered,
        "import timm",
        "",
        'model = timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=10)  # with a fresh head',
        f'model = timm.create_model("{name}", checkpoint_path="FOLDER/{WEIGHTS}", num_classes=0{given})',
        "```",
        "",
    ]


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _number(value: float) -> str:
    """Counts in full, measures to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
