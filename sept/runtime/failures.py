"""Full disks and exhausted GPU memory, which each library reports in its own way, as one-line errors."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sept.errors import OutOfMemory, StorageError

ASKED, TOTAL, FREE = (
    re.compile(before + r"([\d.]+ \w+)") for before in ("Tried to allocate ", "total capacity of ", "of which ")
)
SIGNS = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


REFUSED = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EROFS: "Read-only file system",
    errno.EFBIG: "File too large",
}
CLOSED = (errno.EACCES, errno.EPERM, errno.EIO)  # also from reading: only where it was writing
CUT_SHORT = re.compile(  # messages of libraries that drop the system's reason: numpy; torch, in Python and in C++
    r"\d+ requested and \d+ written|PytorchStreamWriter failed writing|unexpected pos \d+ vs|iostream error"
)


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """A short form of torch's message, with its numbers; None for another failure."""
    torch = sys.modules.get("torch")
    kind = getattr(torch, "OutOfMemoryError", ())
    text = str(error)
    if not isinstance(error, kind) and not (isinstance(error, RuntimeError) and any(sign in text for sign in SIGNS)):
        return None
    asked, total, free = (found and found[1] for found in (pattern.search(text) for pattern in (ASKED, TOTAL, FREE)))
    if asked is None:
        return OutOfMemory(f"GPU out of memory ({text.partition(chr(10))[0].strip()})")
    card = f", {free or 'less'} of the card's {total} was free" if total else ""
    return OutOfMemory(f"GPU out of memory: tried to allocate {asked}{card}")


@contextmanager
def translated(stage: str = "", remedy: str = "") -> Iterator[None]:
    """Context manager: exhausted GPU memory, here or in a worker process, raises OutOfMemory with the settings to
    change.

    Memory held by the failed work is freed for the next cell of a sweep.
    """
    try:
        yield
    except Exception as error:
        found = error if isinstance(error, OutOfMemory) else out_of_memory(error)
        if found is None:
            raise
        traceback.clear_frames(error.__traceback__)
        told = f"{stage}: {found}" if stage else str(found)
        raise OutOfMemory(f"{told}; set {remedy}" if remedy else told) from None


def refusal(error: BaseException, folder: Path | None = None) -> StorageError | None:
    """The StorageError for a library's error about a disk that is full, read-only or over quota; None for other errors.

    Libraries raise their own types (safetensors, pyarrow, torch), some with the reason only in the message, some as the
    cause of another exception. folder: where it was writing; then permission errors count, too.
    """
    met: BaseException | None = error
    while met is not None:
        reason = _reason(met, folder)
        if reason:
            where = getattr(met, "filename", None) or folder or "the output or a file"
            return StorageError(f"cannot write {where}: {reason}; free space or choose another place")
        met = met.__cause__ or met.__context__
    return None


def _reason(error: BaseException, folder: Path | None) -> str | None:
    if isinstance(error, OSError) and error.errno in REFUSED:
        return REFUSED[error.errno]
    if isinstance(error, OSError) and error.errno in CLOSED and folder is not None and error.filename is not None:
        within = str(os.fsdecode(error.filename)).startswith(str(folder))
        return os.strerror(error.errno) if within else None
    text = str(error)
    if isinstance(error, ImportError | SyntaxError | KeyError):
        return None
    named = next((reason for reason in REFUSED.values() if reason in text), None)
    return named or ("it was cut short (is the disk full?)" if CUT_SHORT.search(text) else None)
