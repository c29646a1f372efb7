"""What a CPU can prove about a GPU: the project on a pretended device, and that the device notices what is wrong."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import conftest
import lightning as L
import micro
import numpy as np
import planted
import pytest
import test_detector
import test_index
import test_segmentation
import torch

from sept.backbones.networks import build
from sept.backbones.saved import WEIGHTS
from sept.backbones.weights import save_backbone
from sept.compose import experiment
from sept.data.images import ImageError
from sept.data.loading import Batches, loader
from sept.gpu.checks import Trained, differing, resumed, trained
from sept.gpu.pretended import BYTES, FROM_DEVICE, OPERATORS, TO_DEVICE, WAITS, pretended
from sept.gpu.waits import waits
from sept.methods.ibot.learner import IBot
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.retrieval import compact, index
from sept.retrieval.cluster import centroids, nearest
from sept.retrieval.index import search, search_many
from sept.retrievers.encoder import Encoder
from sept.retrievers.settings import Preprocess
from sept.runtime.hardware import Runtime
from sept.training.callbacks import EvaluateEvery, KNNProbe
from sept.training.learner import Learner
from sept.transfer.classify import Classifier

STEPS = 4
CLOSE = 5e-3  # of weights and buffers after that many steps at rates of 1e-4
CPU = Runtime(threads=1)
CUDA = Runtime("cuda", threads=1)
BF16 = Runtime("cuda", precision="bf16-mixed", threads=1)


# The device itself


@pytest.mark.parametrize("name", planted.WRONG)
def test_a_fault_that_a_cpu_forgives_is_caught(name: str) -> None:
    piece, error, match = planted.WRONG[name]
    with pretended() as device, pytest.raises(error, match=match):
        piece(device)


@pytest.mark.parametrize("name", planted.WAITING)
def test_waits_of_the_host_are_counted(name: str) -> None:
    piece, expected = planted.WAITING[name]
    with pretended() as device:
        piece(device)
    assert {each: device.counts[each] for each in WAITS if device.counts[each]} == expected


@pytest.mark.parametrize("name", planted.RIGHT)
def test_what_is_right_passes(name: str) -> None:
    with pretended() as device:
        planted.RIGHT[name](device)


def test_right_copies_and_streams_make_the_host_wait_for_nothing() -> None:
    for name in ("a_batch_copied_while_another_is_used", "one_hot_of_known_classes"):
        with pretended() as device:
            planted.RIGHT[name](device)
            assert device.waits == 0, (name, device.where)


def test_the_device_is_gone_afterwards_even_after_an_error() -> None:
    with pytest.raises(KeyError), pretended():
        raise KeyError
    assert not torch.cuda.is_available()
    assert torch.ones(1).device.type == "cpu"
    assert type(torch.Generator()) is torch._C.Generator
    with pretended(), pytest.raises(RuntimeError, match="already"), pretended():
        pass


def test_a_card_without_bfloat16_says_so() -> None:
    with pretended(bf16=False):
        assert not torch.cuda.is_bf16_supported(including_emulation=False)
        assert torch.cuda.get_device_capability() < (8, 0)


def test_the_device_needs_none_of_what_a_run_imports() -> None:
    code = "import sys, sept.gpu.pretended; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"hydra", "omegaconf", "faiss", "wandb", "lightning"} & set(loaded)


def test_memory_is_that_of_the_tensors_that_live() -> None:
    with pretended(memory=2**20) as device:
        x = torch.empty(1000, device="cuda")
        y = x.view(10, 100)[:3]
        assert torch.cuda.memory_allocated() == 4096
        assert torch.cuda.mem_get_info() == (2**20 - 4096, 2**20)
        del x
        assert torch.cuda.memory_allocated() == 4096, "a view keeps all of it"
        z = y + y
        del y, z
        assert device.memory.held == 0
        assert torch.cuda.max_memory_allocated() == 4096 + 1536


def test_operators_and_the_bytes_they_move_are_counted() -> None:
    with pretended() as device:
        x = torch.ones(10, 10, device="cuda")
        before = device.counts.copy()
        (x + x.T).view(100)[:50].mul_(2)
        torch.ones(3) + 1
    assert device.counts[OPERATORS] - before[OPERATORS] == 2
    assert device.counts[BYTES] - before[BYTES] == 3 * 400 + 200


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_come_pinned_and_go_to_the_device_without_a_wait(workers: int) -> None:
    with pretended() as device:
        batches = list(loader(micro.Labelled(6, 3), [[(0, 0), (0, 1)], [(0, 2), (0, 3)]], workers, pin=True))
        assert all(batch["images"].is_pinned() and batch["labels"].is_pinned() for batch in batches)
        sent = [batch["images"].to("cuda", non_blocking=True) for batch in batches]
        assert device.waits == 0
        assert all(bool((there.cpu() == batch["images"]).all()) for there, batch in zip(sent, batches, strict=True))


# Learners


@dataclass(frozen=True)
class Case:
    """A learner of a few steps and what it learns from; `looks` makes what looks at it meanwhile."""

    make: Callable[[], Learner]
    batches: Callable[[Learner], Batches]
    looks: Callable[[], list[L.Callback]] = list


def neighbours() -> list[L.Callback]:
    examples = loader(micro.Labelled(12, 3), [[(0, i) for i in range(first, first + 6)] for first in (0, 6)], 0)
    return [KNNProbe(examples, 2)]


def moby(folder: Path) -> Case:
    recipe, packed = micro.moby(batch_size=8, queue=20, drop_path_rate=0.3, lr=1e-4), micro.subset(folder, 24)
    make = partial(MoBy, recipe, micro.SWIN, seed=3, length=Length(STEPS, 1))
    return Case(make, partial(micro.cropped, packed=packed, batch_size=8), neighbours)


def ibot(folder: Path) -> Case:
    changes = {"drop_path_rate": 0.3, "lr": 1e-4, "freeze_prototypes_epochs": 2}
    recipe, packed = micro.ibot(batch_size=8, **changes), micro.subset(folder, 24)
    make = partial(IBot, recipe, micro.VIT, seed=3, length=Length(STEPS, 1))
    return Case(make, partial(micro.cropped, packed=packed, batch_size=8), neighbours)


def classifier(folder: Path) -> Case:
    recipe = micro.finetune(epochs=STEPS, drop_path_rate=0.1, erasing=0.5)
    tests = loader(micro.Labelled(6, 4), [[(0, i) for i in range(6)]], 0)
    return Case(
        partial(Classifier, recipe, micro.SWIN, 4, None, seed=0, steps_per_epoch=1),
        partial(micro.labelled, count=8, classes=4, batch_size=8),
        lambda: [EvaluateEvery(tests, 2)],
    )


def detector(folder: Path) -> Case:
    images = test_detector.drawn(folder, 8, empty=1)
    seen = test_detector.DetectionImages(images, training=False)
    tests = loader(seen, test_detector.batches_of(8, 4), 0, test_detector.as_lists)
    make = partial(test_detector.learner, images, test_detector.recipe(epochs=STEPS // 2))
    return Case(make, lambda learner: test_detector.batches(images, 4), lambda: [EvaluateEvery(tests, STEPS)])


def segmenter(folder: Path) -> Case:
    images = test_segmentation.drawn(folder, 8)
    whole = test_segmentation.WholeImages(images, test_segmentation.CLASSES)
    tests = loader(whole, test_segmentation.batches_of(8, 4), 0, test_segmentation.as_lists)
    make = partial(test_segmentation.learner, images, test_segmentation.recipe(epochs=STEPS // 2))
    return Case(make, lambda learner: test_segmentation.batches(images, 4), lambda: [EvaluateEvery(tests, STEPS)])


CASES = {"moby": moby, "ibot": ibot, "classifier": classifier, "detector": detector, "segmenter": segmenter}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    (tmp_path / "images").mkdir()
    return CASES[request.param](tmp_path / "images")


def run(case: Case, folder: Path, runtime: Runtime) -> Trained:
    learner = case.make()
    return trained(learner, case.batches(learner), folder, runtime, case.looks())


@pytest.mark.parametrize("case", conftest.mostly_slow(CASES, kept=2), indirect=True)
def test_a_learner_on_the_device_ends_as_on_the_cpu_and_bfloat16_stays_close(case: Case, tmp_path: Path) -> None:
    expected = run(case, tmp_path / "cpu", CPU)
    with pretended() as device:
        found = run(case, tmp_path / "cuda", CUDA)
        assert device.counts[OPERATORS] > 100 * STEPS
        lower = run(case, tmp_path / "bf16", BF16)
    assert len(expected.losses) == STEPS
    if hasattr(case.make(), "views"):  # a device colours by operators that round differently
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-3)
        assert max(differing(found, expected).values()) < CLOSE
    else:
        assert found.losses == expected.losses
        assert differing(found, expected) == {}
    assert all(value.isfinite().all() for value in lower.state.values() if value.is_floating_point())
    assert lower.losses != expected.losses, "autocast did nothing"
    np.testing.assert_allclose(lower.losses, expected.losses, rtol=0.05)


def test_a_training_stopped_by_a_signal_goes_on_bit_for_bit(tmp_path: Path) -> None:
    case = moby(tmp_path)
    with pretended():
        expected = run(case, tmp_path / "whole", BF16)
        found = resumed(case.make, case.batches, tmp_path / "parts", BF16, after=3)
    assert found.losses == expected.losses[3:]
    assert differing(found, expected) == {}


def test_waits_of_a_step_are_told_with_their_lines(tmp_path: Path) -> None:
    case = detector(tmp_path)
    learner = case.make()
    steps = waits(learner, case.batches(learner), steps=2)
    assert steps.total == pytest.approx(sum(number for number, _, _ in steps.where))
    assert steps.operators > 100
    assert any(place.startswith("sept/") for _, _, place in steps.where)
    assert not any(name == FROM_DEVICE for _, name, _ in steps.where)


# Stages

SMALL = [
    *("init=rand_init", "pool.images=400", "task.train_per_class=2", "task.test_per_class=1"),
    *("finetune.epochs=1", "finetune.batch_size=8", "finetune.test_every=1"),
    *("hardware.accelerator=cuda", "hardware.threads=1"),
]
STAGES = {
    "classify": ["finetune.warmup_epochs=0", "shot.per_class=2"],
    "detect": ["task=patterns_boxes", "finetune=detect_micro", "finetune.milestones=[1]", "task.images=8"],
    "segment": ["task=patterns_masks", "finetune=segment_micro", "task.images=8"],
}


@pytest.mark.parametrize("name", conftest.mostly_slow(STAGES))
def test_a_fine_tuning_runs_as_a_whole_stage(name: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(conftest.ROOT))
    from sept.commands import train

    with pretended() as device:
        row = train.run(experiment([*SMALL, *STAGES[name], f"store.root={tmp_path / 'store'}"]))
    assert row is not None
    assert 0 <= row["score"] <= 100
    assert device.counts[TO_DEVICE] > 0
    assert device.counts[OPERATORS] > 100
    stage = "finetune" if name == "classify" else name
    assert list((tmp_path / "store" / stage).glob("*/*.safetensors"))


# Retrieval


def test_vectors_are_those_of_the_cpu(tmp_path: Path) -> None:
    save_backbone(build(micro.VIT.name, micro.VIT.args), tmp_path / "backbone", micro.VIT.name, micro.VIT.args, {})
    drawn = micro.images(20)

    def read(i: int) -> np.ndarray:
        if i == 7:
            raise ImageError("lost")
        return drawn[i]

    def vectors(runtime: Runtime) -> tuple[np.ndarray, list[tuple[int, str]]]:
        return Encoder(tmp_path / "backbone" / WEIGHTS, micro.VIT, "cls_mean", Preprocess(32, 32, True), runtime, 6)(
            read, range(20)
        )

    with pretended():
        found, lost = vectors(CUDA)
    expected, same = vectors(CPU)
    assert lost == same == [(7, "lost")]
    np.testing.assert_allclose(found, expected, atol=1e-6)


EVERY = list(itertools.product([False, True], repeat=3))


@pytest.mark.parametrize(
    ("bf16", "int8", "guessed"),
    [pytest.param(*each, marks=() if len({*each}) == 1 else pytest.mark.slow) for each in EVERY],
)
def test_lists_are_those_of_the_cpu(
    bf16: bool, int8: bool, guessed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if guessed:
        monkeypatch.setattr(index, "SAMPLE_ROWS", 200)
    rows, dim, rng = 3000, 32, np.random.default_rng(6)
    features = test_index.store(tmp_path / "store", test_index.unit(rng, rows, dim), [7, 2000], rows_per_shard=1000)
    copy = None
    if int8:
        compact.build(tmp_path / "copy", features)
        copy = compact.Compact.open(tmp_path / "copy", features)
    queries, few = test_index.unit(rng, 30, dim), test_index.unit(rng, 3, dim)
    with pretended(bf16):
        here = search(queries, features, 50, "cuda", block_rows=256, compact=copy)
        both = search_many([(queries, 20), (few, 100)], features, "cuda", block_rows=256, compact=copy)
        everything = search(few, features, rows, "cuda", block_rows=256, compact=copy)
    test_index.assert_same(here, search(queries, features, 50))
    for found, (asked, depth) in zip(both, [(queries, 20), (few, 100)], strict=True):
        test_index.assert_same(found, search(asked, features, depth))
    test_index.assert_same(everything, search(few, features, rows))


def test_clusters_are_those_of_the_cpu() -> None:
    vectors = test_index.unit(np.random.default_rng(1), 300, 16)
    with pretended():
        label, _ = nearest(vectors, centroids(vectors, 5, 0, "cuda"), "cuda")
    assert np.array_equal(label, nearest(vectors, centroids(vectors, 5, 0, "cpu"), "cpu")[0])
