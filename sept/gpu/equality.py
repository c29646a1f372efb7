"""Compares the device's results with the CPU's.

A simulated device computes on the CPU: there everything is bitwise equal except views, which devices augment with other
operators, and trainings on them. A card sums in another order, so floats are compared within a tolerance, and discrete
results (lists) exactly.
"""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from sept.backbones import Backbone
from sept.backbones.networks import build
from sept.backbones.saved import BACKBONE, WEIGHTS
from sept.backbones.weights import save_backbone
from sept.data.images import ImageError, Pixels
from sept.gpu import micro
from sept.gpu.card import Card
from sept.gpu.cases import BATCH, CASES, SEED, STEPS, Case, case
from sept.gpu.checks import Trained, differing, resumed, trained
from sept.gpu.report import Result
from sept.gpu.runner import Check
from sept.methods.ibot.learner import IBot
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.retrieval import compact, index
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.index import search
from sept.retrieval.select import Ranked
from sept.retrieval.shards import Skip
from sept.retrievers.encoder import Encoder
from sept.retrievers.settings import Preprocess
from sept.runtime.hardware import Runtime
from sept.training.learner import Learner

VIEWED = ("MoBy", "iBOT")  # learn from augmented views
CLOSE, SHARE_CLOSE = 1e-4, 99.9  # of normalised values of views; percent
VECTOR_CLOSE = 1e-5
FIRST_LOSS = 1e-5  # relative
MOVED = 0.1  # tolerance of weights relative to their change in training: rounding on a CPU gave 0.024 (MoBy)
CHUNK = 3
FEW, FEWER = 8, 4  # steps on a slow simulated device: of a training, and of one in chunks
LOST = 7  # index of an unreadable image
FULL_VIT = Backbone("vit_small_patch16_224")


def views(card: Card) -> list[Result]:
    """Colour, blur and the rest of MoBy's two views and iBOT's crops, of noise."""
    moby = MoBy(micro.moby(side=card.size(224, micro.SIDE)), micro.SWIN, seed=SEED, length=Length(1, 1))
    ibot = IBot(micro.ibot(), micro.VIT, seed=SEED, length=Length(1, 1))
    results = []
    for name, seen in (("MoBy", moby.views), ("iBOT", ibot.views)):
        noise = torch.Generator().manual_seed(0)
        crops = [
            torch.randint(0, 256, (32, 3, side, side), dtype=torch.uint8, generator=noise) for side, _ in seen.crops
        ]
        expected = seen.colour(crops, 1)
        with card.on():
            found = [view.cpu() for view in seen.colour([crop.cuda() for crop in crops], 1)]
        near = torch.cat([((a - b).abs() <= CLOSE).flatten() for a, b in zip(found, expected, strict=True)])
        share = 100 * near.double().mean().item()
        passes = f">= {SHARE_CLOSE} % of values within {CLOSE:g}"
        results.append(Result(f"views of {name}", share >= SHARE_CLOSE, f"{share:.4f} %", passes))
    return results


def vectors(card: Card) -> Result:
    """The retriever's vectors of some images, one of which cannot be read, in float32."""
    model, side = card.size(FULL_VIT, micro.VIT), card.size(224, micro.SIDE)
    folder = card.folder / "retriever"
    save_backbone(build(model.name, model.args), folder / BACKBONE, model.name, model.args, {})
    drawn = micro.images(20)

    def read(i: int) -> Pixels:
        if i == LOST:
            raise ImageError("lost")
        return drawn[i]

    def made(runtime: Runtime) -> tuple[np.ndarray, Any]:
        return Encoder(folder / BACKBONE / WEIGHTS, model, "cls_mean", Preprocess(side, side, True), runtime, 6)(
            read, range(len(drawn))
        )

    expected, lost = made(card.cpu())
    with card.on():
        found, same = made(card.runtime())
    gap = float(np.abs(found - expected).max()) if lost == same else float("inf")
    return Result(
        f"vectors of {model.name}", gap <= VECTOR_CLOSE, f"{gap:.1e}", f"largest difference <= {VECTOR_CLOSE:g}"
    )


