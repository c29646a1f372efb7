"""The workspace shows what is really sent: its names are those of trainings, rows and pictures."""

import csv
import json
import os
import sys
import warnings

import pytest
import wandb
from conftest import Tiny
from micro import MACHINE, SWIN, Labelled, cropped, moby, subset
from test_tracking import experiment
from wandb_server import KEY, serving

from sept.data.loading import loader
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.methods.training import VIEWS
from sept.results import choices
from sept.tracking import GALLERY, REPORT, STEP, TABLE, TOTALS
from sept.tracking.workspace import PICTURES, SELF_SUPERVISED, SUPERVISED, main, workspace
from sept.training.callbacks import KNNProbe
from sept.training.loop import train
from sept.transfer.detection_metrics import HEADLINE, SCALARS
from sept.transfer.segment import Segmenter
from sept.transfer.training import PREDICTIONS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the package itself, which is written for an older pydantic
    pytest.importorskip("wandb_workspaces.workspaces")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Without the key of whoever runs the tests; what is set before is read anew."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    yield
    wandb.teardown()


def panels(made) -> dict[str, list[dict]]:
    """Of each section, as they would be sent."""
    sections = json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return {each["name"]: each["panels"] for each in sections["section"]["panelBankConfig"]["sections"]}


def test_it_has_tables_costs_curves_and_pictures():
    made = panels(workspace("me", "mine"))
    assert list(made) == ["Tables", "Accuracy and cost", "Pre-training", "Fine-tuning", "Selections and predictions"]
    assert f'"val": "{TABLE}"' in json.dumps(made["Tables"][0])
    assert made["Tables"][1]["config"]["mediaKeys"] == [REPORT]
    curves = [panel["config"] for name in ("Pre-training", "Fine-tuning") for panel in made[name]]
    assert [panel["metrics"] for panel in curves] == [[name] for name in (*SELF_SUPERVISED, *SUPERVISED)]
    assert {panel["xAxis"] for panel in curves} == {STEP}
    shown = [panel["config"]["mediaKeys"] for panel in made["Selections and predictions"]]
    assert shown == [[GALLERY], [VIEWS], [PREDICTIONS]] == [[name] for name in PICTURES]


def test_scores_are_shown_over_what_rows_say_they_cost(tiny: Tiny):
    *plots, bars = [panel["config"] for panel in panels(workspace("me", "mine"))["Accuracy and cost"]]
    facts = json.loads((tiny.folder("finetune", "patterns_a-sept") / "manifest.json").read_bytes())["facts"]
    chosen = choices(experiment())
    assert {plot["yAxis"] for plot in plots} == {"summary:score", "summary:frozen_top1"}
    assert {"score", "frozen_top1"} < set(facts)
    assert [plot["xAxis"] for plot in plots[:2]] == [f"summary:{TOTALS['flops']}", "config:cell.value.budget"]
    assert (bars["metrics"], bars["groupBy"]) == (["summary_metrics.score"], "cell.value.init")
    assert {"budget", "init"} < set(chosen)


def columns(folder) -> set[str]:
    [path] = folder.glob("curves/*/metrics.csv")
    with path.open() as file:
        return set(next(csv.reader(file)))


def test_its_curves_are_logged_by_trainings(tiny: Tiny, tmp_path):
    packed = subset(tmp_path / "subset", 16)
    learner = MoBy(moby(), SWIN, seed=0, length=Length(1, 1))
    look = KNNProbe(loader(Labelled(4, 2), [[(0, 0), (0, 1), (0, 2), (0, 3)]], 0), 1)
    train(learner, cropped(learner, packed, 16), tmp_path, MACHINE, what="test", watchers=[look])
    trained = columns(tmp_path) | columns(tiny.folder("retriever"))
    assert set(SELF_SUPERVISED) <= trained
    tested = columns(tiny.folder("finetune", "patterns_a-sept")) | {*SCALARS, HEADLINE} | set(Segmenter.__annotations__)
    assert set(SUPERVISED) <= tested


def test_it_is_saved_where_the_key_belongs_and_its_address_is_told(monkeypatch, capsys):
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        assert main(["me", "mine"]) == 0
    assert capsys.readouterr().out.startswith(f"{server.url}/me/mine?nw=")
    [view] = server.views
    assert (view["entityName"], view["projectName"]) == ("me", "mine")
    assert "Accuracy and cost" in view["spec"]


def refused(capsys, *arguments: str) -> str:
    assert main(arguments) == 78
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_without_a_key_or_the_package_or_an_answer_one_line_says_so(monkeypatch, capsys):
    assert refused(capsys, "me").startswith("error: a workspace is stored by W&B, which needs a key: run `wandb login`")
    monkeypatch.setenv("WANDB_API_KEY", "too short to be one")
    assert refused(capsys, "me", "mine").startswith("error: W&B refused the workspace me/mine: ")
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert refused(capsys, "me").startswith("error: a workspace needs wandb-workspaces: pip install 'sept[workspace]'")
