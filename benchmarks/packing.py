"""Packing a selection and looking for copies in it: as it was at commit 08eb491, against as it is, side by side.

    OPENBLAS_NUM_THREADS=1 python benchmarks/packing.py [--images 50000] [--tests 6149] [--side 256] [--threads 2]

The variable is what the commands set for themselves. Draws `--distinct` JPEGs (500 unless told) of 500 x 375 px and
writes them again and again into tars, each time with another comment, so
that no two files are the same. The way that was decodes a chosen image at full size for its thumbnail, in one thread,
decodes it again to pack it, and decodes the test images for every selection; it is written out below. The way that is
runs the stages themselves: `subset` and `copies`, and `fingerprints`' work as it comes once a task. What both packed
and found must be equal. Both look for copies of test images and of each other by the same function, whose time is told
apart: it grows with the square of the images.
"""

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from sept.data.images import Pixels
from sept.data.locate import Location
from sept.data.pool import ConcatPool, Pool, write_manifest
from sept.data.sources.tars import index_tar
from sept.data.subset import write_subset
from sept.retrieval.copies import TestImages, first_alike
from sept.retrieval.fingerprints import LUMA, THUMBNAIL, Thumbnails, area_means, thumbnail
from sept.retrieval.selections import SELECTION, save_selection
from sept.runtime.threads import in_order
from sept.stages import subset

WIDTH, HEIGHT, PER_TAR = 500, 375, 1000


def drawn(number: int) -> bytes:
    """A JPEG of smooth colours and noise, of some 60 KB."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
    pixels = (smooth + rng.normal(0, 10, smooth.shape)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_pool(folder: Path, images: int, distinct: int) -> ConcatPool:
    files = [drawn(number) for number in range(distinct)]
    for first in range(0, images, PER_TAR):
        with tarfile.open(folder / f"part-{first // PER_TAR:04d}.tar", "w") as tar:
            for number in range(first, min(first + PER_TAR, images)):
                data = files[number % distinct] + b"%d" % number  # behind the end of the image: another file
                member = tarfile.TarInfo(f"{number:06d}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    write_manifest(folder, (entry for path in sorted(folder.glob("*.tar")) for entry in index_tar(path, "part")))
    return ConcatPool({"pool": Pool.open(folder, {"part": folder})})


def thumbnails_as_they_were(images: Iterable[Pixels]) -> Thumbnails:
    grey, colour = [], []
    for pixels in images:
        height, width = pixels.shape[:2]
        rows, columns = area_means(height, 0, height, THUMBNAIL), area_means(width, 0, width, THUMBNAIL)
        light = pixels.astype(np.float32) @ LUMA
        grey.append(np.rint(rows @ light @ columns.T).astype(np.uint8))
        colour.append(pixels.mean((0, 1), dtype=np.float32))
    return Thumbnails(np.array(grey, np.uint8), np.array(colour, np.float32))


def before(folder: Path, pool: ConcatPool, rows: list[int], tests: ConcatPool, side: int) -> tuple[Thumbnails, Any]:
    references = thumbnails_as_they_were(tests.image(row) for row in range(len(tests)))
    chosen = thumbnails_as_they_were(pool.image(row) for row in rows)
    write_subset(folder, ((row, pool.image(row, side)) for row in rows), side)
    return chosen, references


def after(folder: Path, pool: ConcatPool, rows: list[int], tests: ConcatPool, options: Any) -> tuple[Thumbnails, Any]:
    """By the stage itself, on a selection as the store would hand it over."""
    looked = in_order(lambda row: thumbnail(tests.image(row, THUMBNAIL)), range(len(tests)), options.threads)
    references = Thumbnails.of(looked)
    selection = folder / "selection"
    selection.mkdir()
    save_selection(selection / SELECTION, np.array(rows), [pool.key(row) for row in rows])
    manifest = SimpleNamespace(path=options.pool, facts={"sources": ["part"]})
    inputs: Any = {"selection": SimpleNamespace(path=selection), "pool0": manifest}
    subset.build(
        folder,
        inputs,
        side=options.side,
        locations=[Location("webdataset", str(options.pool))],
        find_draws=lambda pool: None,
        max_unreadable=None,
        threads=options.threads,
    )
    return Thumbnails.open(folder), references


def timed(name: str, work: Callable[[], Any]) -> tuple[float, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    done = work()
    wall = time.perf_counter() - start
    print(f"{name:<44}{wall:>9.1f} s wall{time.process_time() - cpu:>9.1f} s of cores", flush=True)
    return wall, done


def copies_in(chosen: Thumbnails, references: Thumbnails) -> tuple[list[str | None], list[int]]:
    shown = TestImages([str(n) for n in range(len(references))], references).shown_by(chosen)
    first = first_alike(chosen)
    return shown, [] if first is None else first.tolist()


def blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            yield block


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("images", 50_000), ("tests", 6149), ("side", 256), ("distinct", 500), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", type=Path, help="where the pools are written and packed: 20 GB of 50,000 images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        root = Path(made)
        for name in ("pool", "tests", "before", "after"):
            (root / name).mkdir()
        options.pool = root / "pool"
        pool = write_pool(root / "pool", options.images, min(options.images, options.distinct))
        tests = write_pool(root / "tests", options.tests, min(options.tests, options.distinct))
        rows = np.random.default_rng(0).permutation(options.images).tolist()
        print(f"{options.images:,} JPEGs of {WIDTH} x {HEIGHT} px, {options.tests:,} test images, side {options.side}")
        old, was = timed(
            "before: decode, decode and pack", lambda: before(root / "before", pool, rows, tests, options.side)
        )
        new, now = timed("now: decode and pack", lambda: after(root / "after", pool, rows, tests, options))
        look, found = timed("look for copies (in both)", lambda: copies_in(*now))
        for one, other in zip(blocks(root / "before/pixels.bin"), blocks(root / "after/pixels.bin"), strict=True):
            assert one == other, "other pixels"
        assert found == copies_in(*was), "other copies"
    print(f"same pixels, same copies; {old / new:.2f} times as fast, {(old + look) / (new + look):.2f} with that look")


if __name__ == "__main__":
    main()
