"""Weights & Biases: one run per trained artefact, one per table. If it is down, slow or missing, training continues.

A run's id is the artefact's stage and the start of its key; an attempt that resumes from a checkpoint continues the
run. What cannot be sent is kept in ./wandb for `wandb sync`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sept.config import Experiment, Logger
from sept.errors import SeptError
from sept.pipeline import Pipeline
from sept.results import choices
from sept.runtime.hardware import Loggers, no_loggers, resolve
from sept.store import Store
from sept.store.build import commit
from sept.store.disk import MARK
from sept.store.step import CHECKPOINTS, load_artefact
from sept.tracking.run import begin, end, never_raise

SENT = "sent-to-wandb"  # among the checkpoints: the last step whose values were sent
STEP = "trainer/global_step"  # Lightning's name of the step that values belong to
TABLE, GALLERY, REPORT = "results", "gallery", "report"
TOTALS = {"flops": "total_flops", "wall_s": "total_wall_s"}  # of a row; those of the artefact alone are its facts
TOTALS |= {name: name for name in ("shared_flops", "shared_wall_s", "pool_images")}


@dataclass(frozen=True)
class _Place:
    """An artefact's identity, the folder where it is built and where it will be published."""

    identity: Mapping[str, Any]
    work: Path
    published: Path


class _Open:
    """The open run of this process, and its artefact."""

    run: Any = None
    place: _Place


def follow(e: Experiment) -> Loggers:
    """A factory of the loggers of this experiment's trainings, besides their CSV files."""
    return no_loggers if e.logger.name == "csv" else partial(_wandb, e, _places(e))


def _places(e: Experiment) -> dict[str, _Place]:
    """All artefacts of the experiment, keyed by the names of their work folders without an owner."""
    try:
        store = Store(e.store.root, mode="read-only")
        steps = Pipeline(e, resolve(e.hardware)).run.walk()
    except SeptError:  # the experiment itself reports why
        return {}
    found = {}
    for step in steps:
        identity = {"stage": step.stage, "version": step.version, "key": step.key, "slug": step.slug}
        work = store.free_folder(step)
        found[work.name] = _Place(identity, work, store.root / step.stage / step.folder_name)
    return found


def _wandb(e: Experiment, places: Mapping[str, _Place], name: str, spec: Mapping[str, Any]) -> list:
    """A Lightning logger whose run has the artefact's name as its id; none, with a warning, if W&B fails."""
    with never_raise("continuing without it"):
        from sept.tracking.logger import SparingLogger

        folder, name = name, name.partition(MARK)[0]
        place = places[name]
        stage, checkpoints = place.identity["stage"], place.work.with_name(folder) / CHECKPOINTS
        goes_on = any(checkpoints.glob("*.pt"))
        config = {**spec, **place.identity, "commit": commit(), "cell": choices(e)}
        _finish({})
        run = begin(e.logger, name, f"{stage} {place.identity['slug']}", config, goes_on)
        _Open.run, _Open.place = run, place
        run.define_metric("*", step_metric=STEP)
        if stage == "pretrain" and not goes_on and e.hardware.devices == 1:  # else this process has not listed the pool
            with never_raise("its gallery is not sent"):
                from sept.tables.montage import montage

                run.log(_images(montage(e)))
        return [SparingLogger(run, checkpoints / SENT, goes_on)]
    return []


def conclude(row: Mapping[str, Any]) -> None:
    """Finishes the run of a cell, if it was trained in this process, with its scores and the whole cell's cost."""
    if _Open.run is not None and _Open.place.identity["key"] == row["key"]:
        _finish({name: row[key] for key, name in TOTALS.items()})


def log_table(
    spec: Logger,
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    pictures: Mapping[str, Any] | None = None,
    page: str | None = None,
) -> None:
    """Logs a table of results as a `wandb.Table` of the run `table-NAME`; each call adds its current state.

    pictures: PIL images by caption, sent with it. page: HTML that needs nothing else, shown beside it.
    """
    with never_raise("the table is not sent"):
        import wandb

        _finish({})
        run = begin(spec, f"table-{name}", f"table {name}", {"table": name}, goes_on=True)
        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        shown = {} if page is None else {REPORT: wandb.Html(page, inject=False)}
        run.log({TABLE: table, **shown, **_images(pictures or {})})
        end(run, 0)


def send_table(name: str, cells: Sequence[Experiment], lines: Sequence[dict[str, Any]]) -> None:
    """Sends the table of a sweep, the galleries of its rows (`sept.tables.rows`) and its report with all figures, if
    its cells log to W&B."""
    if cells[0].logger.name == "wandb":
        from sept.tables import COLUMNS
        from sept.tables.montage import montages
        from sept.tables.report import report

        values = [[name, *(line.get(each) for each in COLUMNS)] for line in lines]
        log_table(cells[0].logger, name, ("table", *COLUMNS), values, montages(lines), report({name: lines}))


def _images(pictures: Mapping[str, Any]) -> dict[str, list]:
    import wandb

    images = [wandb.Image(picture, caption=caption, file_type="jpg") for caption, picture in pictures.items()]
    return {GALLERY: images} if images else {}


def _finish(more: Mapping[str, Any]) -> None:
    """Ends the open run, if any, with the facts of its artefact, if published, and more."""
    run, _Open.run = _Open.run, None
    if run is None:
        return
    with never_raise("continuing without it"):
        done = not _Open.place.work.exists()  # it was moved when published
        if done:
            made = load_artefact(_Open.place.published)
            run.summary.update({**made.facts, "wall_s": made.manifest["wall_s"], **more})
        end(run, 0 if done else 1)
