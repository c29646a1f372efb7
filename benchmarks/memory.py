"""Counts the memory of full-size training steps in bf16 on one device, without a GPU.

    OMP_NUM_THREADS=1 python -m benchmarks.memory [moby ibot classify detect segment]

A row a configuration, or those of the kinds named: bytes alive in GiB, operators that the host launches, and whether
the peak keeps the limit. What is counted and what is not: `sept.gpu.memory`.
"""

import sys
from dataclasses import dataclass

import torch

from sept.gpu.memory import DETECTED, GIB, chunk_within, heading, row, step_memory
from sept.training.learner import Chunk

AUTO = "auto"
CARD = 78.0  # GiB that a card of 80 GB has left for tensors


@dataclass(frozen=True)
class Configuration:
    """limit: GiB that the peak must not pass; chunk: how the encoder takes the batch, AUTO: what is chosen for it."""

    what: str
    kind: str
    batch: int
    limit: float
    chunk: Chunk | str | None = None
    sides: tuple[int, int] = DETECTED  # pixels, of the detector's images

    def row(self) -> str:
        chunk = chunk_within(int(self.limit * GIB), self.kind, self.batch) if self.chunk == AUTO else self.chunk
        what = f"{self.what}, {chunk.size} at a time, {chunk.kept} kept" if isinstance(chunk, Chunk) else self.what
        return row(what, step_memory(self.kind, self.batch, chunk=chunk, sides=self.sides), self.limit)


TABLE = [
    *(Configuration("MoBy Swin-T, whole", "moby", batch, CARD) for batch in (512, 256, 128)),
    Configuration("MoBy Swin-T", "moby", 512, 60, AUTO),
    Configuration("MoBy Swin-T", "moby", 512, 21, AUTO),
    Configuration("MoBy Swin-T", "moby", 512, 21, Chunk(128)),
    Configuration("iBOT ViT-S, 2 + 10 crops", "ibot", 64, 22),
    Configuration("classifier, 224 px", "classify", 64, CARD),
    Configuration("detector, 800 x 1333", "detect", 16, 76),
    Configuration("detector, 800 x 1333", "detect", 2, 11),
    Configuration("detector, 1333 x 1333: upright and wide images", "detect", 16, 76, sides=(DETECTED[1], DETECTED[1])),
    Configuration("segmenter, 512 px", "segment", 16, CARD),
]


def main(kinds: list[str]) -> None:
    torch.set_num_threads(1)
    print(heading())
    for each in TABLE:
        if not kinds or each.kind in kinds:
            print(each.row(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
