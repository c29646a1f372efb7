"""The commands as Python functions: the same settings, steps and store, and the same results.

Nothing is computed here. A call composes an experiment from overrides, as a command line does, makes what is missing
and returns the result. The functions are exported by `sept`: `sept.select(...)`. Each raises SeptError, with a one-line
message, for what cannot be done.

pool: a folder of images, or tar, zip or parquet files or a list of paths (by the suffix), or an option of `pool=`.
task: a folder of classes, a zip or tar of one, a CSV or parquet file, or an option of `task=`. retriever, backbone: an
option of the group.
overrides: any other setting, as on the command line: `["shot=10shot", "leak=remove"]`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sept import compose
from sept.app.making import make
from sept.config import Experiment
from sept.errors import ConfigError
from sept.paths import quoted

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LISTED = (  # functions that remember what they found on disk, while a process runs
    *(("sept.data.locate", "identify"), ("sept.data.about", "about_source"), ("sept.data.read", "read")),
    *(("sept.data.tasks.tree", "members"), ("sept.data.sources.reader", "reader_of")),
)
OUTPUTS = Path("outputs")  # below the current folder, as for search.py
BLOCK_ROWS = 8192  # rows read at a time
COLUMNS = ["path", "rank", "query", "similarity"]
RETRIEVER = "ibot_vit_s16"
POOLS = {".tar": "webdataset", ".zip": "zip", ".parquet": "parquet", ".txt": "list", ".npy": "vectors"}
TASKS = {".csv": "csv", ".parquet": "parquet"}
FOLDERS = {"pool": "folder", "task": "imagefolder"}  # what anything else is


@dataclass(frozen=True)
class Selected:
    """The pool images chosen for a task.

    table: one row per image, in the order chosen: its `path` in the pool and, if a query found it, the `query`, the
    `rank` in that query's list, from 0, and the `similarity`; `table.to_pandas()` if pandas is installed. page: HTML,
    queries next to their matches; None for a random subset. facts: statistics of the selection.
    """

    table: "pa.Table"
    page: Path | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Embedded:
    """vectors: (N, D) float16 of unit length, zero where an image cannot be read. keys: the N images, by their names
    in the pool."""

    vectors: "np.ndarray"
    keys: list[str]


def select(
    pool: str | Path, task: str | Path, *, budget: int, retriever: str = RETRIEVER, overrides: Sequence[str] = ()
) -> Selected:
    """The `budget` pool images that are most like the task's labelled images (SEPT, Algorithm 1)."""
    from sept.app.search_report import HTML, show_selection
    from sept.retrieval.selections import SELECTION, load_selection

    e = _composed(pool, task, [f"retriever={retriever}", f"budget.images={budget}", *overrides])
    pipeline, store = make(e, lambda steps: steps.chosen, selection_only=True)
    show_selection(e, pipeline, store, OUTPUTS)
    made = store.read(pipeline.selection)
    table = load_selection(made.path / SELECTION).rename_columns({"pool_key": "path"})
    page = OUTPUTS / made.path.name / HTML
    return Selected(table.select(COLUMNS), page if page.exists() else None, dict(made.facts))


def embed(pool: str | Path, *, retriever: str = RETRIEVER, overrides: Sequence[str] = ()) -> Embedded:
    """The pool's images as vectors, all in memory: 2 N D bytes."""
    import numpy as np

    from sept.stages.features import Features
    from sept.stages.pool import open_pool

    e = _composed(pool, None, [f"retriever={retriever}", "query.path=.", *overrides])
    pipeline, store = make(e, lambda steps: steps.features, selection_only=True)
    features = Features.concatenate([Features.open(store.read(step).path) for step in pipeline.features])
    images = open_pool({f"pool{i}": store.read(step) for i, step in enumerate(pipeline.pools)}, pipeline.pool_locations)
    vectors = np.concatenate([block for _, block in features.blocks(BLOCK_ROWS)])
    return Embedded(vectors, [images.key(row) for row in range(len(images))])


