"""Batches moved one ahead, and many small tensors in one copy."""

import multiprocessing
import time

import lightning as L
import pytest
import torch
from micro import SIDE, Labelled
from torch import nn

from benchmarks.augmentation import Moved
from sept.data.loading import loader
from sept.data.prefetch import Prefetch
from sept.retrievers.encoder import _one_behind
from sept.runtime.device import fetch, move, packed, send, tensors_in, unpacked


class Read:
    """Batches that keep account of which were read, and an error instead of some."""

    def __init__(self, count, broken=()):
        self.count, self.broken, self.read = count, broken, []

    def __len__(self):
        return self.count

    def __iter__(self):
        for i in range(self.count):
            self.read.append(i)
            if i in self.broken:
                raise OSError(f"batch {i} is lost")
            yield {"images": torch.full((2, i + 1), i), "names": [str(i)]}


class AlwaysMoved(Prefetch):
    """One ahead on the CPU too, where tensors keep their numbers."""

    def __iter__(self):
        return self._moved()


def test_every_tensor_of_a_batch_moves_and_the_rest_stays():
    batch = {"a": torch.ones(2), "b": [torch.ones(3), ({"c": torch.ones(4)}, "name")], "d": 5}
    moved = move(batch, torch.device("meta"))
    assert [(t.device.type, t.shape[0]) for t in tensors_in(moved)] == [("meta", 2), ("meta", 3), ("meta", 4)]
    assert moved["b"][1][1] == "name"
    assert moved["d"] == 5
    assert [t.device.type for t in tensors_in(batch)] == ["cpu"] * 3


def test_batches_come_in_order_and_one_ahead_is_read():
    source = Read(4)
    batches = AlwaysMoved(source, "cpu")
    assert len(batches) == 4
    for i, batch in enumerate(batches):
        assert (batch["images"] == i).all()
        assert batch["names"] == [str(i)]
        assert source.read == list(range(min(i + 2, 4)))
    assert i == 3
    assert len(list(batches)) == 4  # it can be gone through again


def test_batches_of_the_cpu_are_passed_on_untouched_and_none_is_read_ahead():
    batches = [torch.ones(1), torch.ones(2)]
    assert all(given is batch for given, batch in zip(Prefetch(batches, "cpu"), batches, strict=True))
    source = Read(3)
    next(iter(Prefetch(source, "cpu")))
    assert source.read == [0]


def test_batches_are_on_the_device():
    assert [batch["images"].device.type for batch in Prefetch(Read(3), "meta")] == ["meta"] * 3
    assert list(Prefetch(Read(0), "meta")) == []


def test_an_error_of_reading_is_raised_at_the_batch_it_belongs_to():
    found = []
    with pytest.raises(OSError, match="batch 2 is lost"):
        found.extend(batch["names"][0] for batch in AlwaysMoved(Read(5, broken=[2]), "cpu"))
    assert found == ["0", "1"]


def test_given_up_in_the_middle_nothing_goes_on_reading():
    """Also where the reading is done by a worker process."""
    source = Read(9)
    batches = iter(Prefetch(source, "meta"))
    next(batches)
    batches.close()
    assert source.read == [0, 1]
    assert next(batches, None) is None

    before = set(multiprocessing.active_children())
    batches = iter(Prefetch(loader(Labelled(8, 2), [[(0, i % 8)] for i in range(40)], 1), "meta"))
    assert next(batches)["images"].shape == (1, 3, SIDE, SIDE)
    assert len(set(multiprocessing.active_children()) - before) == 1
    batches.close()
    deadline = time.monotonic() + 20
    while set(multiprocessing.active_children()) - before:
        assert time.monotonic() < deadline, "the worker outlived what it read for"
        time.sleep(0.05)


class Linear(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.seen = nn.Linear(3 * SIDE * SIDE, 2), []
        nn.init.zeros_(self.model.weight)
        nn.init.zeros_(self.model.bias)

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["labels"].tolist())
        return nn.functional.cross_entropy(self.model(batch["images"].flatten(1) / 255), batch["labels"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(batches, **limits):
    learner, quiet = Linear(), dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary"), False)
    trainer = L.Trainer(accelerator="cpu", devices=1, max_epochs=1, enable_progress_bar=False, **quiet, **limits)
    trainer.fit(learner, train_dataloaders=batches)
    return learner, trainer


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
@pytest.mark.parametrize("limits", [{"max_steps": -1}, {"max_steps": 3}])
@pytest.mark.parametrize("kind", [Prefetch, AlwaysMoved])
def test_lightning_trains_on_it_as_on_the_loader(kind, limits):
    batches = loader(Labelled(12, 2), [[(0, i), (0, i + 1)] for i in range(0, 12, 2)], 0)
    (right, at), (found, trainer) = trained(batches, **limits), trained(kind(batches, "cpu"), **limits)
    assert trainer.global_step == at.global_step == (3 if limits["max_steps"] == 3 else 6)
    assert trainer.num_training_batches == at.num_training_batches == 6
    assert found.seen == right.seen
    assert torch.equal(found.model.weight, right.model.weight)


MIXED = [
    torch.tensor([True, False, True]),
    torch.empty(0, 7),
    torch.arange(5),
    torch.rand(3, 2),
    torch.tensor(2.5, dtype=torch.float64),
    torch.rand(2, 3).T,
]


def test_many_small_tensors_are_packed_and_unpacked():
    for found, right in zip(unpacked(packed(MIXED), MIXED), MIXED, strict=True):
        assert found.dtype == right.dtype
        assert torch.equal(found, right)


def test_they_are_sent_in_one_copy_that_nothing_waits_for():
    with Moved() as moved:
        there = send(MIXED, torch.device("meta"))
    assert (moved.sent, moved.waits) == (1, 0)
    assert [(t.shape, t.dtype) for t in there] == [(t.shape, t.dtype) for t in MIXED]
    assert all(t.device.type == "meta" for t in there)


def test_what_is_fetched_is_what_was_computed():
    tensor = torch.rand(3)
    assert torch.equal(fetch(tensor)(), tensor)


@pytest.mark.gpu
def test_on_a_gpu_batches_are_whole_however_long_the_work_before_took():
    work = torch.rand(4000, 4000, device="cuda")
    sums = []
    for batch in Prefetch(loader(Labelled(8, 2), [[(0, i % 8)] for i in range(40)], 0, pin=True), "cuda"):
        for _ in range(5):
            work = (work @ work).softmax(dim=1)
        sums.append(fetch(batch["images"].sum()))
        del batch
    expected = [int(Labelled(8, 2)[0, i % 8]["images"].sum()) for i in range(40)]
    assert [int(take()) for take in sums] == expected


def test_results_are_taken_when_the_next_work_has_been_queued():
    queued, taken = [], []
    for result in _one_behind(queued.append(i) or i for i in range(3)):
        taken.append((result, len(queued)))
    assert taken == [(0, 2), (1, 3), (2, 3)]
    assert list(_one_behind([])) == []
