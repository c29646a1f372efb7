"""Files behind URLs, read by ranges through fsspec, which torch brings along; it is imported for URLs only.

s3:// needs s3fs, gs:// gcsfs, and so on: fsspec names the package. Nothing is written or kept on the disk.
"""

import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, TypeVar

from sept.errors import ConfigError, DataError

TRIES = 3
WAIT_S = 1.0
"""Before the second try; doubled before each further one."""

T = TypeVar("T")


class RemoteFile:
    """One file behind a URL. Each read is a request of its own, tried up to `TRIES` times."""

    def __init__(self, url: str) -> None:
        self.where = url
        self._system, self._path = _locate(url)
        size = _tried(url, lambda: self._system.info(self._path)["size"])
        if size is None:
            raise DataError(f"{url}: the server does not tell its size, so parts of it cannot be read; copy it here")
        self.size = int(size)

    def pread(self, size: int, offset: int) -> bytes:
        """`size` bytes from `offset` on, fewer at the end of the file. Raises DataError naming the URL."""
        first, last = min(offset, self.size), min(offset + size, self.size)
        if first == last:
            return b""
        return _tried(self.where, lambda: self._fetch(first, last))

    def _fetch(self, first: int, last: int) -> bytes:
        data = self._system.cat_file(self._path, start=first, end=last)
        if len(data) == self.size > last - first:
            raise DataError(f"{self.where}: the server sends the whole file for a part of it; copy it here")
        if len(data) != last - first:
            raise OSError(f"{len(data):,} bytes for {first:,}..{last:,}")
        return data

    def close(self) -> None:
        """Nothing is held open between reads."""


def list_names(folder: str, pattern: str) -> list[str]:
    """Names in the remote folder `folder` that match the glob `pattern`, in no order. Raises DataError."""
    system, path = _locate(folder)
    found = _tried(folder, lambda: system.glob(f"{path.rstrip('/')}/{pattern}"))
    return [PurePosixPath(name).name for name in found]


def _locate(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    from fsspec.core import url_to_fs

    try:
        # Directory listings are asked for anew: a shard that was uploaded since would be overlooked.
        return url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{url}: cannot be reached ({error})") from error


def _tried(url: str, work: Callable[[], T]) -> T:
    """What `work` gives, at the first of `TRIES` tries that succeeds; a missing or forbidden file gets one."""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(WAIT_S * 2 ** (attempt - 1))
        try:
            return work()
        except DataError:
            raise
        except (FileNotFoundError, PermissionError) as error:
            raise DataError(f"{url}: cannot be read ({type(error).__name__}: {error})") from error
        except Exception as error:  # every backend of fsspec has its own: aiohttp's and botocore's are no OSError
            failure = error
    raise DataError(f"{url}: cannot be read in {TRIES} tries ({type(failure).__name__}: {failure})") from failure
