"""The paper's printed numbers (`sept/paper/tables.csv`), looked up by the choices of our rows."""

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sept.results import PRINTED

PAPER = Path(__file__).resolve().parent.parent / "paper" / "tables.csv"
RETRIEVERS = {  # the paper's names for ours
    "ibot_vit_s16": "vits_in1k",
    "ibot_vit_b16": "vitb_in1k",
    "ibot_vit_l16": "vitl_in1k",
    "ibot_vit_b16_in22k": "vitb_in22k",
    "ibot_vit_l16_in22k": "vitl_in22k",
}
OURS = {name: ours for ours, name in RETRIEVERS.items()}
SHOTS = {"100%": "full"}  # Table 6's name and ours


def printed(named: Mapping[str, Any]) -> float | None:
    """The paper's number for a comparison with these choices (`results.PRINTED`), None if it has none."""
    return _index().get(tuple(str(named[name]) for name in PRINTED))


@cache
def _index() -> dict[tuple[str, ...], float]:
    """The file keyed by our choices, as text. Numbers repeated in several of the paper's tables must agree."""
    found: dict[tuple[str, ...], float] = {}
    with PAPER.open(newline="") as file:
        for line in csv.DictReader(file):
            if line["init"] == "retriever":  # Table 4 also has the retrievers' own accuracy
                continue
            value = float(line["value"])
            assert found.setdefault(_choices(line), value) == value, f"{PAPER}: two numbers for {line}"
    return found


def _choices(line: Mapping[str, str]) -> tuple[str, ...]:
    """Our choices for a line of the file, without the columns that have no effect on its init."""
    trained, found = line["init"] in ("random", "sept"), line["init"] == "sept"
    choices = {
        "task": line["task"],
        "shot": SHOTS.get(line["shot"], line["shot"]),
        "init": line["init"],
        "budget": line["budget"] if trained else None,
        "pool": line["pool"] if trained else None,
        "query": line["query"] if found else None,
        "retriever": OURS[line["retriever"]] if found else None,
    }
    return tuple(str(choices[name]) for name in PRINTED)
