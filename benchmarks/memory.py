"""Counts the memory of full-size training steps in bf16 on one device, without a GPU.

    OMP_NUM_THREADS=1 python -m benchmarks.memory [moby ibot classify detect segment]

A row a configuration, or those of the kinds named: bytes alive in GiB, operators that the host launches, and whether
the peak keeps the limit. What is counted and what is not: `sept.gpu.memory`.
"""

import sys
from dataclasses import dataclass, field
from typing import Any

import torch

from sept.gpu.memory import heading, row, step_memory

CARD = 78.0  # GiB that a card of 80 GB has left for tensors


@dataclass(frozen=True)
class Configuration:
    """limit: GiB that the peak must not pass."""

    what: str
    kind: str
    batch: int
    limit: float
    options: dict[str, Any] = field(default_factory=dict)


TABLE = [
    *(Configuration("MoBy Swin-T, whole", "moby", batch, CARD) for batch in (512, 256, 128)),
    Configuration("iBOT ViT-S, 2 + 10 crops", "ibot", 64, 22),
    Configuration("classifier, 224 px", "classify", 64, CARD),
    Configuration("detector, 800 x 1333", "detect", 16, 76),
    Configuration("detector, 800 x 1333", "detect", 2, 11),
    Configuration("segmenter, 512 px", "segment", 16, CARD),
]


def main(kinds: list[str]) -> None:
    torch.set_num_threads(1)
    print(heading())
    for each in TABLE:
        if not kinds or each.kind in kinds:
            print(row(each.what, step_memory(each.kind, each.batch, **each.options), each.limit), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
