"""What Hydra and OmegaConf refuse, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from sept.compose.names import unknown_name
from sept.errors import ConfigError, StorageError

SWEEP = "multirun.yaml"  # what Hydra writes of a sweep that it launches


@contextmanager
def one_line() -> Iterator[None]:
    """What Hydra and OmegaConf refuse inside becomes a ConfigError of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_refusal(error)) from None
    except OSError as error:
        if Path(str(error.filename)).name != SWEEP:
            raise
        raise StorageError(
            f"{error.filename}: {error.strerror}; Hydra keeps a sweep's settings there: start in another folder or set "
            "hydra.sweep.dir=FOLDER"
        ) from None


def _refusal(error: Exception) -> str:
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip(" ^")]
    key = getattr(cause, "full_key", None)
    if not key:
        return " ".join(lines)
    return unknown_name(str(key)) if isinstance(cause, ConfigKeyError) else f"{key}: {lines[0]}"
