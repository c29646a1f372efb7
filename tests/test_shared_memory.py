"""Batches of data workers that /dev/shm does not hold are told before the run, by the sizes that batches have."""

import os
import subprocess
from functools import partial
from pathlib import Path

import conftest
import micro
import pytest
import torch

from sept.app import shared_memory
from sept.app.shared_memory import GIB, batch_bytes, free_bytes, needed_bytes, require
from sept.compose import experiment
from sept.data.labelled import TEST_BATCH
from sept.data.loading import loader
from sept.errors import ConfigError
from sept.methods.ibot.learner import IBot
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.retrievers.encoder import EncodedViews
from sept.retrievers.settings import PreprocessSettings
from sept.runtime.hardware import Runtime
from sept.store import Step

PAPER = ["retriever=ibot_vit_s16", "pretrain=moby_swin_t", "finetune=classify", "compute=300epochs", "budget=100k"]
EIGHT = Runtime("cuda", workers=8)
MIB = 2**20


def docker() -> int:
    """Free bytes in a container that nobody gave more."""
    return 64 * MIB


def bytes_of(batch) -> int:
    if isinstance(batch, torch.Tensor):
        return batch.nbytes
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list) else []
    return sum(map(bytes_of, parts))


@pytest.fixture(scope="module")
def paper():
    return experiment(PAPER)


@pytest.fixture(scope="module")
def trained():
    """With a retriever that is not read from a file."""
    return experiment([*PAPER, "retriever.weights=null"])


def missing(*stages: str, images: int = 10_000) -> list[Step]:
    """Steps that are to be built."""
    return [Step(stage, 1, {}, {}, build=lambda folder, inputs: {}, estimate={"images": images}) for stage in stages]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return micro.subset(tmp_path_factory.mktemp("images"), 24)


def test_the_size_of_a_training_batch_is_what_the_workers_make(packed):
    e = experiment(conftest.TINY)
    e.pretrain, e.retriever.train = micro.moby(batch_size=12), micro.ibot(batch_size=12)
    e.backbone, e.retriever.backbone = micro.SWIN, micro.VIT
    moby = MoBy(e.pretrain, micro.SWIN, seed=0, length=Length(1, 1))
    ibot = IBot(e.retriever.train, micro.VIT, seed=0, length=Length(1, 1))
    for stage, learner in (("pretrain", moby), ("retriever", ibot)):
        [batch] = micro.cropped(learner, packed, 12).between(0, 1, 0)
        assert batch_bytes(e, EIGHT, stage) == bytes_of(batch)


def test_the_size_of_an_embedded_batch_is_what_the_workers_make():
    e = experiment([*conftest.TINY, "retriever.batch_size=10"])
    e.retriever.preprocess = PreprocessSettings(32, 24, True)
    drawn = micro.images(10)
    [batch] = loader(EncodedViews(drawn.__getitem__, e.retriever.resolved_preprocess()), [list(range(10))], 0)
    assert batch_bytes(e, EIGHT, "features") == batch_bytes(e, EIGHT, "queries") == bytes_of(batch)
    assert batch_bytes(e, Runtime("cuda", devices=3, workers=2), "features") == 3 * bytes_of(batch)
    e.engine.name = "ray"
    assert batch_bytes(e, EIGHT, "features") == 0  # on other machines


def test_a_classifier_is_tested_while_it_reads(paper):
    assert shared_memory.TEST_BATCH == TEST_BATCH
    assert batch_bytes(paper, EIGHT, "finetune") == (paper.finetune.batch_size + TEST_BATCH) * 3 * 224**2


def test_the_default_of_docker_is_refused_with_the_remedies(paper):
    needed = needed_bytes(512 * 2 * 3 * 224**2, 8)
    assert 2.5 * GIB < needed < 3 * GIB
    with pytest.raises(ConfigError) as told:
        require(paper, EIGHT, missing("pool", "pretrain", "finetune"), docker)
    assert str(told.value) == (
        "hardware.workers=8: in pretrain they hold up to 2.8 GiB of batches in /dev/shm, where 0.062 GiB are free: "
        "start the container with `docker run --shm-size=3g` or `--ipc=host`, or set hardware.workers=0"
    )


@pytest.mark.parametrize("stage", ["retriever", "features", "queries", "pretrain", "finetune"])
def test_each_stage_that_reads_is_checked_and_others_are_not(stage, trained, paper):
    with pytest.raises(ConfigError, match=f"in {stage} they hold"):
        require(trained, EIGHT, missing(stage, "pool", "selection"), docker)
    require(trained, EIGHT, missing("pool", "selection", "subset"), docker)
    require(paper, EIGHT, missing("retriever"), docker)  # it is read from a file


def test_one_batch_is_read_without_workers(paper):
    require(paper, EIGHT, missing("queries", "features", images=paper.retriever.batch_size), docker)


@pytest.mark.parametrize("choices", [["task=voc", "finetune=detect"], ["task=voc_masks", "finetune=segment"]])
def test_detectors_and_segmenters_are_checked(choices):
    e = experiment([*PAPER[:2], *choices])
    with pytest.raises(ConfigError, match=f"in {e.finetune.name} they hold up to"):
        require(e, EIGHT, missing(e.finetune.name), docker)


def test_the_number_of_workers_that_it_names_fits(paper):
    free = partial(int, GIB)
    with pytest.raises(ConfigError, match=r"hardware.workers=(\d+)$") as told:
        require(paper, Runtime("cuda", workers=16), missing("pretrain"), free)
    fitting = int(str(told.value).rpartition("=")[2])
    assert 0 < fitting < 16
    require(paper, Runtime("cuda", workers=fitting), missing("pretrain"), free)
    with pytest.raises(ConfigError):
        require(paper, Runtime("cuda", workers=fitting + 1), missing("pretrain"), free)


def test_reading_in_the_process_needs_none_of_it(paper):
    require(paper, Runtime("cuda"), missing("pretrain"), free=lambda: pytest.fail("asked"))


def test_free_space_is_that_of_the_file_system(paper, tmp_path):
    found = os.statvfs(tmp_path)
    assert free_bytes(tmp_path) == pytest.approx(found.f_bavail * found.f_frsize, rel=0.1)
    assert free_bytes(tmp_path / "nowhere") is None  # macOS has no /dev/shm and no such limit
    require(paper, EIGHT, missing("pretrain"), lambda: None)


def test_a_small_file_system_is_refused(paper, tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(ConfigError, match=r"where 0.062 GiB are free"):
            require(paper, EIGHT, missing("pretrain"), partial(free_bytes, tmp_path))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(not shared_memory.FOLDER.is_dir(), reason="no /dev/shm")
def test_train_refuses_before_anything_is_made_and_plans_all_the_same(tmp_path):
    many = "hardware.workers=1000000000"
    done = conftest.run(many, store=tmp_path / "store")
    assert done.returncode == ConfigError.exit_code
    assert done.stderr.splitlines()[-1].startswith(f"error: {many}: in finetune they hold up to ")
    assert not Path(tmp_path / "store" / "pool").exists()
    done = conftest.run(many, "plan=true", store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
