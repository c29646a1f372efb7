"""What every learner shares: the step, schedules derived from it, seeded draws, curves, a check for NaN, chunks.

A batch is encoded in chunks, so that a large one fits: most activations are recomputed in the backward pass. Swin and
ViT process images independently, so outputs and gradients are those of the whole batch, up to rounding. Operations on
the whole batch (heads with BatchNorm, queue, loss) come after.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from sept.backbones import IMAGENET, Statistics
from sept.data.rng import fold
from sept.errors import ConfigError, NonFiniteError

WITHOUT_GRADIENT = 256  # images at a time if no activations are kept: enough to keep a GPU busy
PASSING = 4  # a pass without kept activations needs less than a quarter of the memory of one with them
SPARE = 0.95  # share of the free memory to plan with: the rest is for fragmentation and temporaries


@dataclass(frozen=True)
class Chunk:
    """size: images encoded at a time, and again in the backward pass. kept: how many of a batch's last images keep
    their activations, at least `size`; their backward pass comes first, and frees the memory for the others."""

    size: int
    kept: int = 0

    def __mul__(self, views: int) -> "Chunk":
        """The same counted in views, for this many views per image."""
        return Chunk(self.size * views, self.kept * views)


def in_chunks(encode: Callable[..., Any], inputs: Sequence[Tensor | None], chunk: Chunk | None) -> Any:
    """The result of encode(*inputs) for inputs (B, ...): a tensor (B, ...) or nested tensors.

    chunk None: in one piece. Without gradients, in pieces of at most `WITHOUT_GRADIENT`.
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
    """(first, last, whether to recompute) of each piece: the kept images come last, in one piece."""
    if chunk is None:
        return [(0, images, False)]
    kept = min(images, max(chunk.kept, chunk.size))
    return [*((first, last, True) for first, last in _even(images - kept, chunk.size)), (images - kept, images, False)]


def _passing(images: int, chunk: Chunk | None) -> list[tuple[int, int, bool]]:
    most = WITHOUT_GRADIENT if chunk is None else min(WITHOUT_GRADIENT, PASSING * chunk.size)
    return [(first, last, False) for first, last in _even(images, most)]


