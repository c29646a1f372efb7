"""The papers' printed numbers (`sept/paper/`), looked up by the choices of our rows."""

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sept.paper import published
from sept.results import PRINTED

PAPER = Path(__file__).resolve().parent.parent / "paper" / "tables.csv"
FLOPS = PAPER.with_name("flops.csv")  # Koppula et al. 2022
RETRIEVERS = {  # the paper's names for ours
    "ibot_vit_s16": "vits_in1k",
    "ibot_vit_b16": "vitb_in1k",
    "ibot_vit_l16": "vitl_in1k",
    "ibot_vit_b16_in22k": "vitb_in22k",
    "ibot_vit_l16_in22k": "vitl_in22k",
}
OURS = {name: ours for ours, name in RETRIEVERS.items()}
SEPT = ("swin_tiny", "moby_swin_t", "300 epochs")  # its network, method and length
KOPPULA = "vit_base"
SHOTS = {"100%": "full"}  # Table 6's name and ours


def printed(named: Mapping[str, Any], network: str | None = None) -> float | None:
    """The paper's number for a comparison with these choices of our rows, None if it has none. network: the backbone's
    architecture; None: the paper's."""
    if network is None or network.startswith(SEPT[0]):
        trained = named["method"] is not None
        if not trained or (named["method"] == SEPT[1] and named["compute"] == SEPT[2]):
            return _index().get(tuple(str(named[name]) for name in PRINTED))
    return _of_whole_data_sets(named, network)


def _of_whole_data_sets(named: Mapping[str, Any], network: str | None) -> float | None:
    """Koppula et al.'s number for a method that is pre-trained on all images of a data set, as many for each."""
    if named["method"] is None or (network is not None and not network.startswith(KOPPULA)):
        return None
    if (
        "FLOPs" in str(named["compute"])
        or named["init"] != "random"
        or named["budget"] != published(named["pool"]).images
    ):
        return None
    return _by_method().get((named["method"].partition("_")[0], named["pool"], named["task"]))


@cache
def _by_method() -> dict[tuple[str, str, str], float]:
    with FLOPS.open(newline="") as file:
        return {(row["method"], row["pool"], row["task"]): float(row["value"]) for row in csv.DictReader(file)}


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
