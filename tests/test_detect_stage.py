"""`finetune=detect` from the command line: scores, pictures in the run's folder and in W&B, a row in its table."""

import csv
import io
import json
from pathlib import Path

import pytest
from conftest import run
from PIL import Image

BOXES = [
    "retriever=ibot_micro",
    "retriever.weights=sept:ibot_micro",
    "pool=patterns_scenes",
    "pool.images=400",
    "task=patterns_boxes",
    "task.train_per_class=2",
    "task.test_per_class=1",
    "task.images=24",
    "finetune=detect_micro",
    "finetune.epochs=1",
    "finetune.milestones=[1]",
    "finetune.batch_size=8",
]
CLASSIFIER = ("finetune.warmup_epochs=1", "finetune.min_steps=0")  # of the tests' common settings


@pytest.fixture(scope="module")
def detected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The store after whole scenes and their boards were looked up, and what the command said."""
    folder = tmp_path_factory.mktemp("boxes")
    choices = [*BOXES, "query=image,instance", "logger=wandb", "logger.mode=offline", "-m"]
    done = run(*choices, store=folder / "store", without=CLASSIFIER)
    assert done.returncode == 0, done.stderr
    return folder / "store", done.stdout


def test_scores_of_all_kinds_are_in_the_manifest(detected: tuple[Path, str]) -> None:
    store, said = detected
    facts = [json.loads(path.read_text())["facts"] for path in store.glob("detect/*/manifest.json")]
    assert len(facts) == 2
    for each in facts:
        assert each["metric"] == "voc_ap50"
        assert each["score"] == each["voc_ap50"]
        assert len(each["class_ap"]) == 16
        assert each["flops"] > 0
    assert said.count("VOC AP50 ") == 2
    queries = [json.loads(path.read_text()) for path in store.glob("queries/*/manifest.json")]
    counted = {each["spec"]["query"]: each["facts"]["images"] for each in queries}
    assert counted["image"] == 24 < counted["instance"]


def test_predictions_are_drawn_and_sent_to_wandb(detected: tuple[Path, str]) -> None:
    store, _ = detected
    for folder in store.glob("detect/*/predictions"):
        pictures = sorted(folder.glob("*.png"))
        assert len(pictures) == 8
        with Image.open(pictures[0]) as picture:
            assert min(picture.size) >= 400
    assert len(list(store.parent.glob("wandb/offline-run-*/files/media/images/predictions*.png"))) == 16


def test_a_table_shows_the_headline_of_its_task(detected: tuple[Path, str], monkeypatch, capsys) -> None:
    from sept.tables.__main__ import main

    store, _ = detected
    monkeypatch.setenv("SEPT_STORE", str(store))
    from conftest import TINY

    settings = [each for each in [*TINY, *BOXES] if each not in CLASSIFIER]
    chosen = list({each.partition("=")[0]: each for each in settings}.values())
    assert main(["patterns_table7", *chosen, "budget.images=32", "seed=0", "init=sept", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["query"], row["metric"], row["n"]) for row in rows] == [
        ("image", "voc_ap50", "1"),
        ("instance", "voc_ap50", "1"),
    ]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["task=patterns_boxes"], "finetune=classify_micro does not fit task=patterns_boxes: finetune=detect does"),
        (
            ["finetune=detect_micro"],
            "does not fit task=patterns_a: finetune=classify or probe does",
        ),
        (["finetune=detect_micro", "finetune.anchor_sides=[8,16]"], "the pyramid has 5 levels, one side each"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(choices: list[str], message: str, tmp_path: Path) -> None:
    unfit = ("finetune.",) if "finetune=detect_micro" in choices else ()
    done = run(*choices, store=tmp_path / "store", without=unfit)
    assert done.returncode == 78
    assert message in done.stderr