def _even(images: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, last) of as few pieces as possible, of nearly equal sizes, to compile for few shapes."""
    count = ceil(images / most)
    return pairwise([images * i // count for i in range(count + 1)] if count else [])


def kept_bytes(forward: Callable[[int], Any]) -> int:
    """Bytes that the backward pass needs per additional image; forward(n) encodes n images with gradients."""
    return _saved(lambda: forward(2)) - _saved(lambda: forward(1))


def _saved(forward: Callable[[], Any]) -> int:
    """Bytes of the storages that a forward pass saves for its backward pass."""
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage
        return tensor.detach()  # an output that its own graph held would never be freed

    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = forward()
    del output  # kept until here, so that no storage's address is reused
    return sum(storage.nbytes() for storage in saved.values())


def fitting(images: int, each: int, free: int) -> Chunk | None:
    """How a batch of `images` fits into `free` bytes, if every kept image takes `each`; None: in one piece.

    Raises ConfigError if not even one image fits.
    """
    held = int(SPARE * free) // each
    if held >= images:
        return None
    if held < 1:
        raise ConfigError(
            f"an image needs {each / 2**30:.1f} GiB of activations, and {max(free, 0) / 2**30:.1f} GiB of the GPU are "
            "free: use a smaller batch, or hardware.devices"
        )
    return Chunk(min(held, images - held), held)


class Learner(L.LightningModule):
    """A LightningModule whose step t is a pure function of (weights, optimiser state, seed, t).

    `first_step` is where a resumed run starts; the trainer counts from there. Drop path draws from torch's global
    generator, which is reseeded at every step, equally in every process: nothing has to be restored, and several
    processes draw for the batch they share (`sept.backbones.networks`).

    A step does not synchronise with the device: values of curves, and whether losses are finite, stay there until
    `take_recorded` and `require_finite_losses` fetch them.
    """

    statistics: Statistics = IMAGENET  # what the network's images are normalised by
    chunk: Chunk | None = None  # how the encoder takes a batch; None: as a whole
    compile_networks: bool = False  # by torch.compile

    def __init__(self, *, seed: int, steps: int) -> None:
        super().__init__()
        self.seed, self.steps, self.first_step = seed, steps, 0
        self._compiled: dict[Callable, Callable] = {}
        self._recorded: dict[str, Tensor | float] = {}
        self._losses: dict[int, Tensor] = {}  # by step, not checked yet

    def use_compile(self, on: bool) -> None:
        """Sets whether networks, and other functions that can be, are compiled from now on."""
        self.compile_networks = on

    def chunk_that_fits(self, images: int) -> Chunk | None:
        """How to encode a batch of `images` so that a step fits into the memory of its GPU; None: as a whole."""
        return None

    @property
    def step(self) -> int:
        """The optimiser step that runs next, counted from the start of the whole training."""
        return self.first_step + self.trainer.global_step

    def compiled(self, function: Callable) -> Callable:
        """`function`, by torch.compile if this learner is to be compiled."""
        if not self.compile_networks:
            return function
        if function not in self._compiled:
            self._compiled[function] = torch.compile(function)
        return self._compiled[function]

    def lr(self, step: int, scale: float = 1.0) -> float:
        """The rate of a parameter group whose peak is `scale` times the learner's."""
        raise NotImplementedError

    def weight_decay(self, step: int) -> float | None:
        """The decay of the decayed groups at this step; None leaves them as they are."""
        return None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(fold(self.seed, "step", self.step))
        decay = self.weight_decay(self.step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr(self.step, group["scale"])
            if decay is not None and group["decays"]:
                group["weight_decay"] = decay
        self.record({"lr": self.lr(self.step), "step": self.step})

    @property
    def recording(self) -> bool:
        """Whether the curves get a point at this step."""
        return (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def record(self, values: Mapping[str, Tensor | float]) -> None:
        """Keeps values, scalars, for the curves; does nothing at steps without a point."""
        if self.recording:
            plain = ((name, value.detach() if isinstance(value, Tensor) else value) for name, value in values.items())
            self._recorded |= dict(plain)

    def take_recorded(self) -> dict[str, float]:
        """The values recorded since the last call. Synchronises with the device once."""
        recorded, self._recorded = self._recorded, {}
        there = {name: value for name, value in recorded.items() if isinstance(value, Tensor)}
        values = torch.stack([value.double() for value in there.values()]).tolist() if there else []
        return {**recorded, **dict(zip(there, values, strict=True))}  # type: ignore[dict-item]

    def finite(self, loss: Tensor) -> Tensor:
        """Returns `loss` and registers it for the finiteness check: at once on a CPU, later on other devices."""
        self._losses[self.step] = loss.detach()
        if loss.device.type == "cpu":
            self.require_finite_losses()
        return loss

    def require_finite_losses(self) -> None:
        """Raises NonFiniteError for the first loss since the last call that is not finite. Called before a checkpoint
        is written, so a NaN never gets into one. Synchronises with the device once."""
        losses, self._losses = self._losses, {}
        values = torch.stack([*losses.values()]).tolist() if losses else []
        for step, value in zip(losses, values, strict=True):
            if not math.isfinite(value):
                raise NonFiniteError(
                    f"the loss of step {step} is {value}; lower the learning rate ({self.lr(step):g} now)"
                )

    def adamw(self, groups: list[dict], **options: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=self.lr(0), fused=True, **options)


@contextmanager
def seeded_weights(seed: int, purpose: str) -> Iterator[None]:
    """Context manager for building networks: their initial weights depend only on (seed, purpose)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(seed, "weights", purpose))
        yield


def clip_each(parameters: Iterator[nn.Parameter] | list[nn.Parameter], limit: float) -> None:
    """Clips the gradient norm of every tensor separately (iBOT, DINO), not their joint norm."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(grads))
    torch._foreach_mul_(grads, list((limit / (norms + 1e-6)).clamp(max=1.0).unbind()))
