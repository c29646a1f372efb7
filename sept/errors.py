"""Errors that a user can act on, each with the exit code of its kind (sysexits)."""


class SeptError(Exception):
    """An error with a one-line message that names the file, key or option, and the remedy."""

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
    """A GPU has too little memory for a stage."""

    exit_code = 71


class WorkerLost(SeptError, RuntimeError):
    """A data worker was killed or stopped, or had no shared memory to pass batches in."""

    exit_code = 71


class ProcessError(SeptError, RuntimeError):
    """A process of a multi-process training failed unexpectedly; it has printed its traceback."""

    exit_code = 70


class NonFiniteError(SeptError, ArithmeticError):
    """A loss, gradient or weight became NaN or infinite."""

    exit_code = 70


class Interrupted(BaseException):
    """Stopped by a signal; finished work is saved and the same command resumes from there.

    Not an Exception: interrupted code must not take it for a failure of its own and continue (`sept.runtime.signals`).
    """

    exit_code = 75


def reason(error: BaseException, path: object = "") -> str:
    """Why, in one line, without the file's name and the system's number, for a message that names `path` itself."""
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(told.split()).removeprefix(str(path)).lstrip(",: ")
