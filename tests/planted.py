"""Small pieces of code for a pretended device: wrong ones of kinds that a CPU forgives, ones that wait, and right ones.

Each takes what `pretended()` gives. A wrong one raises what its entry in WRONG says; a waiting one makes the host wait
as its entry in WAITING says; a right one does neither, and asserts what it computes.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sept.gpu.pretended import FROM_DEVICE, SCALARS, SIZES, TO_DEVICE, Device, MixedDevices, Unordered

Piece = Callable[[Device], Any]
WRONG: dict[str, tuple[Piece, type[Exception], str]] = {}
WAITING: dict[str, tuple[Piece, dict[str, int]]] = {}
RIGHT: dict[str, Piece] = {}


def wrong(error: type[Exception], match: str = ".") -> Callable[[Piece], Piece]:
    def register(piece: Piece) -> Piece:
        WRONG[piece.__name__] = piece, error, match
        return piece

    return register


def waiting(**counts: int) -> Callable[[Piece], Piece]:
    names = {"to": TO_DEVICE, "back": FROM_DEVICE, "scalars": SCALARS, "sizes": SIZES}

    def register(piece: Piece) -> Piece:
        WAITING[piece.__name__] = piece, {names[key]: count for key, count in counts.items()}
        return piece

    return register


def right(piece: Piece) -> Piece:
    RIGHT[piece.__name__] = piece
    return piece


def there(*shape: int) -> Tensor:
    return torch.ones(*shape, device="cuda")


# On the wrong side


@wrong(MixedDevices)
def a_tensor_made_without_a_device(device: Device) -> None:
    images = there(4, 3, 8, 8)
    images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)


@wrong(MixedDevices)
def places_counted_on_the_host_and_compared(device: Device) -> None:
    there(5).cumsum(0).gt(torch.arange(5))


@wrong(MixedDevices, "aten.cat")
def features_of_both_sides_joined(device: Device) -> None:
    torch.cat([there(2, 3), torch.ones(2, 3)])


@wrong(MixedDevices, "addmm")
def a_layer_left_on_the_host(device: Device) -> None:
    nn.Linear(3, 2)(there(4, 3))


@wrong(MixedDevices)
def a_layer_moved_and_its_input_not(device: Device) -> None:
    nn.Linear(3, 2).cuda()(torch.ones(4, 3))


@wrong(MixedDevices)
def a_buffer_that_is_not_registered(device: Device) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.full((3,), 2.0)  # stays behind when the module moves

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    Scaled().to("cuda")(there(2, 3))


@wrong(MixedDevices)
def labels_left_on_the_host(device: Device) -> None:
    F.cross_entropy(there(4, 3), torch.zeros(4, dtype=torch.long))


@wrong(MixedDevices)
def gathering_by_places_of_the_host(device: Device) -> None:
    there(4, 3).gather(1, torch.zeros(4, 1, dtype=torch.long))


@wrong(MixedDevices, "aten.index.Tensor")
def a_host_tensor_indexed_by_the_device(device: Device) -> None:
    torch.ones(4)[there(2).long()]


@wrong(MixedDevices)
def a_mask_of_the_device_on_a_host_tensor(device: Device) -> None:
    torch.ones(4)[there(4) > 0]


@wrong(MixedDevices)
def rows_of_the_host_put_among_those_of_the_device(device: Device) -> None:
    table = there(4, 3)
    table[torch.tensor([0, 1])] = torch.zeros(2, 3)


@wrong(MixedDevices)
def a_sum_kept_on_the_host(device: Device) -> None:
    total = torch.zeros(())
    total += there(3).sum()


@wrong(MixedDevices)
def a_result_asked_for_on_the_host(device: Device) -> None:
    torch.mm(there(2, 2), there(2, 2), out=torch.empty(2, 2))


@wrong(MixedDevices)
def an_average_of_weights_left_on_the_host(device: Device) -> None:
    online = nn.Linear(2, 2)
    target = [parameter.detach().clone() for parameter in online.parameters()]
    torch._foreach_lerp_(target, [parameter.detach() for parameter in online.cuda().parameters()], 0.1)


@wrong(RuntimeError, "assigned grad")
def a_gradient_of_the_host_given_to_a_weight(device: Device) -> None:
    weight = nn.Parameter(there(3))
    weight.grad = torch.ones(3)


@wrong(MixedDevices)
def a_backward_pass_that_makes_its_own_tensor(device: Device) -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * torch.full((3,), 2.0)

    Doubled.apply(there(3).requires_grad_()).sum().backward()


@wrong(MixedDevices)
def a_mixture_under_a_transformation(device: Device) -> None:
    torch.func.grad(lambda x: (x * torch.ones(3)).sum())(there(3))


@wrong(RuntimeError, "Expected a 'cuda' device type for generator")
def a_generator_of_the_host(device: Device) -> None:
    torch.rand(3, device="cuda", generator=torch.Generator().manual_seed(1))


@wrong(RuntimeError, "Expected a 'cpu' device type for generator")
def a_generator_of_the_device(device: Device) -> None:
    torch.empty(3).normal_(generator=torch.Generator("cuda"))


# What a card does not do


@wrong(TypeError, "can't convert cuda:0")
def numbers_of_the_device_as_numpy(device: Device) -> None:
    there(3).numpy()


@wrong(TypeError, "can't convert cuda:0")
def numpy_of_a_list_of_them(device: Device) -> None:
    np.asarray(there(3))


@wrong(RuntimeError, "Inference tensors cannot be saved for backward")
def a_model_moved_in_inference_mode_and_trained(device: Device) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with torch.inference_mode():
        model.to("cuda")(there(4, 3))
    model(there(4, 3)).sum().backward()


@wrong(RuntimeError, "only dense CPU tensors can be pinned")
def memory_of_the_device_pinned(device: Device) -> None:
    there(3).pin_memory()


@wrong(RuntimeError, "invalid device ordinal")
def a_device_that_is_not_there(device: Device) -> None:
    torch.ones(3).to("cuda:1")


@wrong(RuntimeError, "unsafe to autocast")
def a_loss_of_probabilities_in_half_precision(device: Device) -> None:
    with torch.autocast("cuda", torch.bfloat16):
        F.binary_cross_entropy(there(3), there(3))


@wrong(torch.OutOfMemoryError, "Tried to allocate 1024.00 MiB")
def more_than_the_device_holds(device: Device) -> None:
    device.memory.total = 2**30
    held = there(3)
    torch.empty(2**30, dtype=torch.uint8, device=held.device)


# Not waited for


@wrong(Unordered, "the host overwrites what stream 0 may still be reading")
def a_staging_buffer_filled_again_too_early(device: Device) -> None:
    staged = torch.zeros(8, pin_memory=True)
    staged.to("cuda", non_blocking=True)
    staged.fill_(1)


@wrong(Unordered, "the host overwrites what stream 0 may still be reading")
def a_staging_buffer_filled_again_through_numpy(device: Device) -> None:
    staged = torch.zeros(8).pin_memory()
    there(8).copy_(staged, non_blocking=True)
    staged.numpy()[:] = 1


@wrong(Unordered, "the host overwrites")
def a_staging_buffer_filled_again_by_another_thread(device: Device) -> None:
    staged, failed = torch.zeros(8, pin_memory=True), []

    def fill() -> None:
        try:
            staged[:4].numpy()[:] = 1
        except Unordered as error:
            failed.append(error)

    there(8).copy_(staged, non_blocking=True)
    reader = threading.Thread(target=fill)
    reader.start()
    reader.join()
    raise failed[0]


@wrong(Unordered, "the host uses what stream 0 may not have written yet")
def a_result_read_before_it_has_come(device: Device) -> None:
    there(3).to("cpu", non_blocking=True).numpy()


@wrong(Unordered, "the host uses")
def a_result_compared_before_it_has_come(device: Device) -> None:
    result = torch.empty(3, pin_memory=True)
    result.copy_(there(3), non_blocking=True)
    bool(result.isfinite().all())


@wrong(Unordered, "stream 0 uses what stream 1 may not have written yet")
def a_batch_used_before_it_has_come(device: Device) -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        batch = torch.ones(3).pin_memory().to("cuda", non_blocking=True)
    batch.sum()


@wrong(Unordered, "stream 0 uses")
def an_event_recorded_before_the_copy(device: Device) -> None:
    side, ready = torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(side):
        ready.record()
        batch = torch.ones(3).pin_memory().to("cuda", non_blocking=True)
    torch.cuda.current_stream().wait_event(ready)
    batch.sum()


@wrong(Unordered, "stream 1 overwrites what stream 0 may still be reading")
def a_device_buffer_filled_again_too_early(device: Device) -> None:
    block, staged = torch.empty(8, device="cuda"), torch.ones(8).pin_memory()
    side = torch.cuda.Stream()
    block.copy_(staged, non_blocking=True)
    side.wait_stream(torch.cuda.current_stream())
    block.sum()
    with torch.cuda.stream(side):
        block.copy_(staged, non_blocking=True)


@wrong(Unordered, "memory of stream 1 was freed while stream 0 may still use it")
def memory_given_back_while_another_stream_uses_it(device: Device) -> None:
    side, staged = torch.cuda.Stream(), torch.ones(8).pin_memory()
    for _ in range(2):
        with torch.cuda.stream(side):
            batch = staged.to("cuda", non_blocking=True)
        torch.cuda.current_stream().wait_stream(side)
        batch.sum()
        del batch


# Waits


@waiting(to=1)
def a_list_made_a_tensor(device: Device) -> None:
    torch.tensor([1.0, 2.0], device="cuda")


@waiting(to=2)
def copies_from_pageable_memory(device: Device) -> None:
    torch.ones(3).to("cuda")
    torch.ones(3).cuda(non_blocking=True)  # which no word makes asynchronous


@waiting(to=1)
def a_copy_that_changes_the_type(device: Device) -> None:
    staged = torch.ones(8, dtype=torch.float16).pin_memory()
    torch.empty(8, device="cuda").copy_(staged, non_blocking=True)  # torch converts on the host, into pageable memory


@waiting(to=3)
def places_of_the_host(device: Device) -> None:
    x = there(4)
    x[[0, 1]] = 0
    x[torch.tensor([0, 1])]
    x[np.array([True, False, True, False])]


@waiting(scalars=6)
def scalars(device: Device) -> None:
    x = there(2)
    x[0].item(), float(x[0]), int(x[0]), bool(x[0] > 0), x.tolist(), f"{x.sum():.1f}"


@waiting(scalars=2)
def comparisons_that_answer_the_host(device: Device) -> None:
    assert torch.equal(there(2), there(2))
    if there(2).isfinite().all():
        pass


@waiting(sizes=5)
def sizes_that_depend_on_numbers(device: Device) -> None:
    x = there(4)
    x[x > 0], x.nonzero(), x.unique(), torch.where(x > 0), x.masked_select(x > 0)


@waiting(back=3)
def copies_to_the_host(device: Device) -> None:
    there(2).cpu()
    there(2).to("cpu")
    torch.empty(2).copy_(there(2), non_blocking=True)  # pageable


@waiting(scalars=1)
def one_hot_without_the_number_of_classes(device: Device) -> None:
    F.one_hot(there(3).long())


# Right


@right
def numbers_and_scalars_of_the_host_beside_tensors(device: Device) -> None:
    x = there(3) * torch.tensor(2.0) + 1
    x[1] = 5.0
    x[:1] = 4
    assert x.where(x > 4, torch.tensor(0.0)).device.type == "cuda"
    assert x.new_zeros(2).is_cuda
    assert torch.zeros_like(x, device="cpu").device.type == "cpu"
    assert not torch.ones(2).is_cuda


@right
def one_hot_of_known_classes(device: Device) -> None:
    assert F.one_hot(there(3).long(), 4).shape == (3, 4)


@right
def a_batch_copied_while_another_is_used(device: Device) -> None:
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()
    for _ in range(3):
        with torch.cuda.stream(side):
            batch = torch.ones(8).pin_memory().to("cuda", non_blocking=True)
        main.wait_stream(side)
        batch.record_stream(main)
        batch.sum()
        del batch


@right
def two_staging_buffers_taking_turns(device: Device) -> None:
    side, block = torch.cuda.Stream(), torch.empty(8, device="cuda")
    staged = [torch.empty(8, pin_memory=True) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in range(2)]
    used = torch.cuda.Event()
    for turn in range(5):
        slot = turn % 2
        copied[slot].synchronize()
        staged[slot].numpy()[:] = turn
        with torch.cuda.stream(side):
            side.wait_event(used)
            block.copy_(staged[slot], non_blocking=True)
            copied[slot].record()
        torch.cuda.current_stream().wait_event(copied[slot])
        block.sum()
        used.record()


@right
def a_result_fetched_by_an_event(device: Device) -> None:
    result, done = there(3).mul(2).to("cpu", non_blocking=True), torch.cuda.Event()
    assert result.is_pinned()
    done.record()
    done.synchronize()
    assert result.numpy().tolist() == [2, 2, 2]


@right
def gradients_through_a_move(device: Device) -> None:
    weight = torch.ones(3).pin_memory().requires_grad_()
    (weight.to("cuda", non_blocking=True) * 3).sum().backward()
    torch.cuda.synchronize()
    assert weight.grad is not None


@right
def copies_of_a_model(device: Device) -> None:
    import copy

    model = nn.BatchNorm1d(3, device="cuda")
    assert all(value.is_cuda for value in copy.deepcopy(model).state_dict().values())


@right
def a_mean_and_a_clipped_gradient(device: Device) -> None:
    with torch.device("cuda"):
        model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))
    model(there(5, 3)).mean().backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    assert norm.is_cuda
    torch.optim.AdamW(model.parameters(), fused=True).step()


@right
def autocast_as_on_cuda(device: Device) -> None:
    layer, x = nn.Linear(3, 4, device="cuda"), there(2, 3)
    with torch.autocast("cuda", torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        assert [f(y).dtype for f in (torch.exp, lambda z: z.sum(), lambda z: z.softmax(0))] == [torch.float32] * 3
        assert nn.Linear(3, 4)(torch.ones(2, 3)).dtype == torch.float32  # the host's are left alone
        with torch.autocast("cuda", enabled=False):
            assert layer(x).dtype == torch.float32
    y.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


def _recomputed(device: Device, preserve: bool, drop: float) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(drop), nn.Tanh()).cuda()
    x, mean = there(4, 6).requires_grad_(), there(6)

    def forward(x: Tensor) -> Tensor:
        assert x.is_cuda
        return model(x + torch.zeros(6, device=x.device)) * mean

    ends = []
    for whole in (True, False):
        torch.manual_seed(1)
        y = forward(x) if whole else checkpoint(forward, x, use_reentrant=False, preserve_rng_state=preserve)
        ends.append(torch.autograd.grad(y.sum(), [x, *model.parameters()]))
    assert all(bool((a == b).all().cpu()) for a, b in zip(*ends, strict=True))


@right
def a_block_recomputed_with_the_same_draws(device: Device) -> None:
    _recomputed(device, True, 0.5)


@right
def a_block_without_draws_recomputed(device: Device) -> None:
    _recomputed(device, False, 0.0)


@right
def functions_transformed(device: Device) -> None:
    def loss(weight: Tensor, x: Tensor) -> Tensor:
        assert weight.device.type == "cuda"
        return (weight * x + torch.ones(3, device=x.device)).square().sum()

    slopes = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(there(3), there(5, 3))
    assert slopes.is_cuda
    assert slopes.shape == (5, 3)


@right
def a_function_with_its_own_gradient(device: Device) -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * torch.full((3,), 2.0, device=gradient.device)

    x = there(3).requires_grad_()
    (slope,) = torch.autograd.grad(Doubled.apply(x).sum(), [x])
    assert slope.is_cuda
    assert bool((slope == 2).all().cpu())


@right
def draws_of_the_device(device: Device) -> None:
    drawn = torch.Generator("cuda").manual_seed(3)
    assert torch.rand(3, device="cuda", generator=drawn).is_cuda
    assert isinstance(drawn, torch.Generator)
    assert torch.Generator().device.type == "cpu"
