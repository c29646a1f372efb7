"""How every command starts and ends: its output, and one line and an exit code for an error.

`python -m` modules, `train.py` and `search.py` pass their `main` to `run`.
"""

import io
import logging
import os
import select
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TextIO

from sept.errors import Interrupted, SeptError, StorageError
from sept.runtime.failures import refusal

READER_GONE = 141  # a shell's exit code for a program ended by a closed pipe: 128 + SIGPIPE
STOPPED = 130  # and for one ended by Ctrl-C: 128 + SIGINT


def run(main: Callable[[], int | None]) -> NoReturn:
    """Calls `main` and exits: with the code that it returns, or with one line and the code of its exception."""
    begin()
    try:
        code = main() or 0
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            _print_line(leaving.code)
        code = 1 if isinstance(leaving.code, str) else leaving.code or 0
    except KeyboardInterrupt:
        _print_line("error: stopped by Ctrl-C")
        code = STOPPED
    except (Interrupted, Exception) as error:
        code = report_error(error)
    sys.exit(_flushed(code))


def begin() -> None:
    """Characters that the output cannot encode become question marks, and a log line that cannot be written is dropped
    without a traceback; neither ends the program."""
    logging.raiseExceptions = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else there is none, or a test's own
            stream.reconfigure(errors="replace")


def report_error(error: BaseException) -> int:
    """Prints the error, in one line if the user can act on it; returns the exit code."""
    if isinstance(error, BrokenPipeError) and _reader_gone():
        return READER_GONE
    known = error if isinstance(error, (SeptError, Interrupted)) else refusal(error) or _unusable(error)
    if known is None:
        with suppress(OSError):
            traceback.print_exception(error)
        return SeptError.exit_code
    lines = str(known).splitlines()  # OmegaConf adds lines to what is raised inside
    _print_line(f"error: {lines[0] if lines else type(known).__name__}")
    return known.exit_code


def _unusable(error: BaseException) -> StorageError | None:
    """The error for a missing, inaccessible or unexpected file or folder that no other code has reported."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return None
    return StorageError(f"{os.fsdecode(error.filename)}: {error.strerror}; check that it exists and is writable")


def _print_line(line: str) -> None:
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _flushed(code: int) -> int:
    """The exit code, after flushing the output, which Python otherwise does after all handlers."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            _silence(stream)
            if isinstance(error, BrokenPipeError):
                code = code or READER_GONE
            elif isinstance(error, OSError):
                _print_line(f"error: cannot write the output: {error.strerror}; free space where it goes")
                code = code or StorageError.exit_code
    return code


def _silence(stream: TextIO) -> None:
    """Discards pending output, which Python would otherwise write again on exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _reader_gone() -> bool:
    """Whether the reader of stdout or stderr has closed its end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            looking = select.poll()
            looking.register(stream.fileno(), select.POLLOUT)
            if any(events & select.POLLERR for _, events in looking.poll(0)):
                return True
    return False
