"""`python -m sept.tracking.workspace ENTITY [PROJECT]`: creates the W&B page that shows the runs of a project.

A workspace is a set of charts, stored by W&B; this one shows the tables, accuracy over cost, curves and pictures, under
the names that `sept.tracking` and the trainings use.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sept.config import Logger
from sept.errors import ConfigError, SeptError
from sept.results import METRICS
from sept.runtime import command
from sept.tracking import GALLERY, REPORT, STEP, TABLE, TOTALS
from sept.tracking.run import has_key

TITLE = "sept"
SELF_SUPERVISED = {
    "loss": "loss",
    "loss_over_chance": "loss relative to chance level",
    "feature_std": "deviation of the features: 1 spread out, 0 collapsed",
    "effective_rank": "effective rank of the features",
    "knn_top1": "k-NN top-1 on the few shots",
    "teacher_entropy_over_uniform": "entropy of iBOT's teacher relative to the maximum",
}
SUPERVISED = {name: title for name, title in METRICS.items() if name not in ("frozen_top1", "probe_top1")}  # no curves
PICTURES = (GALLERY, "views", "predictions")
WIDE, HIGH = 24, 12  # cells of W&B's grid: the full width, and the height of a table


def workspace(entity: str, project: str) -> Any:
    """The `wandb_workspaces` object; nothing is sent. Raises ConfigError if that package is not installed."""
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ConfigError(f"a workspace needs wandb-workspaces: pip install 'sept[workspace]' ({error})") from None
    sections = {
        "Tables": [
            reports.WeavePanelSummaryTable(table_name=TABLE, layout=reports.Layout(w=WIDE, h=HIGH)),
            reports.MediaBrowser(title=REPORT, media_keys=[REPORT], layout=reports.Layout(w=WIDE, h=HIGH)),
        ],
        "Accuracy and cost": _costs(reports),
        "Pre-training": _curves(reports, SELF_SUPERVISED),
        "Fine-tuning": _curves(reports, SUPERVISED),
        "Selections and predictions": [reports.MediaBrowser(title=name, media_keys=[name]) for name in PICTURES],
    }
    return workspaces.Workspace(
        name=TITLE,
        entity=entity,
        project=project,
        sections=[workspaces.Section(name=name, panels=[*made], is_open=True) for name, made in sections.items()],
        settings=workspaces.WorkspaceSettings(x_axis=STEP, max_runs=100),
    )


def _costs(reports: Any) -> Iterator[Any]:
    """Charts of the fine-tuned models: scores over cost, and by initial weights."""
    score = reports.SummaryMetric("score")
    flops, budget = reports.SummaryMetric(TOTALS["flops"]), reports.Config("cell.budget")
    frozen = reports.SummaryMetric("frozen_top1")
    yield reports.ScatterPlot(title="score over FLOPs", x=flops, y=score, log_x=True)
    yield reports.ScatterPlot(title="score over budget", x=budget, y=score, log_x=True)
    yield reports.ScatterPlot(title="frozen top-1 over budget", x=budget, y=frozen, log_x=True)
    yield reports.BarPlot(title="score by init", metrics=[score], groupby=reports.Config("cell.init"))


def _curves(reports: Any, named: Mapping[str, str]) -> Iterator[Any]:
    for name, title in named.items():
        yield reports.LinePlot(title=title, x=STEP, y=[name])


def main(arguments: Sequence[str] | None = None) -> int:
    """Saves the workspace, prints its URL and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sept.tracking.workspace", description=__doc__)
    parser.add_argument("entity", help="W&B user or team")
    parser.add_argument("project", nargs="?", default=Logger().project, help="as logger.project")
    options = parser.parse_args(arguments)
    try:
        print(_saved(workspace(options.entity, options.project)))
    except SeptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _saved(made: Any) -> str:
    """Its URL. Raises ConfigError if W&B refuses it."""
    if not has_key():
        raise ConfigError("a workspace is stored by W&B, which needs a key: run `wandb login` first")
    try:
        return str(made.save().url)
    except Exception as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"W&B refused the workspace {made.entity}/{made.project}: {told}") from None


if __name__ == "__main__":
    command.run(main)
