"""Results without training a backbone: logistic regression and nearest class mean on frozen features, and the floor.

The floor is chance, and nearest neighbour on raw pixels. The regression uses torch's L-BFGS, so that it runs on the
features' device without a further dependency. Shapes: N shots, M test images, D width of the pooled feature, K classes
that have a shot.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sept.backbones import Backbone, Statistics
from sept.backbones.networks import build, statistics
from sept.backbones.weights import load_backbone
from sept.data.labelled import Tests, batches_of, read_image
from sept.data.loading import loader
from sept.data.tasks.task import Example, Task
from sept.data.transforms import normalise
from sept.errors import NonFiniteError
from sept.runtime.hardware import Runtime
from sept.runtime.threads import in_order
from sept.training.learner import seeded_weights
from sept.transfer.training import FinetuneJob

STRENGTHS = (
    1e-3,
    1e-2,
    1e-1,
    1.0,
    10.0,
    100.0,
)  # C of scikit-learn: the loss of a shot against half the squared weights
ALONE = 0.1  # C if no class has a second shot to hold out
FOLDS = 5  # of the cross-validation, at most
SHOTS_TRIED = 1_000  # about this many in it: for a larger task whole classes, spread evenly
ITERATIONS, HISTORY = 50, 10  # of L-BFGS: maximum, and history size
GRADIENT, CHANGE = 1e-5, 1e-7  # tolerances at which it stops
FLAT = 1e-6  # of the largest standard deviation of a feature: below it is rounding noise
SIDE = 32  # pixels of the squashed grey images
MOST = 4_000  # shots, and test images, spread evenly over more: decoding them takes seconds
BLOCK = 1_024  # test images per product
ONE_COLOUR = 1e-3  # grey levels added to the deviation, for an image of one colour


def probe(job: FinetuneJob, task: Task, shots: Sequence[Example]) -> dict[str, Any]:
    """Tests the frozen backbone on all test images of the task: `finetune=probe`. Returns the facts."""
    recipe, backbone = job.recipe, job.backbone
    model = build(backbone.name, backbone.args, side=recipe.side)
    if job.start is not None:
        load_backbone(model, job.start)
    tests = loader(Tests(task.test, recipe.side), batches_of(len(task.test)), job.runtime.workers)
    found = frozen_scores(model, backbone, Tests(shots, recipe.side), tests, job.runtime)
    if job.start is not None:
        found |= untrained_scores(job, job.seed, Tests(shots, recipe.side), tests)
    return {
        "metric": "top1",
        "score": found["probe_top1"],
        "top1": found["probe_top1"],
        **found,
        **floor(shots, task.test, job.runtime.threads),
        "shots": len(shots),
        "tests": len(task.test),
        "classes": len(task.classes),
        "images_seen": len(shots),
        "flops": recipe.flops(backbone, len(task.classes)) * len(shots),
    }


def frozen_scores(
    model: Any, backbone: Backbone, shots: Tests, tests: Iterable[Mapping[str, Any]], runtime: Runtime
) -> dict[str, float]:
    """probe_top1 and frozen_top1, in percent, and probe_strength, of the features that the model starts from.

    backbone: for the normalisation of its images. Leaves the model on the runtime's device, in eval mode. Raises
    NonFiniteError if a feature is not finite.
    """
    runtime.configure_torch()
    device = torch.device(runtime.accelerator)
    model.to(device).eval()
    by = statistics(backbone)
    features, labels = _features(model, loader(shots, batches_of(len(shots.examples)), 0), by, device)
    test, test_labels = _features(model, tests, by, device)
    known, targets = labels.unique(return_inverse=True)
    scaled, scaled_test = standardise(features, test)
    strength = choose_strength(scaled.to(device), targets.to(device))
    weights = fit(scaled.to(device), targets.to(device), strength).cpu()
    hits = known[_logits(weights, scaled_test).argmax(dim=1)] == test_labels
    return {
        "probe_top1": 100 * hits.float().mean().item(),
        "probe_strength": strength,
        "frozen_top1": nearest_class_mean(features, labels, test, test_labels),
    }


def untrained_scores(job: FinetuneJob, seed: int, shots: Tests, tests: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """probe_untrained: what `frozen_scores` calls probe_top1, of the same network with random weights."""
    with seeded_weights(seed, "classifier"):
        model = build(job.backbone.name, job.backbone.args, side=job.recipe.side)
    return {"probe_untrained": frozen_scores(model, job.backbone, shots, tests, job.runtime)["probe_top1"]}


@torch.no_grad()  # in inference mode moving to a device would make the weights untrainable
def _features(
    model: Any, batches: Iterable[Mapping[str, Any]], by: Statistics, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pooled features (n, D) float32 and labels (n,), on the CPU. by: normalisation of the images."""
    features, labels = [], []
    for batch in batches:
        tokens = model.forward_features(normalise(batch["images"].to(device), by))
        features.append(model.forward_head(tokens, pre_logits=True).float().cpu())
        labels.append(batch["labels"])
    joined = torch.cat(features)
    if not joined.isfinite().all():
        raise NonFiniteError("the backbone's features are not finite: lower the learning rate it was trained with")
    return joined, torch.cat(labels)


