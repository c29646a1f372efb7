"""What all kinds of fine-tuning share: the training, its saved files and pictures of predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from PIL import Image
from safetensors.torch import save_file

from sept.backbones import Backbone
from sept.data.loading import Batches
from sept.runtime.hardware import Loggers, Runtime
from sept.training.callbacks import LogImagesAtEnd
from sept.training.loop import train

PREDICTIONS = "predictions"
SHOWN = 8  # test images, spread evenly


@dataclass(frozen=True)
class FinetuneJob:
    """One fine-tuning: its recipe on a backbone, from the weights in the file `start` (None: random ones).

    seed: of the few-shot draw, which the recipe's own seed repeats. spec: what identifies it, for loggers.
    """

    recipe: Any
    backbone: Backbone
    start: Path | None
    seed: int
    spec: Mapping[str, Any]
    folder: Path
    runtime: Runtime
    loggers: Loggers

    def train(self, learner: Any, batches: Batches, watchers: Sequence[L.Callback], name: str) -> int:
        """Trains `learner` and saves its network as `name`; returns the number of images seen, counting repetitions.

        On one device: labels are few, and several would save little.
        """
        alone, loggers = replace(self.runtime, devices=1), partial(self.loggers, self.folder.name, self.spec)
        train(learner, batches, self.folder, alone, what="fine-tune", loggers=loggers, watchers=watchers)
        state = {key: value.contiguous() for key, value in learner.model.state_dict().items()}
        save_file(state, self.folder / name)
        return int(learner.steps * min(batches.batch_size, batches.samples))


class Predictions:
    """Pictures of a learner's predictions on some test images; `watcher` sends them to the loggers that take images.

    images: the test images. draw: uint8 (H, W, 3) of one of them, with the learner in eval mode.
    """

    def __init__(self, learner: Any, images: Any, draw: Callable[[Any], np.ndarray]) -> None:
        self.learner, self.images, self.draw = learner, images, draw

    @property
    def watcher(self) -> L.Callback:
        return LogImagesAtEnd(PREDICTIONS, self)

    def __call__(self) -> dict[str, np.ndarray]:
        """The pictures by the image's index."""
        training, count = self.learner.training, len(self.images)
        self.learner.eval()
        places = np.linspace(0, count - 1, min(SHOWN, count)).astype(int).tolist()
        drawn = {f"{place:05d}": self.draw(self.images[place]) for place in places}
        self.learner.train(training)
        return drawn

    def save(self, folder: Path) -> None:
        """As PNG files below `folder`."""
        (folder / PREDICTIONS).mkdir(exist_ok=True)
        for name, picture in self().items():
            Image.fromarray(picture).save(folder / PREDICTIONS / f"{name}.png")
