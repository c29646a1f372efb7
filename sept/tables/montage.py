"""The gallery of a selection as one picture: some queries, each next to the pool images it selected (SEPT Fig. 5)."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from PIL import Image

from sept.config import Experiment
from sept.errors import SeptError
from sept.results import PRINTED, choices
from sept.retrieval.gallery import PAPER, Match, Row, gallery
from sept.tables.labels import label
from sept.tables.pictures import Strip, strips


def montages(lines: Iterable[Mapping[str, Any]]) -> dict[str, Image.Image]:
    """For each row with a selection the gallery of its first run, keyed by its choices; without what is not in the
    store."""
    found: dict[str, Image.Image] = {}
    for e in (line["experiments"][0] for line in lines if line["experiments"]):
        with suppress(SeptError):
            found |= montage(e)
    width, height = (max((each.size[side] for each in found.values()), default=0) for side in (0, 1))
    return {name: _framed(each, width, height) for name, each in found.items()}


def _framed(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Places pictures at the top left of a common size: W&B shows pictures of one panel in one size."""
    framed = Image.new("RGB", (width, height), PAPER)
    framed.paste(picture)
    return framed


def montage(e: Experiment) -> dict[str, Image.Image]:
    """The gallery of an experiment keyed by its choices: task, shot, budget, retriever, pool, seed; empty without
    one."""
    rows = [row for strip in strips(e) if (row := _row(strip))]
    if not rows:
        return {}
    return {f"{label(choices(e), PRINTED)}, seed {e.seed}": gallery(rows)}


def _row(strip: Strip) -> Row | None:
    """If there is no readable query, the first image takes its place."""
    matches = [Match("", image, similarity) for image, similarity in strip.chosen]
    if strip.query is not None:
        return Row(strip.label, strip.query, matches)
    return Row(strip.label, matches[0].image, matches[1:]) if matches else None
