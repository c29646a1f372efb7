"""Images per second: input, augmentation, device only, end to end, and embedding."""

import io
import os
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sept.backbones import Backbone
from sept.backbones.flops import forward_flops
from sept.backbones.networks import build
from sept.costs.peaks import TERA, peak
from sept.data.images import Pixels, decode
from sept.data.loading import Batches, loader
from sept.data.rng import numpy_rng
from sept.data.subset import Subset, write_subset
from sept.data.transforms import normalise
from sept.gpu import micro
from sept.gpu.card import Card, cores
from sept.gpu.memory import SWIN, VIT
from sept.gpu.report import Result
from sept.gpu.runner import Check
from sept.gpu.steps import AUTO, Steps, free_memory, sent
from sept.gpu.waits import waits
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.learner import PretrainingLearner
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.recipe import Length
from sept.methods.views import CroppedSubset
from sept.retrievers.encoder import EncodedViews, cls_mean
from sept.retrievers.settings import Preprocess
from sept.runtime.named import load
from sept.training.loop import train

PHOTOS = 48  # different images; a file of 500 x 375 pixels as ImageNet's, stored at 256 pixels
MOST_WORKERS = 16
LARGE, SMALL = (375, 500), (40, 40)
SPECTRUM, CONTRAST = 1.2, 55  # of photographs: the fall of amplitude with frequency; grey levels of deviation
BATCH = 256  # of embedding and decoding
RATE = "images/s"
WARM = 3  # steps and batches before the clock starts
MOST_WAITS = 2  # synchronisations per step
WAIT = "synchronizing CUDA operation"  # torch's warning
VITS = ("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224")


@dataclass(frozen=True)
class Job:
    """A self-supervised training: its recipe, and the FLOPs of one image."""

    recipe: MoByRecipe | IBotRecipe
    model: Backbone
    flops: float

    def learner(self) -> PretrainingLearner:
        return load(self.recipe.learner)(self.recipe, self.model, seed=0, length=Length(100_000, 1000))  # type: ignore[no-any-return]


def job(name: str, card: Card) -> Job:
    if name == "MoBy":
        model = card.size(SWIN, micro.SWIN)
        moby = card.size(MoByRecipe(name="moby_swin_t"), micro.moby(batch_size=16))
        return Job(moby, model, moby.flops(model))
    ibot = card.size(IBotRecipe(batch_size=64), micro.ibot(batch_size=16))
    model = card.size(VIT, micro.VIT)
    return Job(ibot, model, ibot.flops(model))


