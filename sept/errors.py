"""Failures a person can act on, each with the exit code of its kind (sysexits)."""


class SeptError(Exception):
    """A failure told in one line that names the file, key or option, and what to do."""

    exit_code = 70


class ConfigError(SeptError, ValueError):
    """A setting, or a pair of settings or artefacts, that cannot work."""

    exit_code = 78


class DataError(SeptError, ValueError):
    """Data on disk that is missing, damaged or beyond the tolerated share of damage."""

    exit_code = 65


class StorageError(SeptError, OSError):
    """The disk refused: full, read-only or gone."""

    exit_code = 74


class OutOfMemory(SeptError, MemoryError):
    """A GPU has no room for what a stage asks of it."""

    exit_code = 71


class WorkerLost(SeptError, RuntimeError):
    """A process that reads batches was killed or stopped, or had no shared memory to hand them over in."""

    exit_code = 71


class ProcessError(SeptError, RuntimeError):
    """A process of a shared training failed in a way that nobody foresaw; it has printed its traceback."""

    exit_code = 70


class NonFiniteError(SeptError, ArithmeticError):
    """A loss, gradient or weight became NaN or infinite."""

    exit_code = 70


class Interrupted(BaseException):
    """Stopped by a signal; what was done is saved and the same command goes on from there.

    No Exception: what it stops must not take it for a failure of its own and go on (`sept.runtime.signals`).
    """

    exit_code = 75


def reason(error: BaseException, path: object = "") -> str:
    """Why, in one line, without the file's name and the system's number, for a message that names `path` itself."""
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(told.split()).removeprefix(str(path)).lstrip(",: ")
