"""A batch encoded in chunks, so that a large one fits: the activations of most are computed again in the backward pass.

Swin and ViT see images one by one, so the outputs and the gradients are those of the whole batch, to rounding. What
looks at a batch as one (heads with BatchNorm, queue, loss) comes after.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from sept.errors import ConfigError

WITHOUT_GRADIENT = 256  # images at a time where no activation is kept: enough to keep a GPU busy
PASSING = 4  # a pass that keeps nothing holds less than a quarter of one that keeps its activations
SPARE = 0.95  # share of the free memory that is planned with: the rest is for fragments and what is passing


@dataclass(frozen=True)
class Chunk:
    """size: images encoded at a time, and again in the backward pass. kept: of a batch's last images, how many keep
    their activations, `size` at least; their backward pass comes first, and leaves the memory to the others."""

    size: int
    kept: int = 0

    def __mul__(self, views: int) -> "Chunk":
        """The same in views, of which an image has so many."""
        return Chunk(self.size * views, self.kept * views)


def in_chunks(encode: Callable[..., Any], inputs: Sequence[Tensor | None], chunk: Chunk | None) -> Any:
    """What encode(*inputs) gives, for inputs (B, ...): a tensor (B, ...) or a nest of them.

    chunk None: in one piece. Where no gradient is asked for, in pieces of `WITHOUT_GRADIENT` at most.
    """
    images = next(len(each) for each in inputs if each is not None)
    spans = _spans(images, chunk) if torch.is_grad_enabled() else _passing(images, chunk)
    if len(spans) == 1:
        return encode(*inputs)
    parts = []
    for first, last, again in spans:
        part = [None if each is None else each[first:last] for each in inputs]
        parts.append(checkpoint(encode, *part, use_reentrant=False) if again else encode(*part))
    return tree_map(lambda *outputs: torch.cat(outputs), *parts)


def _spans(images: int, chunk: Chunk | None) -> list[tuple[int, int, bool]]:
    """(first, last, whether to compute again) of each piece: what is kept comes last, at once."""
    if chunk is None:
        return [(0, images, False)]
    kept = min(images, max(chunk.kept, chunk.size))
    return [*((first, last, True) for first, last in _even(images - kept, chunk.size)), (images - kept, images, False)]


def _passing(images: int, chunk: Chunk | None) -> list[tuple[int, int, bool]]:
    most = WITHOUT_GRADIENT if chunk is None else min(WITHOUT_GRADIENT, PASSING * chunk.size)
    return [(first, last, False) for first, last in _even(images, most)]


def _even(images: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, last) of as few pieces as can be, of nearly equal sizes, which compile as one."""
    count = ceil(images / most)
    return pairwise([images * i // count for i in range(count + 1)] if count else [])


def kept_bytes(forward: Callable[[int], Any]) -> int:
    """Bytes that the backward pass needs of one more image; forward(n) encodes n images with gradients."""
    return _saved(lambda: forward(2)) - _saved(lambda: forward(1))


def _saved(forward: Callable[[], Any]) -> int:
    """Bytes of the storages that a forward pass leaves for its backward pass."""
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage
        return tensor.detach()  # an output that its own graph held would never be freed

    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = forward()
    del output  # until here, so that no storage takes another's place
    return sum(storage.nbytes() for storage in saved.values())


def fitting(images: int, each: int, free: int) -> Chunk | None:
    """How a batch of `images` fits into `free` bytes, where every image that is kept takes `each`; None: in one piece.

    Raises ConfigError where not even one image fits.
    """
    held = int(SPARE * free) // each
    if held >= images:
        return None
    if held < 1:
        raise ConfigError(
            f"an image takes {each / 2**30:.1f} GiB of activations, and {max(free, 0) / 2**30:.1f} GiB of the GPU are "
            "free: use a smaller batch, or hardware.devices"
        )
    return Chunk(min(held, images - held), held)
