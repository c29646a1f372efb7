"""Randomness without state: every draw is a pure function of a seed and of what it is for (rule R7).

The parts name the purpose and the place, for instance `generator(seed, "crop", view, step)` or
`numpy_rng(seed, "finetune", epoch, sample_id)`; they never name a worker, a rank or the time.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_LEGACY_SEED_BITS = 32  # numpy's global generator takes no more


def fold(seed: int, *parts: int | str) -> int:
    """A 63-bit integer that depends on the seed and on every part, on their order and on their types (1 is not "1")."""
    plain = [part if isinstance(part, str) else int(part) for part in (seed, *parts)]
    digest = hashlib.blake2b(json.dumps(plain).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *parts: int | str) -> "torch.Generator":
    """A fresh torch generator on the CPU, so that every device sees the same draws.

    torch keeps the low 32 bits of the seed: enough to tell steps apart, but two of 100,000 sample ids will share a
    stream. Use `numpy_rng` for draws per sample.
    """
    import torch

    return torch.Generator().manual_seed(fold(seed, *parts))


def numpy_rng(seed: int, *parts: int | str) -> np.random.Generator:
    """A fresh numpy generator that uses all bits of the folded seed."""
    return np.random.default_rng(fold(seed, *parts))


@contextmanager
def seeded(seed: int, *parts: int | str) -> Iterator[None]:
    """Seeds the global CPU generators of python, numpy and torch, and puts all three back as they were.

    For code of others that draws from them, as timm's RandAugment does. Not for several threads at once.
    """
    import torch

    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    value = fold(seed, *parts)
    try:
        random.seed(value)
        np.random.seed(value % 2**_LEGACY_SEED_BITS)
        torch.default_generator.manual_seed(value)  # torch.manual_seed would touch the accelerators too
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """(n,) int64, the order in which an epoch visits n samples."""
    return numpy_rng(seed, "permutation", epoch).permutation(n).astype(np.int64, copy=False)
