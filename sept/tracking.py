"""Weights & Biases: one run a trained artefact, one a table. Being down, slow or absent it never stops a training."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sept.config import Logger
from sept.machine import Loggers, no_loggers

INIT_TIMEOUT_S = 10
log = logging.getLogger(__name__)


def loggers(spec: Logger) -> Loggers:
    """What `Machine.loggers` is for this choice of logger."""
    return no_loggers if spec.name == "csv" else partial(_wandb, spec)


def _wandb(spec: Logger, name: str, config: Mapping[str, Any]) -> list:
    """A Lightning logger whose run has the artefact's name as its id; none, with a warning, where W&B fails."""
    try:
        from lightning.pytorch.loggers import WandbLogger

        return [_sparing(WandbLogger(experiment=_begin(spec, name, config)))]
    except Exception as error:  # logging can never stop a training
        log.warning("wandb is not available, going on without it: %s", error)
        return []


def log_table(spec: Logger, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table of results as a `wandb.Table` of the run `table-NAME`, to which each call adds its present state."""
    try:
        import wandb

        with _begin(spec, f"table-{name}", {"table": name}) as run:
            run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})
    except Exception as error:  # the table is in the store and on the screen
        log.warning("wandb is not available, the table is not sent: %s", error)


def _begin(spec: Logger, name: str, config: Mapping[str, Any]) -> Any:
    """A W&B run with this id, continued where there is one."""
    import wandb

    online = spec.mode == "online" or (spec.mode == "auto" and _has_key())
    return wandb.init(
        project=spec.project,
        id=name,
        name=name,
        config=dict(config),
        resume="allow" if online else None,
        mode="online" if online else "offline",
        reinit="finish_previous",
        settings=wandb.Settings(init_timeout=INIT_TIMEOUT_S, silent=True),
    )


def _sparing(logger: Any) -> Any:
    """The logger, silent from its first failure on."""
    failed = False

    def spared(method: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **options: Any) -> None:
            nonlocal failed
            try:
                if not failed:
                    method(*args, **options)
            except Exception as error:
                failed = True
                log.warning("wandb failed, going on without it: %s", error)

        return call

    for name in ("log_metrics", "log_image", "save", "finalize"):  # what Lightning calls in a fit
        setattr(logger, name, spared(getattr(logger, name)))
    return logger


def _has_key() -> bool:
    """Whether this user has logged in: by environment or by the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
