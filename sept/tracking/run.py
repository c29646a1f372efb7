"""A run of W&B from its beginning to its end; kept on disk, for `wandb sync`, where W&B does not answer in time."""

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
FLUSH_S = 1.0  # what a kill may cost of a run that is kept on disk
HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")  # of W&B itself, as wandb 0.31 calls it and as it was called
log = logging.getLogger(__name__)


class Server:
    """Of this process: whether W&B is still asked."""

    answers = True


def begin(spec: Logger, name: str, title: str, config: Mapping[str, Any], goes_on: bool) -> Any:
    """The run with this id: the one that is there if it goes on, else a new one in its place.

    Where W&B does not answer it is kept on disk, as all later ones of this process.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its makers: it would hold up the exit for 10 s
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
    """Whether W&B sends any answer, which takes less time to find out than a run that is begun in vain."""
    import wandb

    url = wandb.setup().settings.base_url
    try:
        if Server.answers:
            urlopen(url, timeout=ANSWER_TIMEOUT_S).close()
    except HTTPError:
        pass
    except (OSError, HTTPException) as error:
        if not isinstance(getattr(error, "reason", None), ssl.SSLError):  # wandb may know other certificates
            _silent(error)
    return Server.answers


def _teardown() -> None:
    """End wandb's service, which keeps the id of a run that failed to begin."""
    import wandb

    with suppress(SystemExit):
        wandb.teardown()


def end(run: Any, code: int) -> None:
    """Send what is left, as far as that is possible in time; all of it is on disk."""
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
    """Logging can never stop a training: what fails inside is told."""
    try:
        yield
    except Exception as error:
        log.warning("wandb is not available, %s: %s", consequence, error)


def has_key() -> bool:
    """Whether this user has logged in: by environment or by the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = os.environ.get("WANDB_BASE_URL")
    try:
        kept = netrc.netrc()
    except (OSError, netrc.NetrcParseError):
        return False
    return any(kept.authenticators(host) is not None for host in ((urlsplit(own).netloc,) if own else HOSTS))
