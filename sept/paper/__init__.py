"""What the papers and the official releases of data state: printed results (CSV) and sizes."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SIZES = Path(__file__).resolve().parent / "sizes.csv"


@dataclass(frozen=True)
class Size:
    """Training images, classes and boxes an image of a data set; 0 where nothing is stated."""

    images: int = 0
    classes: int = 0
    boxes_per_image: float = 0.0


@cache
def published(name: str) -> Size:
    """The size that is stated of a data set, for plans on machines that do not have it."""
    with SIZES.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["name"] == name:
                return Size(int(row["images"]), int(row["classes"] or 0), float(row["boxes_per_image"] or 0))
    return Size()
