"""A W&B run from beginning to end; kept on disk, for `wandb sync`, if W&B does not answer in time."""

import logging
import netrc
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from sept.config import Logger

ANSWER_TIMEOUT_S, INIT_TIMEOUT_S, FINISH_TIMEOUT_S = 5, 10, 20
FLUSH_S = 1.0  # at most lost by a kill, of a run that is kept on disk
HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")  # W&B's own, in wandb 0.31 and before
log = logging.getLogger(__name__)


class Server:
    """State of this process: whether W&B is still contacted."""

    answers = True


def begin(spec: Logger, name: str, title: str, config: Mapping[str, Any], goes_on: bool) -> Any:
    """The run with this id: the existing one if it is continued, else a new one in its place.

    If W&B does not answer, it is kept on disk, like all later ones of this process.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to W&B's developers: it would delay the exit by 10 s
    if (spec.mode == "online" or (spec.mode == "auto" and has_key())) and _answers():
        try:
            return _init("online", spec.project, name, title, config, goes_on)
        except Exception as error:
            _silent(error)
            _teardown()
    return _init("offline", spec.project, name, title, config, goes_on)


def _init(mode: Any, project: str, name: str, title: str, config: Mapping[str, Any], goes_on: bool) -> Any:
    import wandb

    return wandb.init(
        project=project,
        id=name,
        name=title,
        job_type=name.partition("-")[0],
        config=dict(config),
        resume="allow" if goes_on else None,
        mode=mode,
        reinit="finish_previous",
        settings=wandb.Settings(
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=FINISH_TIMEOUT_S,
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=FLUSH_S,
            silent=True,
        ),
    )


def _answers() -> bool:
    """Whether W&B answers at all, which is quicker to find out than by failing to begin a run."""
    import wandb

    url = wandb.setup().settings.base_url
    try:
        if Server.answers:
            urlopen(url, timeout=ANSWER_TIMEOUT_S).close()
    except HTTPError:
        pass
    except (OSError, HTTPException) as error:
        if not isinstance(getattr(error, "reason", None), ssl.SSLError):  # wandb may trust other certificates
            _silent(error)
    return Server.answers


def _teardown() -> None:
    """Ends wandb's service, which keeps the id of a run that failed to begin."""
    import wandb

    with suppress(SystemExit):
        wandb.teardown()


def end(run: Any, code: int) -> None:
    """Sends what is left, as far as possible in time; all of it is on disk."""
    try:
        run.finish(exit_code=code)
    except TimeoutError as error:
        _silent(error)


def _silent(error: Exception) -> None:
    Server.answers = False
    told = " ".join(str(error).split())
    log.warning("W&B does not answer, runs are kept in ./wandb for `wandb sync`: %s", told)


@contextmanager
def never_raise(consequence: str) -> Iterator[None]:
    """Context manager: a failure inside is logged, so that logging never stops a training."""
    try:
        yield
    except Exception as error:
        log.warning("wandb is not available, %s: %s", consequence, error)


def has_key() -> bool:
    """Whether the user has logged in: by environment or by the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = os.environ.get("WANDB_BASE_URL")
    try:
        kept = netrc.netrc()
    except (OSError, netrc.NetrcParseError):
        return False
    return any(kept.authenticators(host) is not None for host in ((urlsplit(own).netloc,) if own else HOSTS))
