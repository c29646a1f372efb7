"""CPU seconds that checking what a stage reads takes, beside the seconds that the stage took, of a store that is there.

    python -m benchmarks.checked_reading [STORE]

Files are read from the cache. `hashed`: files compared with their manifests before a build, each once a process;
`summed`: all parts of the large ones, whose readers compare a check sum of each, once. A finished sweep that is started
again reads manifests, and hashes nothing but the selections and packed pixels that its pictures are of.
"""

import sys
import time
import zlib
from collections import defaultdict
from fnmatch import fnmatch

from sept.store import Artefact, Store, check
from sept.store.step import load_artefact

BY_PART = {  # files of each stage that are checked by part, as its step says
    "features": ("shard-*.npy",),
    "index": ("shard-*.int8", "shard-*.scales"),
    "subset": ("pixels.bin",),
}
PART = 2**20  # bytes that are read at a time


def summed(artefact: Artefact, patterns: tuple[str, ...]) -> None:
    """Reads the files that are checked by part, and sums them."""
    for name in artefact.manifest["files"]:
        if any(fnmatch(name, pattern) for pattern in patterns):
            with open(artefact.path / name, "rb") as file:
                while part := file.read(PART):
                    zlib.crc32(part)


def main(root: str = "store") -> None:
    store = Store(root, mode="read-only")
    made = {artefact.key: artefact for artefact in map(load_artefact, store.artefact_folders())}
    took, checked, sums = defaultdict[str, float](float), defaultdict[str, float](float), defaultdict[str, float](float)
    for artefact in made.values():
        took[artefact.stage] += artefact.manifest["wall_s"]
        for upstream in artefact.manifest["inputs"].values():
            read = made[upstream["key"]]
            started = time.process_time()
            check(read, BY_PART.get(read.stage, ()))
            checked[artefact.stage] += time.process_time() - started
            started = time.process_time()
            summed(read, BY_PART.get(read.stage, ()))
            sums[artefact.stage] += time.process_time() - started
    print(f"{'stage':<12}{'took s':>10}{'hashed s':>10}{'summed s':>10}{'share':>10}")
    for stage, seconds in took.items():
        share = (checked[stage] + sums[stage]) / max(seconds, 1e-9)
        print(f"{stage:<12}{seconds:>10.2f}{checked[stage]:>10.4f}{sums[stage]:>10.4f}{share:>10.3%}")
    whole = sum(checked.values()) + sum(sums.values())
    print(f"all: {whole:.3f} CPU s of {sum(took.values()):.1f} s, {whole / sum(took.values()):.3%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
