"""Which files lie in a data set's folders, compared before any of them is opened."""

import os
from collections.abc import Iterable, Iterator

from sept.data.names import ends_with, is_hidden
from sept.data.sources.packed import AnyPath
from sept.errors import DataError


def names_in(folder: AnyPath) -> list[str]:
    """Of files and folders, in any order. Raises OSError."""
    return [found.name for found in folder.iterdir()]


def stems(folder: AnyPath, suffix: str, unpack: str) -> set[str]:
    """Names of the files in a folder that end so, without that end. Raises DataError where there are none."""
    try:
        names = list(ending(folder, names_in(folder), suffix))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); {unpack}") from error
    for name in names:
        if not name.isprintable():
            raise DataError(f"{folder}: the name {name!a} is not UTF-8 or has control characters; rename it")
    if not names:
        raise DataError(f"{folder}: holds no *{suffix}; {unpack}")
    return {name.removesuffix(suffix) for name in names}


def ending(folder: AnyPath, names: Iterable[str], *suffixes: str) -> Iterator[str]:
    """Those of the files of a folder that are visible and end in one of the suffixes.

    Raises DataError for one that ends so in another case: a data set's reader makes names with the suffix as it is
    published, so that file would be left out in silence.
    """
    lower = tuple(suffix.lower() for suffix in suffixes)
    for name in names:
        if not is_hidden(name) and ends_with(name, *lower):
            if not name.endswith(suffixes):
                raise DataError(f"{folder / name}: the data set's files end in {' or '.join(suffixes)}; rename it")
            yield name


def require(folder: AnyPath, suffix: str, names: Iterable[str], why: str, unpack: str) -> None:
    """Raises DataError where a file of one of the names is not in the folder; `why` says who wants it."""
    wanted = set(names)
    if missing := sorted(wanted - stems(folder, suffix, unpack), key=os.fsencode):
        raise DataError(
            f"{folder / (missing[0] + suffix)}: no such file, though {why} "
            f"({len(missing)} of {len(wanted)} are missing); {unpack}"
        )


def read_lines(path: AnyPath, unpack: str) -> list[str]:
    """Lines of a text file without the space around them, but for empty ones. Raises DataError where there are none."""
    try:
        lines = [line.strip() for line in path.read_bytes().decode().split("\n")]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {unpack}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8; {unpack}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}; {unpack}") from error
    if not any(lines):
        raise DataError(f"{path}: is empty; {unpack}")
    return [line for line in lines if line]