def search(
    pool: str | Path,
    query: str | Path | None = None,
    *,
    text: str | None = None,
    top: int = 20,
    retriever: str = RETRIEVER,
    overrides: Sequence[str] = (),
) -> "pa.Table":
    """The `top` pool images most similar to each query, an image or a folder of them, or to `text`, which needs a
    retriever of images and text (`clip_b16_text`); columns as in `Selected.table`."""
    from sept.app.search_report import look_up

    if (query is None) == (text is None):
        given = "neither" if text is None else f"query={str(query)!r} and text={text!r}"
        raise ConfigError(f"search looks up a query (an image or a folder) or a text, one of the two; given: {given}")
    looked_up = f"query.path={quoted(str(query))}" if text is None else f"query.text={quoted(text)}"
    e = _composed(pool, None, [f"retriever={retriever}", looked_up, f"query.top={top}", *overrides])
    pipeline, store = make(e, lambda steps: steps.features, selection_only=True)
    return look_up(e, pipeline, store).rename_columns({"pool_key": "path"}).select(COLUMNS)


def pretrain(
    pool: str | Path,
    task: str | Path,
    *,
    budget: int,
    retriever: str = RETRIEVER,
    backbone: str = "swin_t",
    overrides: Sequence[str] = (),
) -> Path:
    """A backbone pre-trained on the selection for the task: the folder that `timm.create_model("local-dir:FOLDER",
    pretrained=True)` loads."""
    from sept.backbones.saved import BACKBONE

    chosen = [f"retriever={retriever}", f"budget.images={budget}", f"backbone={backbone}", *overrides]
    pipeline, store = make(_composed(pool, task, chosen), lambda steps: [steps.pretrain])
    return store.read(pipeline.pretrain).path / BACKBONE


def run(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Runs one cell, as `python train.py` with these overrides does, and returns its row (`sept.results.row`)."""
    from sept.results import row

    e = _checked(overrides)
    if e.plan:
        raise ConfigError(
            "plan=true: a plan is printed by train.py; leave it out, or use `python train.py ... plan=true`"
        )
    if e.export is not None:
        raise ConfigError("export=FOLDER is for search.py, which stops at the selection: leave it out here")
    if e.advise:
        raise ConfigError("advise=true: the advice is printed by search.py: leave it out here")
    pipeline, store = make(e, lambda steps: [steps.run])
    done = row(e, pipeline.run, store, pipeline.untrained)
    assert done is not None
    return done


def _composed(pool: str | Path, task: str | Path | None, overrides: Sequence[str]) -> Experiment:
    chosen = _found("pool", pool, POOLS) + ([] if task is None else _found("task", task, TASKS)) + [*overrides]
    return _checked(chosen)


def _checked(overrides: Sequence[str]) -> Experiment:
    if isinstance(overrides, str) or not all(isinstance(each, str) for each in overrides):
        raise ConfigError(f"overrides={overrides!r}: must be a list of strings KEY=VALUE, as on a command line")
    sweeps = [each for each in overrides if each in compose.MULTIRUN or each.lstrip("+").startswith("table=")]
    if sweeps:
        raise ConfigError(f"overrides: {sweeps[0]!r} asks for several runs: call once for each, or use train.py")
    if wrong := [each for each in overrides if "=" not in each]:
        raise ConfigError(f"overrides: {wrong[0]!r} is not KEY=VALUE")
    compose.check_overrides([*overrides])
    _forget()
    return compose.experiment(overrides)


def _forget() -> None:
    """What calls before have listed: images may have come since, and the current folder be another."""
    for module, name in LISTED:
        if module in sys.modules:
            getattr(sys.modules[module], name).cache_clear()


def _found(group: str, given: str | Path, by_suffix: dict[str, str]) -> list[str]:
    """Overrides for the group's option of this name, else for the data at this path."""
    text = str(given)
    if isinstance(given, str) and text in compose.options(group):
        return [f"{group}={text}"]
    kind = by_suffix.get(Path(text).suffix.lower(), FOLDERS[group])
    return [f"{group}={kind}", f"{group}.path={quoted(text)}"]