def lists(card: Card, kind: str) -> Result:
    """Ranked lists of random vectors, some of which are missing."""
    rows, dim, depth = card.size(50_000, 6_000), card.size(768, 32), card.size(200, 50)
    rng = np.random.default_rng(6)
    features = store(card.folder / "lists", unit(rng, rows, dim), rows // 3, [LOST, rows // 2])
    queries, copy = unit(rng, 30, dim), None
    if kind == "int8":
        compact.build(card.folder / "int8", features)
        copy = compact.Compact.open(card.folder / "int8", features)
    expected = search(queries, features, depth)
    sample = rows // index.SAMPLED_POOL if kind == "guessed" else index.SAMPLE_ROWS
    with patch.object(index, "SAMPLE_ROWS", sample), card.on():
        found = search(queries, features, depth, "cuda", compact=copy)
    off = unequal(found, expected)
    return Result(f"lists, {kind}", off == 0, f"{off} of {len(queries)} lists differ", "all equal, rows and scores")


def unequal(found: Ranked, expected: Ranked) -> int:
    same = (found.rows == expected.rows).all(axis=1) & (found.scores == expected.scores).all(axis=1)
    return int((~same).sum())


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """(rows, dim) float32 of unit length."""
    drawn = rng.standard_normal((rows, dim), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def store(folder: Path, rows: np.ndarray, per_shard: int, lost: list[int]) -> Features:
    """A feature store of the rows; `lost` have no vector."""
    rows[lost] = 0
    skips = [Skip(row, f"{row}.jpg", "lost") for row in lost]
    embed(folder, len(rows), lambda a, b: (rows[a:b], [s for s in skips if a <= s.row < b]), 1.0, per_shard)
    return Features.open(folder)


def steps(card: Card, name: str) -> list[Result]:
    """STEPS float32 steps of a learner."""
    count = card.size(STEPS, FEW)
    expected = on_cpu(card, name, count)
    exact = False if name in VIEWED else None
    return compared(card, f"{count} steps of {name}", case(name, card), whole(card, name, count), expected, exact)


def on_cpu(card: Card, name: str, count: int) -> Trained:
    made = case(name, card)
    learner = made.make()
    learner.steps = count
    return trained(learner, made.batches(learner), fresh(card), card.cpu())


def on_card(card: Card, made: Case, count: int, chunk: int | None = None) -> Trained:
    """`count` steps of the case on the device."""
    learner = made.make()
    learner.steps = count
    with card.on():
        return trained(learner, made.batches(learner), fresh(card), card.runtime(chunk=chunk))


def whole(card: Card, name: str, count: int) -> Trained:
    """The same with its batches in one piece; done once."""
    key = f"{count} steps of {name}"
    if key not in card.kept:
        card.kept[key] = on_card(card, case(name, card), count)
    done: Trained = card.kept[key]
    return done


def fresh(card: Card) -> Path:
    return Path(tempfile.mkdtemp(dir=card.folder))


def compared(
    card: Card, name: str, made: Case, found: Trained, expected: Trained, exact: bool | None = None
) -> list[Result]:
    """Compares losses and weights. exact: bitwise; None: only on a simulated device."""
    losses = expected.losses[-len(found.losses) :]
    gaps = [abs(a - b) / abs(b) for a, b in zip(found.losses, losses, strict=True)]
    if exact is None:
        exact = not card.real
    if exact:
        off = len(differing(found, expected))
        equal = found.losses == losses and not off
        return [Result(name, equal, f"{off} tensors, {sum(map(bool, gaps))} losses differ", "equal to the bit")]
    share = moved(made, found, expected)
    within = gaps[0] <= FIRST_LOSS and max(gaps) <= made.tolerance
    return [
        Result(
            f"{name}: losses",
            within,
            f"{gaps[0]:.1e} at first, {max(gaps):.1e} at most",
            f"<= {FIRST_LOSS:g} and {made.tolerance:g} of the loss",
        ),
        Result(f"{name}: weights", share <= MOVED, f"{share:.1e}", f"off by <= {MOVED:g} of what training moved"),
    ]


def moved(made: Case, found: Trained, expected: Trained) -> float:
    """The difference of weights relative to their change from the start (norms of all as one vector).

    Where a gradient is pure rounding noise, as for a bias before a BatchNorm, AdamW takes a full step in either
    direction; so weights are not compared one by one.
    """
    start = {name: value.detach().double().cpu() for name, value in made.make().named_parameters()}
    squares = torch.zeros(2, dtype=torch.float64)
    for name, value in start.items():
        there = expected.state[name].double()
        squares += torch.stack([(found.state[name].double() - there).square().sum(), (there - value).square().sum()])
    off, way = squares.sqrt().tolist()
    return float(off / way)


def chunked(card: Card, name: str) -> list[Result]:
    """Steps whose batch is encoded in chunks, against those of the whole batch, both on the device."""
    made = case(name, card)
    count = card.size(STEPS, FEWER)
    found, expected = on_card(card, made, count, CHUNK), whole(card, name, count)
    label = f"{name} in chunks of {CHUNK} of {BATCH}"
    return compared(card, label, made, found, expected, exact=False)


def resume(card: Card, name: str) -> list[Result]:
    """A training stopped by a signal and resumed, against an uninterrupted one."""
    made, count = case(name, card), card.size(STEPS, FEW)

    def make() -> Learner:
        learner = made.make()
        learner.steps = count
        return learner

    expected = whole(card, name, count)
    with card.on():
        found = resumed(make, made.batches, fresh(card), card.runtime(), after=count // 2)
    return compared(card, f"{name} stopped and resumed", made, found, expected)


CHECKS: Mapping[str, Check] = {
    "views": views,
    "vectors": vectors,
    **{f"lists, {kind}": partial(lists, kind=kind) for kind in ("exact", "int8", "guessed")},
    **{f"steps of {name}": partial(steps, name=name) for name in CASES},
    **{f"{name} in chunks": partial(chunked, name=name) for name in VIEWED},
    "resume": partial(resume, name="MoBy"),
}
