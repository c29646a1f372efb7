"""What CONTRIBUTING.md shows works as it stands there."""

import re
import sys
from types import ModuleType

import micro
import numpy as np
import official
import pytest
import torch
import yaml
from conftest import ROOT

from sept.backbones import Backbone
from sept.data.tasks.task import Task
from sept.methods.recipe import Length
from sept.methods.training import Pretraining
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features
from sept.retrieval.index import search
from sept.retrieval.select import FilteredLists
from sept.runtime.hardware import no_loggers
from sept.selectors.context import SelectionContext

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_worked_example_of_a_task_reads_what_it_says(tmp_path):
    [code] = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "labels.txt" in block]
    module: dict = {"__name__": "leaves"}
    exec(code, module)
    for label, name in enumerate(("0001.jpg", "0002.jpg", "0003.jpg", "0004.jpg")):
        official.put(tmp_path / "leaves" / "images" / name, label % 2, label)
    official.write_text(
        tmp_path / "leaves" / "labels.txt",
        "oak 0001.jpg train\nbeech 0002.jpg train\noak 0003.jpg test\nbeech 0004.jpg test\n",
    )
    task = module["read"](tmp_path)
    assert isinstance(task, Task)
    assert task.classes == ["beech", "oak"]
    assert [(example.id, example.label) for example in task.train + task.test] == [
        *(("images/0002.jpg", 0), ("images/0001.jpg", 1), ("images/0004.jpg", 0), ("images/0003.jpg", 1))
    ]


def test_the_worked_example_of_a_pool_has_the_keys_of_its_group():
    [block] = [block for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "feeder" in block]
    assert yaml.safe_load(block).keys() == yaml.safe_load((ROOT / "conf" / "pool" / "sept155m.yaml").read_text()).keys()


def block(path: str, language: str = "python") -> str:
    [found] = [
        text for text in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if text.startswith(f"# {path}")
    ]
    return found


def module(path: str, monkeypatch) -> ModuleType:
    """The block as the module that it says it is."""
    name = path.removesuffix(".py").replace("/", ".")
    made = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(block(path), path, "exec"), made.__dict__)
    return made


@pytest.fixture
def barlow_twins(monkeypatch):
    monkeypatch.setitem(sys.modules, "sept.methods.barlow_twins", ModuleType("sept.methods.barlow_twins"))
    recipe = module("sept/methods/barlow_twins/recipe.py", monkeypatch)
    return recipe, module("sept/methods/barlow_twins/learner.py", monkeypatch)


def test_the_worked_example_of_a_method_trains_and_resumes(barlow_twins, tmp_path):
    recipe, _ = barlow_twins
    values = yaml.safe_load(block("conf/pretrain/barlow_twins_micro.yaml", "yaml"))
    assert values.pop("defaults")[0] == {"/settings@_here_": "barlow_twins"}
    given = {name: float(value) if name in ("warmup_lr", "min_lr") else value for name, value in values.items()}
    settings = recipe.BarlowTwinsRecipe(**given | {"batch_size": 8, "lr_batch": 8})
    settings.check("pretrain")

    packed = micro.subset(tmp_path / "subset", 16)

    def train(name: str):
        folder = tmp_path / name
        folder.mkdir()
        length = Length.of_epochs(3, len(packed), settings.batch_size)
        training = Pretraining(settings, micro.SWIN, packed, 0, length, {}, folder, "test", no_loggers)
        return training.run(micro.MACHINE)

    first, second = train("first"), train("second")
    assert first.steps == 6
    assert 0 < first.health()["loss_over_chance"] < 2
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_the_loss_of_the_worked_method_is_the_papers(barlow_twins):
    _, learner = barlow_twins
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 12, 5))
    scaled = [(z - z.mean(0)) / z.std(0) for z in (first, second)]
    expected = 0.0
    for i in range(5):
        for j in range(5):
            c = float(np.mean(scaled[0][:, i] * scaled[1][:, j]))
            expected += (1 - c) ** 2 if i == j else 0.3 * c**2
    found = learner.redundancy(torch.from_numpy(first), torch.from_numpy(second), 0.3)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_the_worked_example_of_a_retriever_gives_a_vector_an_image(monkeypatch):
    from sept.backbones.networks import build

    gem = module("sept/retrievers/gem.py", monkeypatch).gem
    network = build(micro.VIT.name, micro.VIT.args).eval()
    with torch.no_grad():
        found = gem(network, torch.randn(3, 3, micro.SIDE, micro.SIDE))
    assert found.shape == (3, 32)
    assert (found > 0).all()


def test_the_worked_example_of_a_selector_chooses_the_nearest(monkeypatch, tmp_path):
    nearest_mean = module("sept/selectors/nearest_mean.py", monkeypatch).nearest_mean
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(50, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    embed(tmp_path, len(vectors), lambda first, last: (vectors[first:last], []), 0.5, 20)
    features = Features.open(tmp_path)
    queries = vectors[:3].astype(np.float32) / np.linalg.norm(vectors[:3].astype(np.float32), axis=1, keepdims=True)
    lists = FilteredLists(lambda depth: search(queries, features, depth), features.embedded)
    rows = nearest_mean(SelectionContext(features, queries, 10, 0, lists))
    scores = vectors.astype(np.float64) @ queries.astype(np.float64).mean(0)
    assert rows.tolist() == np.argsort(-scores, kind="stable")[:10].tolist()


def test_the_worked_example_of_a_backbone_is_one_of_timms():
    from sept.backbones import trial

    [text] = [each for each in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if each.startswith("name: resnet26")]
    trial.attempt("backbone", "pretrain", Backbone(**yaml.safe_load(text)), [32], ("pooled",), drop_path_rate=0.0)
