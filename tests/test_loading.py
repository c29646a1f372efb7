"""Step-indexed batches: every epoch once through, the same after any interruption and over any number of ranks."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from micro import SIDE, Labelled

from sept.data import steps_per_epoch
from sept.data.loading import Batches, StepSampler, collate, loader
from sept.errors import ConfigError


def sampler(samples=23, batch_size=5, first=0, last=12, **where):
    return StepSampler(seed=3, samples=samples, batch_size=batch_size, first=first, last=last, **where)


sizes = {"samples": st.integers(1, 40), "batch_size": st.integers(1, 12)}


@given(**sizes)
def test_every_epoch_visits_each_sample_at_most_once_and_only_the_rest_is_dropped(samples, batch_size):
    per_epoch = steps_per_epoch(samples, batch_size)
    batches = list(sampler(samples, batch_size, last=3 * per_epoch))
    for epoch in range(3):
        places = [place for batch in batches[epoch * per_epoch : (epoch + 1) * per_epoch] for place in batch]
        visited = [sample for _, sample in places]
        assert {e for e, _ in places} == {epoch}
        assert len(set(visited)) == len(visited) == per_epoch * min(batch_size, samples)
        assert set(visited) <= set(range(samples))
        assert samples - len(visited) < min(batch_size, samples)


@given(**sizes, first=st.integers(0, 20))
def test_a_run_resumed_at_any_step_reads_what_was_left(samples, batch_size, first):
    whole = list(sampler(samples, batch_size, last=20))
    assert list(sampler(samples, batch_size, first=first, last=20)) == whole[first:]


@given(st.sampled_from([1, 2, 3, 4, 6]), st.integers(12, 40), st.integers(0, 5))
def test_ranks_share_out_the_global_batch(world, samples, first):
    whole = list(sampler(samples, 12, first=first, last=9))
    shares = [list(sampler(samples, 12, first=first, last=9, rank=rank, world=world)) for rank in range(world)]
    assert [[place for share in step for place in share] for step in zip(*shares, strict=True)] == whole
    assert {len(batch) for share in shares for batch in share} == {12 // world}


def test_epochs_differ_and_seeds_differ():
    batches = list(sampler(20, 20, last=3))
    orders = [[sample for _, sample in batch] for batch in batches]
    assert orders[0] != orders[1] != orders[2]
    other = StepSampler(seed=4, samples=20, batch_size=20, first=0, last=1)
    assert next(iter(other)) != batches[0]


def test_fewer_samples_than_a_batch_are_all_read_in_every_step():
    batches = list(sampler(samples=3, batch_size=8, last=4))
    assert [sorted(sample for _, sample in batch) for batch in batches] == [[0, 1, 2]] * 4
    assert [batch[0][0] for batch in batches] == [0, 1, 2, 3]
    assert steps_per_epoch(3, 8) == 1


def test_length_is_what_is_left():
    assert len(sampler(first=5, last=12)) == len(list(sampler(first=5, last=12))) == 7
    assert list(sampler(first=12, last=12)) == []


def test_a_batch_that_does_not_split_over_the_ranks_is_refused():
    with pytest.raises(ConfigError, match=r"a batch of 5 images does not split over hardware\.devices=2"):
        sampler(batch_size=5, world=2)


def test_batches_hold_the_samples_of_their_places():
    dataset = Labelled(8, 3)
    places = list(sampler(8, 4, last=2))
    for batch, place in zip(loader(dataset, sampler(8, 4, last=2), 0), places, strict=True):
        assert batch["images"].shape == (4, 3, SIDE, SIDE)
        assert batch["images"].dtype == torch.uint8
        assert batch["labels"].tolist() == [sample % 3 for _, sample in place]
        for image, (_, sample) in zip(batch["images"], place, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), dataset.images[sample])


def test_collate_stacks_tensors_lists_and_numbers_and_lists_names():
    samples = [{"views": [torch.full((2,), i), torch.full((3,), i)], "label": i, "name": str(i)} for i in (4, 5)]
    batch = collate(samples)
    assert [view.tolist() for view in batch["views"]] == [[[4, 4], [5, 5]], [[4, 4, 4], [5, 5, 5]]]
    assert batch["label"].tolist() == [4, 5]
    assert batch["label"].dtype == torch.int64
    assert batch["name"] == ["4", "5"]


def test_samplers_can_be_sent_to_workers():
    assert list(pickle.loads(pickle.dumps(sampler()))) == list(sampler())


def told_of_memory(samples):
    """`collate`, and whether each of its tensors lies in shared memory already, before it is handed over."""
    batch = collate(samples)
    tensors = [batch["images"], *batch["views"]]
    return batch | {"shared": [tensor.is_shared() for tensor in tensors]}


class Both(Labelled):
    def __getitem__(self, place):
        item = super().__getitem__(place)
        return item | {"views": [item["images"][:, ::2], item["images"][:, :, :8].float()]}


@pytest.mark.parametrize(("workers", "shared"), [(1, True), (0, False)])
def test_a_worker_joins_a_batch_in_the_memory_that_it_is_handed_over_in(workers, shared):
    """Anywhere else it would be copied there. What is read is the same with and without workers."""
    batches = [[(0, 3), (0, 0)], [(0, 2)]]
    read = list(loader(Both(4, 2), batches, workers, told_of_memory))
    expected = [collate([Both(4, 2)[place] for place in batch]) for batch in batches]
    for found, right in zip(read, expected, strict=True):
        assert found["shared"] == [shared] * 3
        assert torch.equal(found["images"], right["images"])
        assert found["labels"].tolist() == right["labels"].tolist()
        for view, whole in zip(found["views"], right["views"], strict=True):
            assert torch.equal(view, whole)


@pytest.mark.parametrize("there", [False, True])
def test_batches_are_pinned_when_asked_and_where_there_is_a_gpu(there, monkeypatch):
    """A GPU that is there changes nothing for a run on the CPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    batches, all_samples = [[(0, 0)]], Batches(Labelled(4, 2), 4, 2, seed=0)
    assert not loader(Labelled(4, 2), batches, 0).pin_memory
    assert not all_samples.between(0, 1, 0).pin_memory
    assert loader(Labelled(4, 2), batches, 0, pin=True).pin_memory == there
    assert all_samples.between(0, 1, 0, pin=True).pin_memory == there