def photo(seed: int, height: int, width: int) -> Pixels:
    """uint8 (H, W, 3) noise with a photograph's spectrum, so that its JPEG decodes as slowly."""
    rng = numpy_rng(0, "photo", seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    waves = rng.standard_normal((3, *frequency.shape, 2)) @ [1, 1j] * frequency**-SPECTRUM
    planes = np.fft.irfft2(waves, (height, width))
    mixed = planes[:1] / planes[:1].std() + 0.2 * planes / planes.std()
    return np.clip(128 + CONTRAST * mixed, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def photos(card: Card) -> list[bytes]:
    """PHOTOS JPEG files, generated once."""
    if "photos" not in card.kept:
        card.kept["photos"] = [_jpeg(photo(seed, *card.size(LARGE, SMALL))) for seed in range(PHOTOS)]
    files: list[bytes] = card.kept["photos"]
    return files


def _jpeg(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def packed(card: Card, recipe: Any) -> Subset:
    """A packed selection that repeats the photos."""
    side = getattr(recipe, "store_side", Preprocess().resize if card.real else micro.SIDE)
    folder = card.folder / f"packed-{side}"
    if not folder.exists():
        folder.mkdir()
        drawn = [decode(data) for data in photos(card)]
        count = card.size(1024, PHOTOS)
        write_subset(folder, ((i, drawn[i % PHOTOS]) for i in range(count)), side)
    return Subset.open(folder)


def workers(card: Card) -> int:
    return min(MOST_WORKERS, cores()) if card.real else 0


class _Decoded:
    """Reads the photos repeatedly; picklable for data workers."""

    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def __call__(self, i: int) -> Pixels:
        return decode(self.files[i % len(self.files)])


def decoding(card: Card) -> Result:
    """From a JPEG to the encoder's view, with data workers."""
    views = card.size(Preprocess(), Preprocess(micro.SIDE, micro.SIDE, True))
    batch, count = card.size(BATCH, 32), card.size(40, 6)
    batches = [list(range(start * batch, (start + 1) * batch)) for start in range(count)]
    hands = max(1, workers(card))  # at least one on a simulated device, to test that workers start
    rate = loaded(loader(EncodedViews(_Decoded(photos(card)), views), batches, hands), batch, count)
    return Result("input of embedding: decode, resize", True, rate, text=f"{hands} workers", unit=RATE)


def cropping(card: Card, name: str) -> Result:
    """From the stored selection to crops, with data workers."""
    made = job(name, card)
    batch, count = made.recipe.batch_size, card.size(24 if name == "MoBy" else 60, 6)
    subset = packed(card, made.recipe)
    batches = Batches(CroppedSubset(subset, made.learner().views), len(subset), batch, 0)
    rate = loaded(batches.between(0, count, workers(card)), batch, count)
    return Result(f"input of {name}: crops", True, rate, text=f"{workers(card)} workers", unit=RATE)


def loaded(batches: Any, size: int, count: int) -> float:
    """Images per second of a running loader."""
    start = 0.0
    for done, _ in enumerate(batches, start=1):
        if done == WARM:
            start = time.perf_counter()
    return float((count - WARM) * size / (time.perf_counter() - start))


def augmenting(card: Card, name: str) -> Result:
    """Colour augmentation of views, on the device."""
    made = job(name, card)
    views, crops = made.learner().views, _batch(card, made)["crops"]
    with card.on():
        seconds = card.seconds(partial(views.colour, sent(crops), 1))
        free_memory()
    return Result(f"augmentation of {name}", True, made.recipe.batch_size / seconds, text="device alone", unit=RATE)


def _batch(card: Card, made: Job) -> dict[str, Any]:
    """One batch as the loader gives it."""
    subset = packed(card, made.recipe)
    batches = Batches(CroppedSubset(subset, made.learner().views), len(subset), made.recipe.batch_size, 0)
    return dict(next(iter(batches.between(0, 1, 0))))


def stepping(card: Card, name: str) -> list[Result]:
    """Whole steps on a batch that stays on the device, and their share of the card's peak."""
    made = job(name, card)
    learner, batch = made.learner(), _batch(card, made)
    with card.on():
        free_memory()
        steps = Steps(learner, batch, card.autocast, AUTO)
        steps()
        rate = made.recipe.batch_size / card.seconds(steps)
        del steps, learner
        free_memory()
    label, text = f"device alone, {name}", f"{card.fast}, batch {made.recipe.batch_size}"
    return [Result(label, True, rate, text=text, unit=RATE), *share_of_peak(card, label, rate * made.flops)]


def share_of_peak(card: Card, name: str, flops: float) -> list[Result]:
    """Of FLOP/s counted by `sept.backbones.flops`; nothing without a card."""
    if not card.real:
        return []
    label, most = f"{name}: share of peak", peak(card.name)
    if most is None or not card.bf16:
        text = f"the peak of {card.name} in bf16 is not in our table; {flops / TERA:.3g} TFLOP/s"
        return [Result(label, None, text=text)]
    text = f"{flops / TERA:.3g} of {most / TERA:g} TFLOP/s"
    return [Result(label, True, 100 * flops / most, text=text, unit="%")]


class Clock(L.Callback):
    """Times the steps from the end of step WARM to that of the last one, synchronised at both."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.start, self.seconds = steps, 0, 0.0, 0.0

    @staticmethod
    def timed(steps: int) -> int:
        """How many steps that is."""
        return steps - WARM

    def on_train_batch_end(self, *args: Any) -> None:
        self.done += 1
        if self.done in (WARM, self.steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.start
            self.start = time.perf_counter()


def whole(card: Card, name: str) -> Result:
    """Loader, copies, augmentation and steps, as a training runs them."""
    made = job(name, card)
    steps, learner, subset = card.size(14 if name == "MoBy" else 40, 5), made.learner(), packed(card, made.recipe)
    learner.steps = steps
    batches = Batches(CroppedSubset(subset, learner.views), len(subset), made.recipe.batch_size, 0)
    clock, hands = Clock(steps), workers(card)
    with card.on():
        runtime = card.runtime(card.fast, workers=hands, chunk=AUTO)
        train(learner, batches, Path(tempfile.mkdtemp(dir=card.folder)), runtime, what="speed", watchers=[clock])
        del learner
        free_memory()
    rate = Clock.timed(steps) * made.recipe.batch_size / clock.seconds
    return Result(f"end to end, {name}", True, rate, text=f"{hands} workers, {card.fast}", unit=RATE)


def embedding(card: Card, name: str) -> list[Result]:
    """A retriever's vectors of images that are on the device."""
    model, side = Backbone(name, card.size({}, micro.VIT.args)), card.size(224, micro.SIDE)
    batch = card.size(BATCH, 32)
    vit = build(model.name, model.args, side=side).eval().requires_grad_(False)
    images = torch.zeros(batch, 3, side, side, dtype=torch.uint8)
    with card.on(), torch.inference_mode(), card.autocast():
        rate = batch / card.seconds(partial(_embed, vit.to("cuda"), images.cuda()))
        free_memory()
    label = f"embedding, {name}"
    told = Result(label, True, rate, text=f"{card.fast}, {side} px, device alone", unit=RATE)
    return [told, *share_of_peak(card, label, rate * forward_flops(model, side))]


def _embed(vit: torch.nn.Module, images: Tensor) -> None:
    cls_mean(vit, normalise(images))


def waiting(card: Card, name: str) -> Result:
    """Counts the synchronisations of a step."""
    made = job(name, card)
    learner, subset = made.learner(), packed(card, made.recipe)
    batches = Batches(CroppedSubset(subset, learner.views), len(subset), 16, 0)
    count = _real_waits if card.real else _pretended_waits
    number, text = count(card, learner, batches)
    return Result(f"waits of the host in a step of {name}", number <= MOST_WAITS, number, f"<= {MOST_WAITS}", text)


def _pretended_waits(card: Card, learner: Any, batches: Batches) -> tuple[float, str]:
    found = waits(learner, batches)
    return round(found.total, 2), f"{found.operators:.0f} operators, {found.bytes / 1e6:.1f} MB moved"


def _real_waits(card: Card, learner: Any, batches: Batches) -> tuple[float, str]:
    """Counts the synchronisations that torch reports, after the first step."""
    steps, seen = 12, _Marks()
    learner.steps = steps
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        seen.told = told
        torch.cuda.set_sync_debug_mode("warn")
        try:
            folder = Path(tempfile.mkdtemp(dir=card.folder))
            train(learner, batches, folder, card.runtime(card.fast), what="waits", watchers=[seen])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waited = [warning for warning in told[seen.first : seen.last] if WAIT in str(warning.message)]
    places = deque(dict.fromkeys(f"{os.path.basename(each.filename)}:{each.lineno}" for each in waited), maxlen=3)
    return round(len(waited) / (steps - 1), 2), f"by torch's sync_debug_mode; {', '.join(places)}"


class _Marks(L.Callback):
    """How many warnings there were after the first step and after the last."""

    told: list[Any]
    first = last = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.last = len(self.told)
        self.first = self.first or self.last


def _checks() -> Iterator[tuple[str, Check]]:
    yield "decode", decoding
    for name in ("MoBy", "iBOT"):
        yield f"crops of {name}", partial(cropping, name=name)
        yield f"augmentation of {name}", partial(augmenting, name=name)
        yield f"device alone, {name}", partial(stepping, name=name)
        yield f"end to end, {name}", partial(whole, name=name)
        yield f"waits of {name}", partial(waiting, name=name)
    for vit in VITS:
        yield f"embedding, {vit}", partial(embedding, name=vit)


CHECKS: Mapping[str, Check] = dict(_checks())
