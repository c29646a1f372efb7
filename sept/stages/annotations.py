"""Labels or captions of the pool's images, for methods that learn from them: read of the chosen images, where these are
packed. What is listed, embedded and selected does not depend on them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sept.data.annotations import photo_of, write_captions, write_labels
from sept.data.locate import Location
from sept.data.pool import ConcatPool
from sept.data.settings import Pool as PoolSettings
from sept.data.sources import annotations as sources
from sept.data.sources.annotations import CAPTIONS, FROM_LABELS, LABELS, Names
from sept.errors import DataError
from sept.stages.pool import locations, root_of
from sept.store.step import Artefact

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotation:
    """What a subset's images are packed with. reads: LABELS or CAPTIONS. of: what is read of the pool, LABELS where
    captions are made of them. places: where each source has that, in the order of the pool's rows; None: nowhere."""

    reads: str
    of: str
    places: tuple[str | None, ...]

    @property
    def told(self) -> str:
        """In words, for rows and plans."""
        return self.reads if self.reads == self.of else f"{self.reads} from {self.of}"


def annotation_of(p: PoolSettings, reads: str) -> Annotation:
    """What the pool gives to a method that reads LABELS or CAPTIONS."""
    of = LABELS if reads == CAPTIONS and p.captions == FROM_LABELS else reads
    setting = p.labels if of == LABELS else p.captions
    return Annotation(reads, of, tuple(sources.place(each.kind, of, setting) for each in locations(p)))


def lacks(p: PoolSettings, wanted: Annotation) -> str | None:
    """Why no source of the pool has it, as far as that is seen without reading all; None where one seems to."""
    told = []
    for location, place in zip(locations(p), wanted.places, strict=True):
        why = sources.lacks(location.kind, str(location.path), place)
        if why is None:
            return None
        told.append(why)
    return "; ".join(dict.fromkeys(told))


class Annotated:
    """The annotations of chosen images. Of those that have none, up to a share of `most` are left out, and more are
    refused."""

    def __init__(
        self,
        wanted: Annotation,
        pool: ConcatPool,
        inputs: Mapping[str, Artefact],
        where: Sequence[Location],
        most: float,
        threads: int,
    ) -> None:
        self.wanted, self.pool, self.most, self.threads = wanted, pool, most, threads
        self._roots = [(each.kind, root_of(inputs[f"pool{i}"], each)) for i, each in enumerate(where)]
        self._found: dict[int, Names] = {}
        self._taken: list[Names] = []

    def look_up(self, rows: Sequence[int]) -> None:
        """Reads those of the rows together. Raises DataError where too many have none."""
        parts: dict[int, list[tuple[int, Any]]] = {}
        for row in rows:
            part, entry = self.pool.entry(row)
            parts.setdefault(part, []).append((row, entry))
        for part, images in parts.items():
            place, (kind, root) = self.wanted.places[part], self._roots[part]
            if place is None:
                self._found |= {row: () for row, _ in images}
                continue
            names = sources.read(kind, root, place, [entry for _, entry in images], self.threads)
            self._found |= {row: each for (row, _), each in zip(images, names, strict=True)}
        self._require_most()

    def take(self, row: int) -> bool:
        """Whether the image has one, which is then packed for the next image."""
        if row not in self._found:  # it replaces one that cannot be read
            self.look_up([row])
        names = self._found[row]
        if self.wanted.reads == LABELS and len(names) > 1:
            raise DataError(
                f"{self.pool.key(row)} has {len(names)} labels, {names[0]!r} and {names[1]!r} among them: a classifier "
                f"takes one; pool.captions={FROM_LABELS} makes captions of all"
            )
        if names:
            self._taken.append(names)
        return bool(names)

    def write(self, folder: Path) -> dict[str, Any]:
        """Those of the images taken, and what is recorded of them."""
        facts: dict[str, Any] = {"annotation": self.wanted.told, "unannotated": len(self._missing())}
        if facts["unannotated"]:
            log.warning("%s: left out", self._told())
        if self.wanted.reads == LABELS:
            source = f"the labels of {len(self._taken):,} chosen images"
            return facts | {"classes": write_labels(folder, [names[0] for names in self._taken], source)}
        made = self.wanted.of == LABELS
        write_captions(folder, [photo_of(names) if made else names[0] for names in self._taken])
        return facts

    def _missing(self) -> list[int]:
        return [row for row, names in self._found.items() if not names]

    def _told(self) -> str:
        missing = self._missing()
        first = self.pool.key(missing[0])
        return f"{len(missing):,} of {len(self._found):,} chosen images have no {self.wanted.of}, the first {first!r}"

    def _require_most(self) -> None:
        if len(self._missing()) > self.most * len(self._found):
            raise DataError(
                f"{self._told()}: more than pool.max_unannotated={self.most:g}, up to which they are left out; set "
                f"pool.{self.wanted.of} to where they are, or raise it"
            )
