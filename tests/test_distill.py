"""Distillation of the retriever: its loss against a slow one, what is packed, and the whole run."""

import json
import math
import shutil

import annotated
import numpy as np
import pytest
import torch
from conftest import TINY, Tiny
from hypothesis import given
from hypothesis import strategies as st

from sept import api
from sept.compose import experiment
from sept.data.annotations import VECTORS, write_vectors
from sept.data.subset import Subset
from sept.errors import ConfigError, DataError
from sept.methods.distill.learner import agreement
from sept.retrieval.features import Features

DISTILLED = [each for each in TINY if not each.startswith("pretrain.")] + ["pretrain=distill_micro"]


@given(st.integers(2, 9), st.integers(2, 6), st.integers(0, 1000))
def test_the_loss_equals_one_worked_out_image_by_image(batch, dim, seed):
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(2, batch, dim))

    def cosine(x, y):
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)

    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        target = np.array([math.exp(cosine(t, other) / 0.2) for other in teacher])
        said = np.array([math.exp(cosine(s, other) / 0.2) for other in teacher])
        total -= (target / target.sum() * np.log(said / said.sum())).sum()
    found = agreement(torch.tensor(student), torch.tensor(teacher), 0.2)
    assert found.item() == pytest.approx(total / batch, rel=1e-5)


def test_a_student_that_tells_nothing_apart_is_at_chance_and_the_teacher_itself_is_best():
    teacher = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    wide = torch.cat([teacher, torch.zeros(64, 1)], dim=1)
    blind = torch.zeros(64, 17)
    blind[:, -1] = 1
    assert agreement(blind, wide, 0.07).item() == pytest.approx(math.log(64))
    best = agreement(teacher, teacher, 0.07)
    for noise in (0.1, 1.0):
        assert agreement(teacher + noise * torch.randn_like(teacher), teacher, 0.07) > best


@pytest.mark.parametrize("dim", [64, 128, 768])
def test_a_new_student_starts_as_far_above_chance_as_the_docs_say(dim):
    """Its cosines with the teacher's vectors are those of random directions, of variance 1 / dim (docs/methods.md)."""
    student, teacher = torch.randn(2, 2048, dim, generator=torch.Generator().manual_seed(dim))
    expected = math.log(2048) + 1 / (2 * dim * 0.07**2)
    assert agreement(student, teacher, 0.07).item() == pytest.approx(expected, rel=0.01)


def test_no_gradient_reaches_the_teacher():
    student, teacher = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    agreement(student, teacher, 0.1).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_vectors_are_packed_without_their_mean(tmp_path, monkeypatch):
    monkeypatch.setattr("sept.data.annotations.AT_ONCE", 7)
    packed = annotated.subset(tmp_path, 20, "features")
    made = annotated.vectors(20).astype(np.float64)
    made -= made.mean(axis=0)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    found = np.stack([packed.annotation(place)["vector"].numpy() for place in range(20)])
    np.testing.assert_allclose(found, made, atol=1e-6)


def test_a_blind_retriever_and_a_cut_file_are_refused(tmp_path):
    with pytest.raises(DataError, match="does not tell them apart"):
        write_vectors(tmp_path, 3, 2, lambda part: np.ones((part.stop - part.start, 2), np.float32))
    folder = tmp_path / "cut"
    annotated.subset(folder, 4, "features")
    (folder / VECTORS).write_bytes((folder / VECTORS).read_bytes()[:-4])
    with pytest.raises(DataError, match="its annotations are damaged"):
        Subset.open(folder)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("include_task=true", "the task's images have none of these"),
        ("selector=target_only", "the task's images have none of these"),
    ],
)
def test_the_tasks_images_have_no_vectors(wrong, told):
    with pytest.raises(ConfigError, match=told):
        experiment(["pretrain=distill_micro", wrong])


def test_a_retriever_cannot_learn_from_itself():
    with pytest.raises(ConfigError, match=r"^retriever\.train=distill_micro learns from a retriever: choose"):
        api.run(["pretrain@retriever.train=distill_micro", "retriever.weights=null"])


def test_random_and_similar_images_are_learnt_from_the_retriever_that_the_row_names(tiny: Tiny, tmp_path):
    store, rows = tmp_path / "store", {}
    shutil.copytree(tiny.store, store)  # others look for the only run of their kind
    for init in ("random", "sept"):
        rows[init] = api.run([*DISTILLED, "pretrain.batch_size=16", f"init={init}", f"store.root={store}"])
        assert rows[init]["annotation"] == "features"
        assert rows[init]["retriever"] == "ibot_micro_train"
        assert rows[init]["method"] == "distill_micro"
    [features] = (store / "features").iterdir()
    pool = Features.open(features)
    packed = [path.parent for path in (store / "subset").glob(f"*/{VECTORS}")]
    assert len(packed) == 2
    for folder in packed:
        subset = Subset.open(folder)
        expected = pool.take(subset.ids)
        expected -= expected.mean(axis=0)
        found = np.stack([subset.annotation(place)["vector"].numpy() for place in range(len(subset))])
        cosines = (found * expected).sum(axis=1) / np.linalg.norm(expected, axis=1)
        np.testing.assert_allclose(cosines, 1, atol=1e-5)
        inputs = json.loads((folder / "manifest.json").read_text())["inputs"]
        assert "features0" in inputs
