"""A batch encoded in chunks gives the outputs and gradients of the batch as a whole, for less memory."""

from functools import partial

import micro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks

from sept.backbones.networks import build
from sept.errors import ConfigError
from sept.methods.dino.learner import Dino
from sept.methods.ibot.learner import IBot
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.runtime.hardware import Runtime
from sept.training.learner import Chunk, fitting, in_chunks, kept_bytes

STEPS, BATCH = 3, 8


def moby():
    recipe = micro.moby(batch_size=BATCH, queue=20, drop_path_rate=0.3, lr=1e-4)
    return MoBy(recipe, micro.SWIN, seed=3, length=Length(STEPS, 1))


def dino():
    recipe = micro.dino(batch_size=BATCH, drop_path_rate=0.3, lr=1e-4, freeze_prototypes_epochs=2)
    return Dino(recipe, micro.SWIN, seed=3, length=Length(STEPS, 1))


def ibot():
    recipe = micro.ibot(batch_size=BATCH, drop_path_rate=0.3, lr=1e-4, freeze_prototypes_epochs=2)
    return IBot(recipe, micro.VIT, seed=3, length=Length(STEPS, 1))


def trained(make, folder, chunk):
    """Losses of the steps, gradients of the first and buffers after the last, with chunks as given."""
    learner, losses, gradients = make(), [], {}
    learner.chunk, step, clip = chunk, learner.training_step, learner.on_before_optimizer_step

    def training_step(*args):
        losses.append(step(*args))
        return losses[-1]

    def on_before_optimizer_step(optimizer):
        if not gradients:
            named = learner.named_parameters()
            gradients.update({name: p.grad.clone() for name, p in named if p.grad is not None})
        clip(optimizer)

    learner.training_step, learner.on_before_optimizer_step = training_step, on_before_optimizer_step
    packed = micro.subset(folder / "images", 24)
    micro.run(learner, micro.cropped(learner, packed, BATCH), folder / str(chunk))
    return [loss.item() for loss in losses], gradients, dict(learner.named_buffers())


@pytest.mark.parametrize("make", [moby, dino, ibot])
def test_chunks_change_no_loss_gradient_or_buffer(make, tmp_path):
    micro.assert_chunks_change_nothing(partial(trained, make, tmp_path), BATCH)


def test_the_setting_reaches_the_encoder(tmp_path):
    sizes, learner = [], moby()
    packed = micro.subset(tmp_path / "images", 24)
    learner.online["encoder"].register_forward_pre_hook(lambda module, images: sizes.append(len(images[0])))
    micro.run(learner, micro.cropped(learner, packed, BATCH), tmp_path, Runtime(threads=1, chunk=3))
    assert max(sizes) <= 2 * 3
    assert sum(sizes) == STEPS * (2 * BATCH + 2 * (BATCH - 3))  # all but the last chunk twice


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 40))
def test_every_image_is_encoded_once_and_in_its_place_and_once_more_where_it_is_not_kept(images, size, kept):
    batch = torch.arange(images, dtype=torch.float64, requires_grad=True)
    seen = []

    def encode(x, nothing):
        seen.append(len(x))
        return {"squares": x**2, "three": x[:, None] * torch.ones(3)}

    out = in_chunks(encode, [batch, None], Chunk(size, kept))
    assert torch.equal(out["squares"], batch**2)
    assert out["three"].shape == (images, 3)
    assert sum(seen) == images
    assert max(seen) <= max(size, kept)
    out["squares"].sum().backward()
    assert torch.equal(batch.grad, 2 * batch.detach())
    assert sum(seen) == 2 * images - min(images, max(kept, size))


def test_without_gradients_images_pass_in_pieces_and_none_twice():
    seen = []
    with torch.no_grad():
        out = in_chunks(lambda x: seen.append(len(x)) or 2 * x, [torch.arange(600.0)], None)
    assert torch.equal(out, 2 * torch.arange(600.0))
    assert seen == [200, 200, 200]


def test_kept_bytes_are_those_that_autograd_saves_for_one_more_image():
    swin = build(micro.SWIN.name, micro.SWIN.args)
    each = kept_bytes(lambda n: swin(torch.zeros(n, 3, micro.SIDE, micro.SIDE)))
    saved = {}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        swin(torch.zeros(16, 3, micro.SIDE, micro.SIDE))
    own = {p.untyped_storage().data_ptr() for p in swin.parameters()}
    total = sum(t.untyped_storage().nbytes() for at, t in saved.items() if at not in own)
    assert each == pytest.approx(total / 16, rel=0.1)  # attention keeps a bias for all images


@pytest.mark.parametrize("make", [moby, dino, ibot])
def test_chunks_leave_less_for_the_backward_pass(make):
    learner = make()
    whole = kept_bytes(learner.encode_blank)
    learner.chunk = Chunk(1)
    assert kept_bytes(lambda n: learner.encode_blank(n + 1)) < 0.2 * whole


def test_a_batch_that_fits_is_encoded_whole_and_a_larger_one_keeps_what_fits():
    assert fitting(10, 100, 2000) is None
    chunk = fitting(100, 100, 5000)
    assert chunk == Chunk(47, 47)  # 95 % of the memory
    assert fitting(100, 100, 10_000) == Chunk(5, 95)
    with pytest.raises(ConfigError, match=r"an image needs 1.0 GiB of activations, and 0.5 GiB of the GPU are free"):
        fitting(4, 2**30, 2**29)


def test_learners_estimate_the_memory_of_their_heads():
    assert all(make().bytes_beside(16) == 2 * make().bytes_beside(8) > 0 for make in (moby, dino, ibot))
