"""What publishing an artefact costs beside as many others of its stage: milliseconds of wall and CPU time, medians.

Most of the wall time goes into flushing files to the disk.

python -m benchmarks.publishing [OTHERS ..]
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sept.store import Artefact, Step, Store

OTHERS = (100, 1_000, 5_000)
REPEATS = 101


def build(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
    (folder / "data").write_bytes(b"x")
    return {}


def step(number: int) -> Step:
    return Step("finetune", 1, {"number": number}, {}, build, slug=f"patterns_a-sept-seed{number}")


def main() -> None:
    others = sorted(int(text) for text in sys.argv[1:]) or OTHERS
    with tempfile.TemporaryDirectory() as folder:
        store, made = Store(Path(folder) / "store"), 0
        for wanted in others:
            for number in range(made, wanted):
                (store.root / "finetune" / step(number).folder_name).mkdir(parents=True)
            wall, cpu = [], []
            for number in range(wanted, wanted + REPEATS):
                since, worked = time.perf_counter(), time.process_time()
                store.make(step(number))
                wall.append(1000 * (time.perf_counter() - since))
                cpu.append(1000 * (time.process_time() - worked))
            made = wanted + REPEATS
            medians = f"wall {statistics.median(wall):.1f}, CPU {statistics.median(cpu):.1f}"
            print(f"beside {wanted:,} others: {medians}", flush=True)


if __name__ == "__main__":
    main()
