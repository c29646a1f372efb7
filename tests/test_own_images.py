"""Five folders of one's own, from a good one to a hopeless one: what is remarked on, and where nothing is."""

from pathlib import Path

import numpy as np
import pytest
from conftest import run
from PIL import Image

from sept.results import CHANCE

QUICK = ["budget.images=64", "compute.epochs=2", "pretrain.batch_size=32", "finetune.min_steps=40", "finetune.epochs=1"]
BLIND = "cannot tell the task from the pool"
SHOWN = "are shown at finetune.side=48"
KINDS = ("lines", "rings", "crosses", "dots")  # those of the task first


def drawn(kind: str, angle: float, side: int, rng: np.random.Generator) -> Image.Image:
    """One of four kinds of drawings, turned; in colours and with noise of its own."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j] + rng.normal(0, 0.05, (2, 1, 1))
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    shape = {
        "lines": np.sin(9 * u),
        "rings": np.sin(12 * np.hypot(u, 2 * v)),
        "crosses": 1 - 12 * np.minimum(np.abs(u), np.abs(v)),
        "dots": np.sin(9 * u) * np.sin(9 * v),
    }[kind]
    paper, ink = rng.random(3) * 0.4 + 0.6, rng.random(3) * 0.4
    mix = (0.5 + 0.5 * np.tanh(3 * shape))[..., None]
    pixels = paper * mix + ink * (1 - mix) + rng.normal(0, 0.03, (side, side, 3))
    return Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8))


def folders(root: Path, side: int = 48, labels: str = "true", images: int = 300, noise: bool = False) -> None:
    """A pool of all kinds of drawings; a task of lines, in four directions. labels: `guessed` has no sense."""
    rng, drawn_side = np.random.default_rng(0), min(side, 48)  # large ones are slow to draw

    def save(image: Image.Image, path: str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image.resize((side, side), Image.Resampling.NEAREST).save(root / path)

    def blank() -> Image.Image:
        return Image.fromarray(rng.integers(0, 255, (drawn_side, drawn_side, 3), dtype=np.uint8))

    for n in range(images):
        image = blank() if noise else drawn(KINDS[n % len(KINDS)], rng.choice(8) * np.pi / 8, drawn_side, rng)
        save(image, f"pool/{n:03d}.png")
    for split, count in (("train", 8), ("test", 20)):
        for label in range(4):
            for n in range(count):
                shown = label if labels == "true" else rng.integers(4)
                image = blank() if noise else drawn("lines", shown * np.pi / 4 + rng.normal(0, 0.1), drawn_side, rng)
                save(image, f"task/{split}/{label}/{n}.png")


def told(folder: Path, *overrides: str) -> tuple[str, str]:
    """Output and errors of a run on the folders."""
    own = [
        "pool=folder",
        f"pool.path={folder}/pool",
        "task=imagefolder",
        f"task.path={folder}/task",
        "hardware.threads=1",
        *QUICK,
        *overrides,
    ]
    done = run(*own, store=folder / "store", without=("",))
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_good_one_is_learnt_and_nothing_is_remarked_on(tmp_path):
    folders(tmp_path)
    row, errors = told(tmp_path)
    accuracy = float(row.split()[1])
    assert accuracy > 60, row
    assert CHANCE not in row
    assert BLIND not in errors
    assert SHOWN not in errors


def test_a_hopeless_retriever_is_told_before_the_training(tmp_path):
    folders(tmp_path, noise=True)
    _, errors = told(tmp_path, "finetune.min_steps=4")
    assert errors.count(BLIND) + errors.count("looks like the task throughout") == 1
    assert errors.index("advise=true says more") < errors.index("pre-train:")


def test_labels_without_sense_end_at_chance_and_the_row_says_so(tmp_path):
    folders(tmp_path, labels="guessed")
    row, _ = told(tmp_path)
    assert CHANCE in row


def test_tiny_images_are_taken_as_they_are(tmp_path):
    folders(tmp_path, side=16)
    row, errors = told(tmp_path)
    assert float(row.split()[1]) > 50, row
    assert SHOWN not in errors


@pytest.mark.parametrize(
    ("side", "advice"), [(400, "photographs need a network made for them"), (96, "pretrain.store_side=96 shows all")]
)
def test_images_that_are_shrunk_much_are_told_in_the_plan(tmp_path, side, advice):
    folders(tmp_path, side=side, images=64)
    plan, _ = told(tmp_path, "plan=true")
    [line] = [line for line in plan.splitlines() if SHOWN in line]
    assert f"are {side} px" in line
    assert advice in line
    plan, _ = told(tmp_path, f"finetune.side={side}", "plan=true")
    assert SHOWN not in plan
