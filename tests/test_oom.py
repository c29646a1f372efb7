"""A GPU's memory that runs out is one line with the numbers and the settings, wherever it ran out."""

import pickle
import weakref

import conftest
import pytest
import torch

from sept.capability import remedy
from sept.compose import experiment
from sept.engines.dispatch import failure_of
from sept.errors import DataError, OutOfMemory
from sept.pipeline import Pipeline
from sept.runtime import failures
from sept.runtime.hardware import Runtime
from sept.stages import features, pretrain

SAID = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.20 GiB is "
    "free. Including non-PyTorch memory, this process has 77.9 GiB memory in use.\nSee documentation"
)
NUMBERS = "GPU out of memory: tried to allocate 2.00 GiB, 1.20 GiB of the card's 79.15 GiB was free"


class Held:
    """Stands for tensors."""


def exhausted(kept: list | None = None) -> None:
    held = Held()
    if kept is not None:
        kept.append(weakref.ref(held))
    raise torch.OutOfMemoryError(SAID)


def test_the_numbers_are_those_that_torch_says():
    assert str(failures.out_of_memory(torch.OutOfMemoryError(SAID))) == NUMBERS
    assert "(no more of it)" in str(failures.out_of_memory(torch.OutOfMemoryError("no more of it\nand more")))
    for text in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"):
        assert isinstance(failures.out_of_memory(RuntimeError(text)), OutOfMemory)
    for other in (RuntimeError("CUDA error: an illegal memory access"), MemoryError("Unable to allocate"), KeyError(1)):
        assert failures.out_of_memory(other) is None


@pytest.fixture
def pipeline():
    chosen = ["hardware.chunk=64", "hardware.devices=2", "pretrain.batch_size=16"]
    return Pipeline(experiment([*conftest.TINY, *chosen]), Runtime(devices=2))


def test_a_stage_names_its_settings_and_lets_go_what_it_held(pipeline, tmp_path, monkeypatch):
    kept: list[weakref.ref] = []
    monkeypatch.setattr(pretrain, "build", lambda *args, **given: exhausted(kept))
    with pytest.raises(OutOfMemory) as told:
        pipeline.pretrain.build(tmp_path, {})
    assert str(told.value) == (
        f"pretrain: {NUMBERS}; set fewer images at a time with hardware.chunk (now 64; same result), more "
        "hardware.devices (now 2), or a smaller pretrain.batch_size (now 16; changes the result)"
    )
    assert told.value.exit_code == 71
    assert [reference() for reference in kept] == [None]


def test_what_a_process_of_the_work_said_gets_the_settings_of_the_stage(pipeline, tmp_path, monkeypatch):
    failure = pickle.loads(pickle.dumps(failure_of(exhausted)))  # as engines and trainings send it
    assert (type(failure), str(failure)) == (OutOfMemory, NUMBERS)

    def build(*args, **given):
        raise failure

    monkeypatch.setattr(features, "build", build)
    with pytest.raises(OutOfMemory, match=f"^features: {NUMBERS}; set a smaller retriever.batch_size .now 512; "):
        pipeline.features[0].build(tmp_path, {})


def test_other_failures_pass_as_they_are():
    for other in (DataError("lost"), RuntimeError("a bug")):
        with pytest.raises(type(other)) as found, failures.translated("stage", "nothing"):
            raise other
        assert found.value is other


@pytest.mark.parametrize("stage", ["retriever", "pretrain", "features", "queries", "selection", "index", "finetune"])
def test_every_stage_on_a_gpu_has_something_to_set(stage, pipeline):
    assert "(now " in remedy(stage, pipeline.e)
