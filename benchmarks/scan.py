"""Times the scan of a pool's sources: 200,000 tiny images in 20 tars, and 50,000 loose files in 50 folders.

    python benchmarks/scan.py [--threads 2]

A row a source: images, seconds and images/s of the scan by one thread and by `--threads`, the seconds left after a kill
at half of the images, the most memory that the scan by one thread took, and that for a tenth of the source. Everything
is made in a temporary folder, which is removed.
"""

import argparse
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from sept.data.sources.scan import scan_in_parallel

TARS, IN_TAR = 20, 10_000
FOLDERS, IN_FOLDER = 50, 1_000
SIDE = 8
FRACTION = 10


def jpegs(count: int) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of small JPEG images of one colour each."""
    for number in range(count):
        stream = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE), (number & 255, number >> 8 & 255, 99)).save(stream, "JPEG")
        yield f"{number:08d}.jpg", stream.getvalue()


def make_tars(folder: Path, count: int) -> None:
    folder.mkdir()
    images = list(jpegs(IN_TAR))
    for number in range(count):
        with tarfile.open(folder / f"s-{number:03d}.tar", "w") as tar:
            for name, data in images:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def make_folders(folder: Path, count: int) -> None:
    for number in range(count):
        below = folder / f"class_{number:03d}"
        below.mkdir(parents=True)
        for name, data in jpegs(IN_FOLDER):
            (below / name).write_bytes(data)


def scan_here(kind: str, path: str, folder: str, threads: int, stop: int) -> None:
    """Scans in this process, prints what it took, and is killed after `stop` images when that is not 0."""
    start, images = time.perf_counter(), 0
    for _ in scan_in_parallel(kind, path, "s", threads, Path(folder)):
        images += 1
        if images == stop:
            os.kill(os.getpid(), signal.SIGKILL)
    wall_s = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"images": images, "wall_s": wall_s, "peak_mb": peak_mb}))


def measured(kind: str, path: Path, threads: int, stop: int = 0) -> dict[str, float]:
    """The scan in a process of its own; with `stop`, what it takes when it goes on after a kill."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [kind, str(path), folder, str(threads)]
        if stop:
            subprocess.run([sys.executable, __file__, "--scan", *arguments, str(stop)], check=False)
        command = [sys.executable, __file__, "--scan", *arguments, "0"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report(name: str, kind: str, whole: Path, part: Path, threads: int) -> None:
    alone, small, together = measured(kind, whole, 1), measured(kind, part, 1), measured(kind, whole, threads)
    resumed = measured(kind, whole, 1, stop=int(alone["images"]) // 2)
    assert alone["images"] == together["images"] == resumed["images"] == FRACTION * small["images"]
    rates = [f"{run['wall_s']:6.2f} s {run['images'] / run['wall_s']:8,.0f}/s" for run in (alone, together)]
    peaks = f"{alone['peak_mb']:5.0f} MB {small['peak_mb']:5.0f} MB"
    print(f"{name:<14}{alone['images']:>8,}  {rates[0]}  {rates[1]}  {resumed['wall_s']:6.2f} s  {peaks}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_tars(root / "tars", TARS)
        make_tars(root / "few", TARS // FRACTION)
        make_folders(root / "loose", FOLDERS)
        make_folders(root / "fewer", FOLDERS // FRACTION)
        both = f"{options.threads} threads"
        print(
            f"{'source':<14}{'images':>8}  {'1 thread':<20}  {both:<20}  {'resumed':>8}  {'peak':>8} {'of a tenth':>11}"
        )
        report(f"{TARS} tars", "webdataset", root / "tars", root / "few", options.threads)
        report("loose files", "folder", root / "loose", root / "fewer", options.threads)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--scan"]:
        kind, path, folder, threads, stop = sys.argv[2:]
        scan_here(kind, path, folder, int(threads), int(stop))
    else:
        main()
