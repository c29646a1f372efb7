"""The retrieval encoder at work: images in, unit vectors out, the same way for pool, task and looked-up images.

Shapes: B images, D width. A feature is float32 from the tokens on, whatever autocast gave them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from sept.backbones import Backbone
from sept.backbones.networks import tokens
from sept.data.images import ImageError, Pixels
from sept.data.loading import loader
from sept.data.pool import ConcatPool
from sept.data.prefetch import Prefetch
from sept.data.transforms import embed_view, normalise
from sept.errors import DataError
from sept.retrieval.features import Features
from sept.retrievers import FEATURES, LIBRARIES
from sept.retrievers.settings import Preprocess
from sept.runtime.device import fetch
from sept.runtime.hardware import Runtime

T = TypeVar("T")
ROWS = 4  # spread over the pool
ALIKE = 0.99  # cosine of a vector and the same computed on another kind of hardware, at least


class EncodedViews(Dataset):
    """The encoder's view of image `i` of `read`, or the reason why there is none."""

    def __init__(self, read: Callable[[int], Pixels], preprocess: Preprocess) -> None:
        self.read, self.preprocess = read, preprocess

    def __getitem__(self, i: int) -> dict[str, Any]:
        p = self.preprocess
        try:
            view = embed_view(self.read(i), p.resize, p.crop, p.squash, p.interpolation)
        except ImageError as error:
            return {"view": torch.zeros(3, p.crop, p.crop, dtype=torch.uint8), "failure": str(error)}
        return {"view": view, "failure": ""}


class Encoder:
    """A network with its weights and preprocessing; gives its feature at unit length, float32.

    precision: "bf16-mixed" runs the network under bfloat16 autocast. The features' own, whatever the machine's is.
    """

    def __init__(
        self,
        weights: Path,
        backbone: Backbone,
        feature: str,
        preprocess: Preprocess,
        runtime: Runtime,
        batch_size: int,
        *,
        precision: str = "32-true",
        library: str = "timm",
    ) -> None:
        self.preprocess, self.runtime, self.batch_size = preprocess, runtime, batch_size
        self.mixed = precision == "bf16-mixed"
        self.device = torch.device(runtime.accelerator)
        self.statistics = (preprocess.mean, preprocess.std)
        self.backbone, self.library = backbone, LIBRARIES[library].load()
        self.network = self.library.build(backbone, preprocess.crop).eval().requires_grad_(False)
        self.library.load(self.network, weights)
        self.network.to(self.device)
        self.feature = FEATURES[feature].load()
        runtime.configure_torch()

    @torch.inference_mode()
    def __call__(
        self, read: Callable[[int], Pixels], which: Sequence[int], advance: Callable[[int], None] = lambda n: None
    ) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Vectors (len(which), D) of the images read(i), zero where unreadable, and (place, reason) of those."""
        batches = [list(which[start : start + self.batch_size]) for start in range(0, len(which), self.batch_size)]
        pin = self.device.type != "cpu"
        read_in = loader(EncodedViews(read, self.preprocess), batches, self.runtime.workers, pin=pin)
        vectors, failures, done = [], [], 0
        for found, reasons in _one_behind(map(self._encoded, Prefetch(read_in, self.device))):
            failed = [place for place, reason in enumerate(reasons) if reason]
            vectors.append(found().numpy())
            vectors[-1][failed] = 0  # here and not on the device, where a list of places would be a copy to wait for
            failures += [(done + place, reasons[place]) for place in failed]
            done += len(reasons)
            advance(len(reasons))
        return np.concatenate(vectors), failures

    @torch.inference_mode()
    def texts(self, lines: Sequence[str]) -> np.ndarray:
        """Vectors (len(lines), D) of texts, in the space of the images' where the library has one for both."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            vectors: Tensor = self.library.embed_text(self.network, self.backbone, list(lines))
        return F.normalize(vectors, dim=1).cpu().numpy()

    def _encoded(self, batch: dict[str, Any]) -> tuple[Callable[[], Tensor], list[str]]:
        """A call that waits for the batch's features (B, D) and gives them, and the reason of each unreadable image."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            features = self.feature(self.network, normalise(batch["view"], self.statistics))
            return fetch(F.normalize(features, dim=1)), batch["failure"]


def _one_behind(items: Iterable[T]) -> Iterator[T]:
    """The items, each when its successor has been asked for: the device has work while the host takes its results.

    So only two batches of features lie on the device, however many images are asked for.
    """
    last: list[T] = []
    for item in items:
        yield from last
        last = [item]
    yield from last


def cls_mean(network: nn.Module, images: Tensor) -> Tensor:
    """concat([CLS], mean of patch tokens), both after the final LayerNorm: (B, 2D).

    SEPT, Retrieval Pipeline: "the combination of [CLS] token and patch tokens", 768 = 2 x 384 for ViT-S.
    """
    prefix, patches = tokens(network, images)
    return torch.cat([prefix[:, 0].float(), patches.float().mean(dim=1)], dim=1)


def cls(network: nn.Module, images: Tensor) -> Tensor:
    """[CLS] after the final LayerNorm: (B, D)."""
    prefix, _ = tokens(network, images)
    return prefix[:, 0].float()


def mean(network: nn.Module, images: Tensor) -> Tensor:
    """Mean of the patch tokens after the final LayerNorm: (B, D)."""
    _, patches = tokens(network, images)
    return patches.float().mean(dim=1)


def pooled(network: Any, images: Tensor) -> Tensor:
    """What the network itself hands to a classifier: (B, D)."""
    return network.forward_head(network.forward_features(images), pre_logits=True).float()  # type: ignore[no-any-return]


def joint(network: Any, images: Tensor) -> Tensor:
    """Where a network of images and text has both in one space: (B, D)."""
    return network.encode_image(images).float()  # type: ignore[no-any-return]


def spot_check(features: Features, pool: ConcatPool, encoder: Encoder) -> None:
    """Raises DataError naming the image where a row's vector is not its image's: one was moved or replaced."""
    readable = np.setdiff1d(np.linspace(0, features.rows - 1, ROWS).astype(np.int64), features.skipped)
    if not len(readable):
        return
    vectors, failures = encoder(partial(pool.image, side=encoder.preprocess.resize), readable.tolist())
    if failures:
        place, reason = failures[0]
        raise DataError(f"pool image {pool.key(int(readable[place]))} was embedded but cannot be read now: {reason}")
    cosine = (vectors * features.take(readable)).sum(axis=1)
    worst = int(cosine.argmin())
    if cosine[worst] < ALIKE:
        raise DataError(
            f"pool image {pool.key(int(readable[worst]))} gives another vector than the one stored for row "
            f"{readable[worst]} (cosine {cosine[worst]:.3f}): images were replaced; embed again with "
            "store.force=[pool,features]"
        )
