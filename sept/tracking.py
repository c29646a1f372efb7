"""Weights & Biases: one run a trained artefact. Being down, slow or absent never stops or changes a training."""

import logging
import os
from collections.abc import Callable, Mapping
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
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        online = spec.mode == "online" or (spec.mode == "auto" and _has_key())
        run = wandb.init(
            project=spec.project,
            id=name,
            name=name,
            config=dict(config),
            resume="allow" if online else None,
            mode="online" if online else "offline",
            reinit="finish_previous",
            settings=wandb.Settings(init_timeout=INIT_TIMEOUT_S, silent=True),
        )
        return [_sparing(WandbLogger(experiment=run))]
    except Exception as error:  # logging can never stop a training
        log.warning("wandb is not available, going on without it: %s", error)
        return []


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
