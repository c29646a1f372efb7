"""The retrieval encoder at work: images in, unit vectors out, the same way for pool, task and looked-up images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from sept.config import Model, Preprocess
from sept.data.images import ImageError, Pixels
from sept.data.loading import loader
from sept.data.transforms import embed_view, normalise
from sept.machine import Machine
from sept.models.backbones import build, retrieval_features
from sept.models.weights import load_backbone

WEIGHTS = "backbone/model.safetensors"  # of a retriever artefact


class EncodedViews(Dataset):
    """The encoder's view of image `i` of `read`, or the reason why there is none."""

    def __init__(self, read: Callable[[int], Pixels], preprocess: Preprocess) -> None:
        self.read, self.preprocess = read, preprocess

    def __getitem__(self, i: int) -> dict[str, Any]:
        p = self.preprocess
        try:
            view = embed_view(self.read(i), p.resize, p.crop, p.squash)
        except ImageError as error:
            return {"view": torch.zeros(3, p.crop, p.crop, dtype=torch.uint8), "failure": str(error)}
        return {"view": view, "failure": ""}


class Encoder:
    """A ViT with its weights and preprocessing; gives concat([CLS], mean patch), L2-normalised, float32.

    precision: "bf16-mixed" runs the network under bfloat16 autocast. The features' own, whatever the machine's is.
    """

    def __init__(
        self,
        retriever: Path,
        model: Model,
        preprocess: Preprocess,
        machine: Machine,
        batch_size: int,
        *,
        precision: str = "32-true",
    ) -> None:
        self.preprocess, self.machine, self.batch_size = preprocess, machine, batch_size
        self.mixed = precision == "bf16-mixed"
        self.device = torch.device(machine.accelerator)
        self.vit = build(model.name, model.args, side=preprocess.crop).eval().requires_grad_(False)
        load_backbone(self.vit, retriever / WEIGHTS)
        self.vit.to(self.device)
        machine.configure_torch()

    @torch.inference_mode()
    def __call__(
        self, read: Callable[[int], Pixels], which: Sequence[int], advance: Callable[[int], None] = lambda n: None
    ) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Vectors (len(which), D) of the images read(i), zero where unreadable, and (place, reason) of those."""
        batches = [list(which[start : start + self.batch_size]) for start in range(0, len(which), self.batch_size)]
        vectors, failures, done = [], [], 0
        for batch in loader(EncodedViews(read, self.preprocess), batches, self.machine.workers):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                features = retrieval_features(self.vit, normalise(batch["view"].to(self.device)))
            failed = [place for place, reason in enumerate(batch["failure"]) if reason]
            features[failed] = 0
            failures += [(done + place, batch["failure"][place]) for place in failed]
            vectors.append(features.cpu().numpy())
            done += len(features)
            advance(len(features))
        return np.concatenate(vectors), failures
