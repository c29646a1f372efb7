"""The pool's rows brought to the device block by block, in order, while earlier blocks are multiplied.

Reads a feature store or its int8 copy. Threads read the next blocks into staging buffers; a lane of its own copies
them to a GPU (`lanes`); there, or on a CPU straight from the staging buffer, they become numbers to multiply.
Shapes: D dim, n rows of one block, G scales of a row, Q queries of one product.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from sept.retrieval import lanes
from sept.retrieval.compact import Compact, scales_of
from sept.retrieval.features import Features
from sept.retrieval.lanes import Lane, Mark
from sept.retrieval.scan import BLOCK_ROWS, Arithmetic

DEVICE_ROWS = 131_072  # at most of a block on a GPU: 200 MB as float16 at 768 dimensions, or one shard
DEVICE_SHARE = 0.25  # of a GPU's free memory, for blocks and their scores
ARRIVING = 2  # blocks on a GPU as they were stored: one is copied while the other is converted
SCORED = 2  # blocks of scores on a GPU: of one the hits are taken in while the other is computed
READERS, READERS_ON_CPU = 4, 1  # threads; on a CPU products need the cores
WAITING, WAITING_ON_CPU = 2, 1  # staging buffers more than readers: being copied and ready, or being converted
CONVERTED_ROWS = 512  # from float16 to bfloat16 through float32, which stays in the cache: twice as fast as directly


def rows_of_block(features: Features, device: str | torch.device, arithmetic: Arithmetic, queries: int) -> int:
    """How many rows a block has at most for products of `queries` at a time.

    On a CPU what its caches hold; on a GPU as many as the shards and its free memory allow, up to DEVICE_ROWS.
    """
    if lanes.on_host(device):
        return BLOCK_ROWS
    rows = min(DEVICE_ROWS, max(shard.rows for shard in features.shards))
    if not lanes.has_lanes(device):
        return rows
    size = arithmetic.dtype.itemsize
    row = features.dim * (2 * ARRIVING + size) + queries * (SCORED * size + 1)  # 1: which scores reach the cut
    free, _ = torch.cuda.mem_get_info(device)
    return max(BLOCK_ROWS, min(rows, int(DEVICE_SHARE * free / row)))


class Blocks:
    """The pool's rows on the device in order, each block in the same buffer."""

    def __init__(
        self,
        features: Features,
        device: str | torch.device,
        arithmetic: Arithmetic,
        block_rows: int,
        readers: int | None = None,
    ) -> None:
        self.features, self.places = features, features.places(block_rows)
        on_cpu = lanes.on_host(device)
        self.readers = readers or (READERS_ON_CPU if on_cpu else READERS)
        rows = max(rows for _, rows in self.places)
        slots = min(self.readers + (WAITING_ON_CPU if on_cpu else WAITING), len(self.places))
        self.staged = [self._buffers(rows, "cpu", lanes.has_lanes(device)) for _ in range(slots)]
        self.arrived = [] if on_cpu else [self._buffers(rows, device) for _ in range(ARRIVING)]
        self.copying, self.multiplying = Lane(device, own=True), Lane(device)
        self.copied = [Mark()] * slots  # out of each staging buffer
        self.converted = [self.multiplying.mark()] * ARRIVING  # out of each buffer of arrivals
        self.loaded = torch.empty((rows, features.dim), dtype=arithmetic.dtype, device=device)
        self.single = torch.empty((CONVERTED_ROWS if on_cpu else min(BLOCK_ROWS, rows), features.dim), device=device)
        self.residual = features.residual if arithmetic.dtype == torch.bfloat16 else 0.0

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, (n, D)) of every block; valid until the next, for work in the caller's lane."""
        reading: deque[Future[tuple[Tensor, ...]]] = deque()
        ahead = enumerate(self.places)
        with ThreadPoolExecutor(self.readers) as readers:
            try:
                reading.extend(readers.submit(self._filled, *each) for each in islice(ahead, len(self.staged)))
                for number, (first, _) in enumerate(self.places):
                    block = self._load(number, *reading.popleft().result())
                    reading.extend(readers.submit(self._filled, *each) for each in islice(ahead, 1))
                    yield first, block
            finally:
                for each in reading:
                    each.cancel()
                self.copying.mark().wait()  # or the buffers would be freed and used again under a copy

    def _filled(self, number: int, place: tuple[int, int]) -> tuple[Tensor, ...]:
        """Reads a block into its staging buffer, once that has been copied out of."""
        slot = number % len(self.staged)
        self.copied[slot].wait()
        first, rows = place
        parts = tuple(each[:rows] for each in self.staged[slot])
        self._read(first, *parts)
        return parts

    def _load(self, number: int, *staged: Tensor) -> Tensor:
        """(n, D) in the arithmetic, in the buffer that every call reuses."""
        if not self.arrived:
            return self._converted(*staged)
        slot = number % ARRIVING
        parts = tuple(each[: len(staged[0])] for each in self.arrived[slot])
        with self.copying:
            self.copying.after(self.converted[slot])
            for part, source in zip(parts, staged, strict=True):
                part.copy_(source, non_blocking=True)
        self.copied[number % len(self.staged)] = arrived = self.copying.mark()
        self.multiplying.after(arrived)
        loaded = self._converted(*parts)
        self.converted[slot] = self.multiplying.mark()
        return loaded

    def _buffers(self, rows: int, device: str | torch.device, pinned: bool = False) -> tuple[Tensor, ...]:
        """For a block as it is stored."""
        return (torch.empty((rows, self.features.dim), dtype=torch.float16, device=device, pin_memory=pinned),)

    def _read(self, first: int, *parts: Tensor) -> None:
        """Fills the stored form of n rows from row `first`."""
        self.features.read(first, parts[0].numpy())

    def _converted(self, stored: Tensor, *scales: Tensor) -> Tensor:
        """(n, D) as multiplied, of float16, or of whole numbers and scales (n, G) of as many parts of a row."""
        loaded, rows = self.loaded[: len(stored)], len(self.single)
        for start in range(0, len(stored), rows):
            part = slice(start, start + rows)
            single = self.single[: len(stored[part])].copy_(stored[part])
            for scale in scales:
                single.view(len(single), scale.shape[1], -1).mul_(scale[part, :, None].to(single))
            loaded[part] = single
        return loaded


class CompactBlocks(Blocks):
    """The same from an int8 copy of the pool: half the bytes to read and to copy."""

    def __init__(
        self,
        compact: Compact,
        device: str | torch.device,
        arithmetic: Arithmetic,
        block_rows: int,
        readers: int | None = None,
    ) -> None:
        super().__init__(compact.features, device, arithmetic, block_rows, readers)
        self.compact, self.residual = compact, compact.residual

    def _buffers(self, rows: int, device: str | torch.device, pinned: bool = False) -> tuple[Tensor, ...]:
        widths = ((self.features.dim, torch.int8), (scales_of(self.features.dim), torch.float16))
        return tuple(torch.empty((rows, w), dtype=dtype, device=device, pin_memory=pinned) for w, dtype in widths)

    def _read(self, first: int, *parts: Tensor) -> None:
        whole, scales = (each.numpy() for each in parts)
        self.compact.read(first, whole, scales)
