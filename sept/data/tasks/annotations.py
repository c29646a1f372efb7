"""Annotation files in: lines, JSON and MATLAB files; whatever is wrong with one is a DataError that names it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sept.data.tasks.layout import Layout
from sept.errors import DataError


def read_lines(path: Path, expected: Layout | str) -> list[str]:
    """Lines of a UTF-8 text file, without their ends; empty lines at the end are left out, and one line is needed."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 text ({error}); fetch the file again") from error
    except OSError as error:
        raise unreadable(path, error, expected) from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path}: is empty; {expected}")
    return lines


def read_json(path: Path, expected: Layout) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error, expected) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cut or no JSON ({error}); fetch the file again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not a JSON object; fetch the file again")
    return content


def read_mat(path: Path, variables: tuple[str, ...], expected: Layout) -> list[NDArray[Any]]:
    """The named variables of a MATLAB file, as arrays of one dimension.

    The official files are compressed, so any damage breaks a checksum and is refused here. In a file written without
    compression (MATLAB 6, or scipy unless told) a changed byte may alter a value, or crash scipy itself.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=variables, squeeze_me=True, appendmat=False)
    except OSError as error:
        raise unreadable(path, error, expected) from error
    except Exception as error:  # scipy raises whatever its parser stumbles on: ValueError, TypeError, zlib.error, ...
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cut or no MATLAB file of version 7 or older ({reason}); fetch it again") from error
    for name in variables:
        if name not in content:
            raise DataError(f"{path}: lacks the variable {name!r}; is it another file, renamed?")
    return [np.atleast_1d(content[name]).reshape(-1) for name in variables]


def whole_numbers(path: Path, variable: str, values: NDArray[Any], least: int, most: int | None) -> list[int]:
    """Numbers of a MATLAB file, where all are whole and from `least` to `most` (None: no bound)."""
    numbers = [value.item() if isinstance(value, np.generic) else value for value in values.tolist()]
    if not numbers:
        raise DataError(f"{path}: {variable!r} is empty; fetch the file again")
    for place, number in enumerate(numbers, start=1):
        fits = isinstance(number, int | float) and number == number // 1 and least <= number
        if not fits or (most is not None and number > most):
            bounds = f"from {least} to {most:,}" if most is not None else f"from {least} on"
            raise DataError(
                f"{path}: entry {place:,} of {variable!r} is {number!r}, not a whole number {bounds}; "
                "fetch the file again"
            )
    return [int(number) for number in numbers]


def unreadable(path: Path, error: OSError, expected: Layout | str) -> DataError:
    """The error for an annotation file that is missing or refused."""
    return DataError(f"{path}: {error.strerror or error}; {expected}")
