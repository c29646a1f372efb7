"""The Lightning logger of a W&B run: repeats nothing after a restart, and never stops a training when W&B fails."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

log = logging.getLogger(__name__)


class SparingLogger(WandbLogger):
    """Sends to `run` until the first failure.

    sent: file with the last step whose values were sent. A training that resumes from a checkpoint repeats the steps
    after it; values of steps covered by `sent` are not sent again.
    """

    def __init__(self, run: Any, sent: Path, goes_on: bool) -> None:
        super().__init__(experiment=run)
        self.sent, self.failed = sent, False
        self.last = int(sent.read_text() or -1) if goes_on and sent.exists() else -1

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is None:
            self._spared(super().log_metrics, metrics)
        elif step > self.last:
            self._spared(super().log_metrics, metrics, step)
            self._spared(self._note, step)

    def _note(self, step: int) -> None:
        self.sent.parent.mkdir(exist_ok=True)
        self.sent.write_text(str(step))

    def log_image(self, *arguments: Any, **options: Any) -> None:
        self._spared(super().log_image, *arguments, **options)

    def save(self) -> None:
        self._spared(super().save)

    def finalize(self, status: str) -> None:
        self._spared(super().finalize, status)

    def _spared(self, method: Callable[..., None], *arguments: Any, **options: Any) -> None:
        try:
            if not self.failed:
                method(*arguments, **options)
        except Exception as error:
            self.failed = True
            log.warning("wandb failed, continuing without it: %s", error)
