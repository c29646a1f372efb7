"""From a pool with labels and captions to a row of results: what was learnt from is in it, and in a table."""

import io
from pathlib import Path

import numpy as np
import pytest
from test_annotations import make_parquet, make_tar
from test_own_images import KINDS, drawn

import sept
from sept.errors import DataError
from sept.tables.rows import rows
from sept.tables.text import COLUMNS, cells_of, format_lines

SIDE = 32
SHORT = ["budget.images=48", "compute.epochs=2", "pretrain.batch_size=16", "finetune.epochs=1", "finetune.min_steps=0"]
NETWORK = ["retriever=hog", "backbone=vit_micro", "finetune=classify_micro", "finetune.batch_size=16", "init=sept"]
QUIET = ["hardware.accelerator=cpu", "hardware.threads=1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Tars of drawings with what they show, as a class, a caption and in a JSON object; a task of lines."""
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)

    def image(kind: str, angle: float) -> bytes:
        stream = io.BytesIO()
        drawn(kind, angle, SIDE, rng).save(stream, "PNG")
        return stream.getvalue()

    for shard in range(2):
        members: dict[str, bytes | str] = {}
        for n in range(40):
            kind = KINDS[n % len(KINDS)]
            members |= {
                f"{n}.cls": kind,
                f"{n}.png": image(kind, rng.uniform(0, np.pi)),
                f"{n}.txt": f"{kind} in colour",
            }
        make_tar(folder / "web" / f"web-{shard}.tar", members)
    for split, count in (("train", 5), ("test", 6)):
        for label in range(3):
            for n in range(count):
                path = folder / "task" / split / f"{label}" / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image("lines", label * np.pi / 3))
    return folder


def cell(world: Path, *choices: str) -> list[str]:
    own = ["pool=webdataset", f"pool.path={world}/web", "task=imagefolder", f"task.path={world}/task"]
    return [*own, *SHORT, *NETWORK, *QUIET, f"store.root={world}/store", *choices]


def test_captions_and_labels_of_tars_lead_to_rows_that_say_so(world):
    told = {
        "supervised": ["pretrain=supervised_micro"],
        "clip": ["pretrain=clip_micro"],
        "from labels": ["pretrain=clip_micro", "pool.captions=from_labels"],
        "alone": ["pretrain=moby_micro", "pretrain.queue=32"],
    }
    found = {name: sept.run(cell(world, *choices)) for name, choices in told.items()}
    expected = {"supervised": "labels", "clip": "captions", "from labels": "captions from labels", "alone": "none"}
    assert {name: row["annotation"] for name, row in found.items()} == expected
    assert all(0 <= row["score"] <= 100 and row["images"] == 48 for row in found.values())
    chosen = {row["keys"]["selection"][0] for row in found.values()}
    assert len(chosen) == 1  # the same images, whatever is learnt from them
    assert len({row["keys"]["subset"][0] for row in found.values()}) == 4


def test_the_head_of_the_classes_is_in_the_flops(world):
    from sept.compose import experiment

    e = experiment(cell(world, "pretrain=supervised_micro"))
    [spent] = [
        each["flops"]
        for each in sept.run(cell(world, "pretrain=supervised_micro"))["artefacts"]
        if each["stage"] == "pretrain"
    ]
    assert spent == 2 * 48 * e.pretrain.of_classes(len(KINDS)).flops(e.backbone) > 2 * 48 * e.pretrain.flops(e.backbone)


def test_a_table_shows_what_was_learnt_from(world):
    from sept.compose import experiment

    names = ("pretrain=supervised_micro", "pretrain=moby_micro", "init=rand_init")
    lines = rows([experiment(cell(world, name), expanded=True) for name in names])
    titles, texts = format_lines(lines)
    assert [text[titles.index("annotation")] for text in texts] == ["labels", "", ""]
    assert "annotation" not in format_lines(lines[1:])[0]
    csv = [dict(zip(COLUMNS, cells_of(line), strict=True))["annotation"] for line in lines]
    assert csv == ["labels", "none", "none"]


def test_a_retriever_is_trained_on_labels_too(world):
    trains = ["retriever=ibot_micro", "pretrain@retriever.train=supervised_micro", "retriever.weights=null"]
    trains += ["retriever.epochs=1", "retriever.train.batch_size=16", "pretrain=moby_micro", "pretrain.queue=32"]
    row = sept.run(cell(world, *trains))
    assert row["annotation"] == "none"  # of the pre-training
    assert len(row["keys"]["retriever"]) == 1


def test_too_few_labels_end_the_run_before_the_training(world, tmp_path):
    labels = [KINDS[n % 4] if n % 2 else None for n in range(60)]
    make_parquet(tmp_path / "pool.parquet", label=labels)
    with pytest.raises(DataError, match=r"of 48 chosen images have no labels, the first 'pool/\d+'"):
        sept.run(cell(world, "pool=parquet", f"pool.path={tmp_path}", "pretrain=supervised_micro"))
