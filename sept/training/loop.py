"""Runs a learner to its last step: one long Lightning epoch that can be stopped anywhere and resumes bit for bit.

Lightning's own mid-epoch resume loses and repeats samples; here a checkpoint is the weights, the optimiser's state
and the number of the next step, and everything else is a function of that number.
"""

import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from sept.data.loading import Batches
from sept.data.prefetch import Prefetch
from sept.errors import DataError, Interrupted, NonFiniteError, SeptError, StorageError, WorkerLost
from sept.runtime.environment import forgotten
from sept.runtime.hardware import Runtime
from sept.runtime.progress import progress
from sept.runtime.signals import Flag, remembered
from sept.store.disk import sha256, sync
from sept.store.step import CHECKPOINTS
from sept.training.learner import Chunk, Learner

LOG_EVERY_STEPS = 10
CURVES = "curves"


def train(
    learner: Learner,
    batches: Batches,
    folder: Path,
    runtime: Runtime,
    *,
    what: str,
    loggers: Callable[[], list] = list,
    watchers: Sequence[L.Callback] = (),
) -> None:
    """Trains `learner` to `learner.steps`, resuming from `folder`/checkpoints, where its last state is saved.

    With `runtime.devices` over 1 this is one of the processes that `sept.training.distributed.run` started. `loggers`
    makes Lightning loggers besides the CSV file. Raises Interrupted after saving when a signal arrives, NonFiniteError
    when the loss or a weight is not finite.
    """
    runtime.configure_torch()
    first_rank = runtime.rank == 0
    # Lightning's loggers obey this, which it set from a scheduler's variables; its types lack it.
    rank_zero_only.rank = runtime.rank  # type: ignore[attr-defined]
    checkpoint = Checkpoint(folder / CHECKPOINTS)
    state = checkpoint.load()
    if state is not None:
        learner.load_state_dict(state["learner"])
        learner.first_step = state["step"]
    attempt = len(list((folder / CURVES).glob("*"))) if (folder / CURVES).exists() else 0
    bar = progress(what, learner.steps) if first_rank else nullcontext(lambda steps: None)
    alone = forgotten() if runtime.devices == 1 else nullcontext()  # else `distributed` has set the rank
    with alone, remembered() as flag, bar as advance, warnings.catch_warnings():
        _quiet()
        advance(learner.first_step)
        further = loggers() if first_rank else []
        saver = Saver(checkpoint, state, runtime.checkpoint_every_s, flag)  # last: it may raise
        trainer = L.Trainer(
            accelerator="gpu" if runtime.accelerator == "cuda" else "cpu",
            **_processes(runtime),
            precision=runtime.precision,  # type: ignore[arg-type]
            max_steps=learner.steps - learner.first_step,
            max_epochs=1,
            logger=[CSVLogger(folder / CURVES, name="", version=f"attempt-{attempt}"), *further],
            callbacks=[Prepared(runtime, batches.batch_size), Bar(advance), Curves(), *watchers, saver],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            deterministic=runtime.accelerator == "cpu",
            log_every_n_steps=min(LOG_EVERY_STEPS, learner.steps),
            num_sanity_val_steps=0,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
        if learner.first_step < learner.steps:
            steps, where = (learner.first_step, learner.steps), (runtime.workers, runtime.rank, runtime.devices)
            read = batches.between(*steps, *where, pin=runtime.accelerator != "cpu")
            _run(trainer, learner, Prefetch(read, runtime.accelerator), flag)
    require_finite(learner)


def _processes(runtime: Runtime) -> dict[str, Any]:
    """How the trainer joins the processes of a training, whose buffers are equal by construction."""
    if runtime.devices == 1:
        return {"devices": 1, "plugins": [LightningEnvironment()]}
    strategy = DDPStrategy(
        cluster_environment=TorchElasticEnvironment(), broadcast_buffers=False, gradient_as_bucket_view=True
    )
    return {"devices": runtime.devices, "strategy": strategy}


def _run(trainer: L.Trainer, learner: Learner, batches: Prefetch, flag: Flag) -> None:
    try:
        trainer.fit(learner, batches)
    except (RuntimeError, OSError) as error:
        if flag.received is None or (isinstance(error, SeptError) and not isinstance(error, WorkerLost)):
            raise
        # The signal also stopped the data workers, so the next batch never came; the Saver has saved.
        raise _interrupted(flag, learner) from error


def _interrupted(flag: Flag, learner: Learner) -> Interrupted:
    return Interrupted(
        f"stopped by {flag.received or 'a signal'} after step {learner.step} of {learner.steps}, saved; "
        "the same command resumes from here"
    )


class Saver(L.Callback):
    """Saves every so many seconds and when a signal has arrived; restores the optimiser's state."""

    def __init__(self, checkpoint: "Checkpoint", state: dict[str, Any] | None, every_s: float, flag: Flag) -> None:
        self.checkpoint, self.state, self.every_s, self.flag = checkpoint, state, every_s, flag
        self.saved = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, learner: L.LightningModule) -> None:
        self.flag.listen()  # Lightning's own handler of SIGTERM waits for the other processes, and they for this one
        if self.state is not None:
            trainer.optimizers[0].load_state_dict(self.state["optimizer"])
            self.state = None

    def on_train_batch_end(self, trainer: L.Trainer, learner: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        stop = self._agreed(trainer)
        if stop or learner.step == learner.steps or time.monotonic() - self.saved >= self.every_s:
            self._save(trainer, learner)
        if stop:
            trainer.strategy.barrier()  # the first process to end would end the others, one of which is saving
            raise _interrupted(self.flag, learner)

    def _agreed(self, trainer: L.Trainer) -> bool:
        """Whether a signal has reached any of the processes: they all stop after the same step."""
        received = self.flag.received is not None
        return received if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(received, all=False)

    def on_exception(self, trainer: L.Trainer, learner: Any, exception: BaseException) -> None:
        steps = trainer.fit_loop.epoch_loop.batch_progress.current
        between_steps = steps.ready == steps.completed  # a batch did not come
        stopped = self.flag.received or isinstance(exception, WorkerLost)
        if stopped and trainer.world_size == 1 and between_steps:
            self._save(trainer, learner)

    def _save(self, trainer: L.Trainer, learner: Any) -> None:
        learner.require_finite_losses()
        if trainer.is_global_zero:
            require_finite(learner)
            self.checkpoint.save(learner, trainer.optimizers[0])
        self.saved = time.monotonic()


class Prepared(L.Callback):
    """When the weights are on the device, sets up chunking and compilation of the encoder."""

    def __init__(self, runtime: Runtime, batch_size: int) -> None:
        self.runtime, self.batch_size = runtime, batch_size

    @torch.enable_grad()
    def on_train_start(self, trainer: L.Trainer, learner: Any) -> None:
        learner.use_compile(self.runtime.compile)
        if isinstance(self.runtime.chunk, int):
            learner.chunk = Chunk(self.runtime.chunk)
        elif self.runtime.chunk == "auto":
            learner.chunk = learner.chunk_that_fits(self.batch_size // self.runtime.devices)


class Curves(L.Callback):
    """Writes the values that a learner recorded, in one copy from the device, and checks the losses then."""

    def on_train_batch_end(self, trainer: L.Trainer, learner: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        values = learner.take_recorded()
        if not values:
            return
        learner.require_finite_losses()
        step = values.pop("step")
        for logger in trainer.loggers:
            logger.log_metrics(values, step)
            logger.save()


class Bar(L.Callback):
    """Advances the progress bar."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def on_train_batch_end(self, *args: Any) -> None:
        self.advance(1)


class Checkpoint:
    """The last state saved in `folder`: one file, synced and renamed atomically, named step-<step>-<sha256>.pt.

    The digest is in the name, so that no kill separates the two. Older files are removed once a newer one exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        aside = self.folder / "saving.tmp"
        state = {"step": learner.step, "learner": learner.state_dict(), "optimizer": optimizer.state_dict()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            path = self.folder / f"step-{learner.step:09d}-{sha256(aside)}.pt"
            os.replace(aside, path)
            sync(self.folder)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            aside.unlink(missing_ok=True)
            raise StorageError(f"{aside} could not be written, the previous state is kept: {error}") from error
        for older in set(self._files()) - {path}:
            older.unlink()

    def load(self) -> dict[str, Any] | None:
        """The saved state, None when there is none. Raises DataError when the file is not what was written."""
        path = max(self._files(), default=None)
        if path is None:
            return None
        if not path.stem.endswith(sha256(path)):
            raise DataError(f"{path} is damaged; delete its folder {self.folder} to train from the start")
        return torch.load(path, map_location="cpu", weights_only=True)

    def _files(self) -> list[Path]:
        return list(self.folder.glob("step-*.pt"))


def require_finite(learner: torch.nn.Module) -> None:
    """Raises NonFiniteError naming the first parameter or buffer that is not finite. Synchronises with the device
    once."""
    values = {name: value for name, value in learner.state_dict().items() if _is_float(value)}
    finite = torch.stack([torch.isfinite(value).all() for value in values.values()]).tolist() if values else []
    for name, good in zip(values, finite, strict=True):
        if not good:
            raise NonFiniteError(
                f"{name} is no longer finite; the last finite checkpoint is kept; lower the learning rate"
            )


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _quiet() -> None:
    """Silences Lightning's banner, its advice on intended settings, and deprecations in its own code."""
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)
    settings = (".*does not have many workers.*", ".*is smaller than the logging interval.*", ".*GPU available but.*")
    for message in (*settings, ".*LeafSpec.*", ".*broadcast_buffers.*", ".*all_gather is deprecated.*"):
        warnings.filterwarnings("ignore", message=message)
