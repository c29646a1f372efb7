"""The memory of a full-size training step, counted without a GPU.

The learners' own steps run on tensors without data, in bf16 autocast with what CUDA's operators save; every storage is
counted from its allocation until it is freed. Not counted: the CUDA context (0.5 to 0.8 GiB), workspaces of libraries,
fragmentation in the allocator, and the augmentation that turns crops into views.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sept.backbones import Backbone
from sept.gpu.largest import OBJECTS, largest_counts
from sept.gpu.live import Live, cuda_operators
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.learner import ADAM, GRADIENTS, PretrainingLearner
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.recipe import Length
from sept.runtime.named import load
from sept.training.learner import Chunk, Learner, fitting
from sept.transfer.recipes import Classify, Detect, Segment

GIB = 2**30
SWIN, VIT = Backbone("swin_tiny_patch4_window7_224"), Backbone("vit_small_patch16_224", statistics="imagenet")
DETECTED = (800, 1333)  # pixels, shorter and longer side: the largest of the recipe
CLASSES = {"classify": 102, "detect": 20, "segment": 150}  # of Flowers-102, VOC and ADE20K
LEARNERS = {
    "moby": "sept.methods.moby.learner:MoBy",
    "ibot": "sept.methods.ibot.learner:IBot",
    "classify": "sept.transfer.classify:Classifier",
    "detect": "sept.transfer.detect:Detector",
    "segment": "sept.transfer.segment:Segmenter",
}
MODELS, EPOCHS = {"moby": SWIN, "ibot": VIT}, {"moby": 300, "ibot": 800}
STEPS = 1000  # in an epoch
STEP = 10 * STEPS + 1  # the counted step: after all warm-ups, and without logging
LOG_EVERY = 10


def recipe(kind: str) -> Any:
    """The published full-size recipe of "moby", "ibot", "classify", "detect" or "segment", as conf/ has it."""
    recipes: dict[str, Callable[[], Any]] = {
        "moby": lambda: MoByRecipe(name="moby_swin_t"),
        "ibot": lambda: IBotRecipe(name="ibot_vit_s16", batch_size=1024, drop_path_rate=0.1),
        "classify": lambda: Classify(name="classify"),
        "detect": lambda: Detect(name="detect", epochs=36, batch_size=16, drop_path_rate=0.2, test_every=6),
        "segment": lambda: Segment(
            name="segment", epochs=127, batch_size=16, weight_decay=0.01, drop_path_rate=0.3, test_every=13
        ),
    }
    return recipes[kind]()


def build_learner(kind: str, recipe: Any, model: Backbone | None = None, classes: int | None = None) -> Learner:
    """The learner of a recipe with fresh weights; `model` and `classes` as of the full size."""
    learner = load(LEARNERS[kind])
    if kind in EPOCHS:
        length = Length(EPOCHS[kind] * STEPS, STEPS)
        return learner(recipe, model or MODELS[kind], seed=0, length=length)  # type: ignore[no-any-return]
    return learner(recipe, model or SWIN, classes or CLASSES[kind], None, seed=0, steps_per_epoch=STEPS)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class StepMemory:
    """Allocated bytes in one training step, with the previous step's gradients and the optimiser's state allocated.

    Operators are those that run a kernel: the host launches them one by one.
    """

    kind: str
    batch: int  # images
    weights: int  # and buffers
    trained: int  # gradients and the optimiser's state
    after_encoder: int  # when the encoder that learns has given its last features
    after_forward: int
    peak_forward: int
    peak_backward: int
    peak_optimiser: int
    forward_operators: int
    backward_operators: int
    optimiser_operators: int

    @property
    def peak(self) -> int:
        return max(self.peak_forward, self.peak_backward, self.peak_optimiser)

    @property
    def operators(self) -> int:
        return self.forward_operators + self.backward_operators + self.optimiser_operators


def step_memory(
    kind: str,
    batch: int,
    *,
    chunk: Chunk | None = None,
    given: Any = None,
    model: Backbone | None = None,
    classes: int | None = None,
    sides: tuple[int, int] = DETECTED,
) -> StepMemory:
    """Counts a step on `batch` images of "moby", "ibot", "classify", "detect" or "segment".

    chunk: how "moby" and "ibot" encode the batch; given: a recipe other than the published one; model and classes as of
    `build_learner`; sides: pixels of the shorter and longer side of each image that the detector sees.
    """
    learner: Any = build_learner(kind, given or recipe(kind), model, classes).train()
    learner.chunk = chunk
    with counting() as live:
        without_data(learner)
        weights = live.bytes
        optimizer = prepared_optimizer(learner)
        trained = live.bytes - weights
        data = images_of(kind, learner, batch, sides)
        found = largest_counts(learner.model, batch, sides, live) if kind == "detect" else nullcontext()
        with found:
            return StepMemory(kind, batch, weights, trained, **_counted(learner, optimizer, data, live))


def chunk_within(
    limit: int, kind: str, batch: int, *, given: Any = None, model: Backbone | None = None
) -> Chunk | None:
    """How `hardware.chunk=auto` has a batch of "moby" or "ibot" encoded where tensors may take `limit` bytes."""
    learner = build_learner(kind, given or recipe(kind), model).train()
    assert isinstance(learner, PretrainingLearner)
    with counting() as live:
        without_data(learner)
        free = limit - live.bytes - learner.bytes_beside(batch)
        free -= (GRADIENTS + ADAM) * sum(each.nbytes for each in learner.parameters() if each.requires_grad)
        one, two = (_held(learner, images, live) for images in (1, 2))
    return fitting(batch, two - one, free)


def _held(learner: PretrainingLearner, images: int, live: Live) -> int:
    """Allocated bytes after encoding blank images."""
    before = live.bytes
    with torch.autocast("cpu", torch.bfloat16):
        features = learner.encode_blank(images)
    held = live.bytes - before
    del features
    return held


@contextmanager
def counting() -> Iterator[Live]:
    """Context manager: tensors have no data and are counted, with the operators that CUDA would run.

    Norms of all gradients are taken at once, as on CUDA, and not one by one, as on CPUs.
    """
    norms = patch("torch.nn.utils.clip_grad._has_foreach_support", lambda *_: True)
    with norms, FakeTensorMode(allow_non_fake_inputs=True), Live() as live, cuda_operators():
        yield live


def _counted(learner: Any, optimizer: torch.optim.Optimizer, data: Any, live: Live) -> dict[str, int]:
    """One step in Lightning's order: the previous gradients are freed between forward and backward."""
    found: dict[str, int] = {}
    watched = _encoder(learner).register_forward_hook(lambda *_: found.update(after_encoder=live.bytes))

    def part(name: str) -> None:
        found[f"peak_{name}"], found[f"{name}_operators"] = live.restart()

    def closure() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            loss: Tensor = learner.training_step(data, 0)
        watched.remove()
        found["after_forward"] = live.bytes
        part("forward")
        optimizer.zero_grad()
        loss.backward()
        part("backward")
        learner.on_before_optimizer_step(optimizer)
        return loss

    learner.on_train_batch_start(data, 0)
    live.restart()
    learner.optimizer_step(0, 0, optimizer, closure)
    part("optimiser")
    return found


