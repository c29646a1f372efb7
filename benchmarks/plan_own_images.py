"""CPU seconds of `python train.py plan=true` on 100,000 images of one's own in class folders, as pool and as task.

    python -m benchmarks.plan_own_images [IMAGES [CLASSES]]

Small files are written below a temporary folder, which takes about half a GB of its disk, and are read from the cache.
The first line is what the program itself takes, by a plan of the embedded world.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES, CLASSES = 100_000, 100
BYTES = 1_000  # of a file: whatever is read of one, it is little
TRAIN = Path(__file__).resolve().parent.parent / "train.py"


def write(root: Path, images: int, classes: int) -> None:
    for label in range(classes):
        (root / f"class {label:03d}").mkdir()
    for number in range(images):
        data = number.to_bytes(8, "little") * (BYTES // 8)
        (root / f"class {number % classes:03d}" / f"{number:06d}.jpg").write_bytes(data)


def cpu_seconds(*overrides: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(TRAIN), "plan=true", "hardware.threads=1", *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    images, classes = [int(text) for text in sys.argv[1:]] or (IMAGES, CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        root, store = Path(folder, "images"), f"store.root={folder}/store"
        root.mkdir()
        write(root, images, classes)
        pool = ["pool=folder", f"pool.path='{root}'"]
        task = ["task=imagefolder", f"task.path='{root}'"]
        print(f"{images:,} images in {classes} folders; CPU seconds of a plan")
        for what, overrides in (("the embedded world", []), ("pool", pool), ("task", task), ("both", pool + task)):
            print(f"{what:<20}{cpu_seconds(store, *overrides):6.1f}", flush=True)


if __name__ == "__main__":
    main()