def standardise(features: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Scales each feature to mean 0 and deviation 1 over the shots (N, D); a constant feature becomes 0."""
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = torch.where(deviation > FLAT * deviation.max(), deviation, torch.inf)
    return (features - mean) / scale, (test - mean) / scale


def choose_strength(features: Tensor, targets: Tensor) -> float:
    """The strength (C) with the lowest cross-validated log loss; ALONE if each class has one shot.

    features (N, D), standardised; targets (N,), 0 to K - 1. From strong to weak regularisation, until the loss rises.
    """
    features, targets = _some_classes(features, targets)
    folds = stratified_folds(targets)
    parts = [(folds != fold, folds == fold) for fold in range(int(folds.max()) + 1)]
    if len(parts) < 2:
        return ALONE
    best, least = ALONE, float("inf")
    starts: list[Tensor | None] = [None] * len(parts)
    for strength in STRENGTHS:
        loss = 0.0
        for place, (kept, held) in enumerate(parts):
            weights = starts[place] = fit(
                features[kept], targets[kept], strength, starts[place], int(targets.max()) + 1
            )
            loss += F.cross_entropy(_logits(weights, features[held]), targets[held], reduction="sum").item()
        if loss >= least:
            break
        best, least = strength, loss
    return best


def _some_classes(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """For many shots those of some classes, about SHOTS_TRIED: the cost grows with shots times classes."""
    every = -(-len(targets) // SHOTS_TRIED)
    chosen = (targets % every == 0) if int(targets.max()) >= 2 * every else torch.ones_like(targets, dtype=torch.bool)
    return features[chosen], targets[chosen].unique(return_inverse=True)[1]


def stratified_folds(targets: Tensor) -> Tensor:
    """The fold in which each of targets (N,) is held out, int64, FOLDS at most: the shots of a class are assigned to
    the folds in turn. -1, never held out, for the only shot of a class."""
    labels = targets.cpu().numpy()
    counts = np.bincount(labels)
    by_class = np.argsort(labels, kind="stable")
    first = np.repeat(np.cumsum(counts) - counts, counts)
    folds = np.empty(len(labels), dtype=np.int64)
    folds[by_class] = (np.arange(len(labels)) - first) % FOLDS
    folds[counts[labels] == 1] = -1
    return torch.from_numpy(folds).to(targets.device)


def fit(
    features: Tensor, targets: Tensor, strength: float, start: Tensor | None = None, classes: int | None = None
) -> Tensor:
    """Weights (D + 1, K), the last row the bias, that minimise the sum of log losses times `strength` plus half the
    squared weights, without the bias: scikit-learn's objective. start: initial weights, else zeros."""
    if start is None:
        start = features.new_zeros(features.shape[1] + 1, classes or int(targets.max()) + 1)
    weights = start.clone().requires_grad_()
    penalty = 1 / (2 * strength * len(features))
    optimiser = torch.optim.LBFGS(
        [weights],
        max_iter=ITERATIONS,
        tolerance_grad=GRADIENT,
        tolerance_change=CHANGE,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(_logits(weights, features), targets) + penalty * weights[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _logits(weights: Tensor, features: Tensor) -> Tensor:
    return torch.addmm(weights[-1], features, weights[:-1])


@torch.no_grad()
def nearest_class_mean(features: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Top-1 in percent of the nearest class mean by cosine around the mean of the shots: nothing is trained.

    features (B, D) and labels (B,) of the few shots, test likewise; a class without a shot is never predicted.
    """
    features, test = nn.functional.normalize(features, dim=1), nn.functional.normalize(test, dim=1)
    center = features.mean(dim=0)
    features, test = features - center, test - center
    known = labels.unique()
    means = torch.stack([features[labels == label].mean(dim=0) for label in known])
    predicted = known[(test @ nn.functional.normalize(means, dim=1).T).argmax(dim=1)]
    return 100 * (predicted == test_labels).float().mean().item()


def floor(shots: Sequence[Example], tests: Sequence[Example], threads: int) -> dict[str, float]:
    """chance: top-1 in percent of always naming the class with most test images, 1 / classes if all have as many.
    floor: top-1 in percent of the nearest shot by the correlation of grey pixels. Raises DataError for an image that
    cannot be read."""
    labels = np.array([example.label for example in tests])
    known, asked = _spread(shots), _spread(tests)
    predicted = nearest(pixels(known, threads), pixels(asked, threads))
    hits = np.array([known[i].label for i in predicted]) == [example.label for example in asked]
    return {"chance": 100 * float(np.bincount(labels).max()) / len(labels), "floor": 100 * float(hits.mean())}


def pixels(examples: Sequence[Example], threads: int) -> npt.NDArray[np.float32]:
    """(n, SIDE * SIDE): grey pixels of each image, of mean 0 and length 1; of one colour: zeros."""

    def one(example: Example) -> npt.NDArray[np.float32]:
        return standardised(read_image(example, SIDE))

    return np.stack([*in_order(one, examples, threads)])


def standardised(image: np.ndarray) -> npt.NDArray[np.float32]:
    """(SIDE * SIDE,): grey pixels of uint8 (H, W, 3), of mean 0 and length 1; of one colour: zeros."""
    grey = Image.fromarray(image).convert("L").resize((SIDE, SIDE))
    values = np.asarray(grey, dtype=np.float32).ravel()
    values = (values - values.mean()) / (values.std() + ONE_COLOUR)
    length = float(np.linalg.norm(values))
    return values / length if length else values


def nearest(known: np.ndarray, asked: np.ndarray) -> npt.NDArray[np.int64]:
    """(M,): the place of the known vector (N, D) with the largest product with each asked one (M, D); ties: the
    first."""
    parts = [(asked[start : start + BLOCK] @ known.T).argmax(axis=1) for start in range(0, len(asked), BLOCK)]
    return np.concatenate(parts)


def _spread(examples: Sequence[Example]) -> Sequence[Example]:
    if len(examples) <= MOST:
        return examples
    return [examples[i] for i in np.linspace(0, len(examples) - 1, MOST).astype(int)]