def without_data(module: nn.Module) -> None:
    """Put tensors of the same shapes and types, made under the modes that are on, in place of weights and buffers."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                part._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def prepared_optimizer(learner: Any) -> torch.optim.Optimizer:
    """The learner's optimiser after a step, whose gradients are still there; a trainer of one process stands by."""
    trainer = SimpleNamespace(world_size=1, global_step=STEP, log_every_n_steps=LOG_EVERY, is_global_zero=True)
    trainer.strategy = SimpleNamespace(reduce=lambda value, **_: value)
    learner._trainer = trainer
    learner.log = learner.log_dict = lambda *_, **__: None
    optimizer = learner.configure_optimizers()
    trainer.optimizers = [optimizer]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    return optimizer  # type: ignore[no-any-return]


def images_of(kind: str, learner: Any, batch: int, sides: tuple[int, int]) -> dict[str, Any]:
    """A batch as the learner's loader gives it: uint8 images or crops (B, 3, H, W), and what belongs to them."""
    if kind in ("moby", "ibot"):
        crops = [_images(batch, side, side) for side, _ in learner.views.crops]
        learner.views.colour = lambda crops, *_: [torch.empty(crop.shape) for crop in crops]
        if kind == "moby":
            return {"crops": crops}
        rows, columns = learner.views.grid
        return {"crops": crops, "masks": [torch.empty(batch, rows * columns, dtype=torch.bool) for _ in range(2)]}
    if kind == "detect":
        boxes = [{"boxes": torch.empty(OBJECTS, 4), "labels": torch.empty(OBJECTS).long()} for _ in range(batch)]
        return {"images": list(_images(batch, *sides).unbind()), "targets": boxes}
    side = learner.recipe.side
    images = _images(batch, side, side)
    if kind == "segment":
        return {"images": images, "masks": torch.empty(batch, side, side, dtype=torch.uint8)}
    return {"images": images, "labels": torch.empty(batch, dtype=torch.long)}


def _images(batch: int, height: int, width: int) -> Tensor:
    return torch.empty(batch, 3, height, width, dtype=torch.uint8)


def _encoder(learner: Any) -> Any:
    """The module whose output are the features of the encoder that learns, or the last of these."""
    from sept.methods.ibot.learner import IBot
    from sept.transfer.detect import Detector
    from sept.transfer.segment import Segmenter

    if isinstance(learner, IBot):
        return learner.student["backbone"].norm
    if isinstance(learner, PretrainingLearner):
        return learner.encoder
    if isinstance(learner, Detector):
        return learner.model.backbone.trunk
    return learner.model.trunk if isinstance(learner, Segmenter) else learner.model


COLUMNS = (
    *("step", "images", "peak", "limit", "fits", "weights", "gradients, optimiser", "after the encoder"),
    *("after forward", "peak forward", "peak backward", "peak optimiser", "operators forward", "backward", "optimiser"),
)


def heading() -> str:
    """Of a Markdown table of `row`s, in GiB and operators."""
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def row(what: str, step: StepMemory, limit: float) -> str:
    """A line of the table; limit: GiB that the peak must not pass."""
    sizes = (step.weights, step.trained, step.after_encoder, step.after_forward)
    peaks = (step.peak_forward, step.peak_backward, step.peak_optimiser)
    operators = (step.forward_operators, step.backward_operators, step.optimiser_operators)
    cells = [what, str(step.batch), gib(step.peak), f"{limit:g}", "yes" if step.peak <= limit * GIB else "no"]
    cells += [*map(gib, (*sizes, *peaks)), *(f"{number:,}" for number in operators)]
    return f"| {' | '.join(cells)} |"


def gib(size: int) -> str:
    """Bytes in GiB, to two places."""
    return f"{size / GIB:.2f}"
