"""A selection as files that other tools read: `python search.py ... export=DIR`.

`DIR/data` has the images, as links to the pool's files where they are files, else as copies; `DIR/labels.csv` says of
each its name in the pool and what brought it. FiftyOne reads DIR as a CSVDataset, LightlyStudio the folder of images.
"""

import csv
import re
from pathlib import Path

import pyarrow as pa

from sept.data.pool import ConcatPool
from sept.errors import ConfigError, DataError

DATA, LABELS = "data", "labels.csv"
COLUMNS = ("pool_key", "rank", "query", "similarity")  # of the selection's table
UNSAFE = re.compile(r"[^\w.-]+")


def require_empty(folder: Path) -> None:
    """ConfigError where something is there already, so that nothing is overwritten or mixed."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"export={folder} is there already and not an empty folder; give another one")


def export(pool: ConcatPool, table: pa.Table, folder: Path, copies: bool) -> str:
    """Writes the selected images and their list; returns a line for people. copies: also where a link would do.

    Raises ConfigError for a folder that is not empty, DataError naming an image that cannot be read.
    """
    require_empty(folder)
    (folder / DATA).mkdir(parents=True, exist_ok=True)
    linked = 0
    with open(folder / LABELS, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        out = csv.writer(file)
        out.writerow(("filepath", *COLUMNS))
        for place, entry in enumerate(table.to_pylist()):
            name = f"{place:06d}-{UNSAFE.sub('-', entry['pool_key'].rpartition('/')[2])}"
            linked += _put(pool, entry["row"], folder / DATA / name, copies)
            out.writerow((f"{DATA}/{name}", *("" if entry[key] is None else entry[key] for key in COLUMNS)))
    kind = "links" if linked == len(table) else "copies" if not linked else f"{linked:,} links and copies"
    return f"{len(table):,} images ({kind}) in {folder / DATA}, listed in {folder / LABELS}"


def _put(pool: ConcatPool, row: int, to: Path, copies: bool) -> bool:
    """Whether the image became a link."""
    path = None if copies else pool.path(row)
    if path is not None:
        to.symlink_to(path.absolute())
        return True
    try:
        to.write_bytes(pool.read(row))
    except DataError as error:
        raise DataError(f"{pool.key(row)}: {error}") from error
    return False
