"""Products on a GPU, launched one ahead of the host, which meanwhile collects the hits of the previous one.

The GPU selects the scores that reach a cut, counts them in bins, and raises the cut, all without the host; the hits are
returned as compact arrays. Their number is read after the next product has been launched, so that the GPU never waits
for the host. On a CPU (a simulated GPU) the same is done synchronously. Shapes: Q queries, n rows of one block, s
capacity for hits, h hits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sept.retrieval import lanes
from sept.retrieval.candidates import BINS, HIGHEST, LOWEST, Candidates, FloatArray, Part, below
from sept.retrieval.features import IntArray
from sept.retrieval.lanes import Lane, Mark
from sept.retrieval.scan import Products

SPACE = 2**20  # capacity for hits of one product: 0.2 % of the scores of 4,096 queries with 131,072 rows


class Counted:
    """Scores on a GPU in bins, and the cut that follows: what `Bins` and `Candidates.cut` are on the host."""

    def __init__(self, candidates: Candidates, device: str | torch.device) -> None:
        self.candidates, queries = candidates, len(candidates.error)
        self.counts = torch.zeros((queries, BINS), dtype=torch.int32, device=device)
        self.apart = torch.empty(0, dtype=torch.int64, device=device)
        self.error = torch.from_numpy(candidates.error).to(device)
        self._edges = torch.full((queries,), -np.inf, dtype=torch.float64, device=device)
        self.raise_floor()
        candidates.counted = self

    def raise_floor(self) -> None:
        """Adopts the candidates' current floor."""
        self.floor = torch.from_numpy(self.candidates.floor).to(self.counts.device)
        self._move()

    def add(self, query: Tensor, score: Tensor, counts: Tensor) -> None:
        """Counts scores (s,) float32 of queries (s,) int64 where `counts` (s,) bool; raises the cut."""
        bins = ((score - LOWEST) * (BINS / (HIGHEST - LOWEST))).long().clip(0, BINS - 1)
        # Uncounted entries add 0 to scattered bins: atomic additions to one bin would serialise.
        if len(self.apart) != len(query):
            self.apart = torch.arange(len(query), device=query.device) % self.counts.numel()
        place = torch.where(counts, query * BINS + bins, self.apart)
        self.counts.view(-1).scatter_add_(0, place, counts.int())
        lower = self.counts.cumsum(1, dtype=torch.int32)  # scores in a bin and below
        enough = lower[:, -1:] - self.candidates.depth
        edges = LOWEST + ((lower <= enough).sum(1).double() - 0.01) * ((HIGHEST - LOWEST) / BINS)
        self._edges = torch.where(enough[:, 0] >= 0, edges, -torch.inf)
        self._move()

    def edges(self) -> FloatArray:
        """(Q,) after everything launched so far; synchronises."""
        return self._edges.cpu().numpy()

    def _move(self) -> None:
        """cut: (Q,) float64 on the device."""
        reached = below(self._edges, self.candidates.arithmetic, self.error)
        self.cut = torch.maximum(self.floor, reached).clip(LOWEST)


@dataclass(frozen=True)
class _Given:
    """A launched product. scores: (Q, n) on the device. picked: query int16, column int32, score float32 of hits (s,)
    there, up to the capacity. found: () int64, their number; known to the host after the mark."""

    part: Part
    counted: Counted
    first_row: int
    scores: Tensor
    picked: tuple[Tensor, Tensor, Tensor]
    found: Tensor
    mark: Mark


class Ahead:
    """Multiplies blocks with parts on a GPU, and passes the hits to their candidates."""

    def __init__(self, parts: Sequence[Part], skipped: IntArray, device: str | torch.device) -> None:
        """skipped: pool rows, ascending, whose scores do not count."""
        self.counted = [Counted(part.candidates, device) for part in parts]
        self.parts, self.products = parts, (Products(), Products())
        self.skipped, self.skipped_there = skipped, torch.from_numpy(skipped).to(device)
        self.space = max(SPACE, 2 * max(len(part.queries) for part in parts))
        self.working, self.fetching = Lane(device), Lane(device, own=True)
        pinned = lanes.has_lanes(device)
        self.found = [torch.empty((), dtype=torch.int64, pin_memory=pinned) for _ in self.products]
        kinds = (torch.int16, torch.int32, torch.float32)
        self.fetched = [torch.empty(self.space, dtype=kind, pin_memory=pinned) for kind in kinds]
        self.given: _Given | None = None
        self.turn = 0

    def __call__(self, first_row: int, block: Tensor) -> None:
        """Multiplies a block (n, D), whose first row is the pool's `first_row`, with all parts."""
        begin, end = np.searchsorted(self.skipped, (first_row, first_row + len(block))).tolist()
        hidden = self.skipped_there[begin:end] - first_row
        for part, counted in zip(self.parts, self.counted, strict=True):
            self.turn = 1 - self.turn
            scores = self.products[self.turn](part.queries, block, hidden)
            before, self.given = self.given, self._picked(part, counted, scores, first_row, self.turn)
            if before is not None:
                self._take(before, 1 - self.turn)

    def finish(self) -> None:
        """Collects the hits of the last product."""
        if self.given is not None:
            self._take(self.given, self.turn)
        self.given = None

    def _picked(self, part: Part, counted: Counted, scores: Tensor, first_row: int, turn: int) -> _Given:
        """Selects the scores (Q, n) at or above the cut, rounded like them: rounding is monotonic."""
        reached = scores >= counted.cut.float().to(scores.dtype)[:, None]
        place = torch.nonzero_static(reached.view(-1), size=self.space).squeeze(1)
        hit = place >= 0
        place = place.clip(0)
        query = place // scores.shape[1]
        score = scores.view(-1)[place].float()
        picked = (query.short(), (place - query * scores.shape[1]).int(), score)
        found = hit.sum()
        self.found[turn].copy_(found, non_blocking=True)
        mark = self.working.mark()
        counted.add(query, score, hit & (found < self.space))
        return _Given(part, counted, first_row, scores, picked, self.found[turn], mark)

    def _take(self, given: _Given, turn: int) -> None:
        """Passes the hits of a product to its candidates; in pieces if they exceed the capacity."""
        given.mark.wait()
        found = int(given.found)
        if found < self.space:
            self._fetch(given, found)
            return
        step = (self.space - 1) // len(given.scores)
        for start in range(0, given.scores.shape[1], step):
            scores = given.scores[:, start : start + step].contiguous()
            piece = self._picked(given.part, given.counted, scores, given.first_row + start, turn)
            piece.mark.wait()
            self._fetch(piece, int(piece.found))

    def _fetch(self, given: _Given, found: int) -> None:
        """Fetches the hits of a finished product while others are running."""
        fetched = [each[:found] for each in self.fetched]
        with self.fetching:
            for here, there in zip(fetched, given.picked, strict=True):
                here.copy_(there[:found], non_blocking=True)
        self.fetching.mark().wait()
        if take_in(given.part.candidates, given.first_row, *(each.numpy() for each in fetched)):
            given.counted.raise_floor()


def take_in(candidates: Candidates, first_row: int, query: np.ndarray, column: np.ndarray, score: np.ndarray) -> bool:
    """The host's work for fetched hits (h,) int16, int32, float32, which are copied: `Candidates.keep`."""
    row = np.add(column, first_row, dtype=np.int64)
    return candidates.keep(query.copy().view(np.uint16), row, score.copy())
