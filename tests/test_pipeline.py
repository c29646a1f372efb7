"""What a result's key is made of: each setting changes the stages that read it, and what is built on them, alone."""

import copy
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import TINY
from hydra import compose, initialize_config_dir

from sept.compose import CONF, load, one_line, register
from sept.compose import experiment as whole
from sept.config import Experiment
from sept.data import locate
from sept.data.read import read
from sept.data.settings import Pool, Source, Task
from sept.errors import ConfigError, DataError
from sept.pipeline import Pipeline
from sept.retrieval.selections import SELECTION
from sept.runtime.hardware import Runtime, resolve
from sept.stages.draws import SourceSpec
from sept.store import Artefact, Step, Store
from sept.transfer.recipes import Classify


def experiment(*overrides: str) -> Experiment:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load(compose("config", [*TINY, *overrides]))


def role(step: Step) -> str:
    """The stage, and `curated` before it for what the retriever is trained on."""
    first = step.inputs.get("selection", step)
    return f"curated {step.stage}" if isinstance(first.spec, SourceSpec) else step.stage


def steps(e: Experiment) -> dict[str, Step]:
    return {role(step): step for step in Pipeline(e, resolve(e.hardware)).run.walk()}


def keys(e: Experiment) -> dict[str, str]:
    return {name: step.key for name, step in steps(e).items()}


def built_on(names: set[str], graph: dict[str, Step]) -> set[str]:
    """`names` and every step that one of them goes into."""
    return {name for name, step in graph.items() if names & {role(each) for each in step.walk()}}


READ_BY = {  # the longest prefix of a setting counts; steps built on those are changed too
    "seed": {"queries", "pretrain", "finetune"},
    "pool.images": {"pool"},
    "pool.side": {"pool"},
    "pool.seed": {"pool"},
    "pool.curated": {"curated selection"},
    "pool": set(),
    "retriever.train": {"retriever"},
    "retriever.epochs": {"retriever"},
    "retriever.backbone": {"retriever"},
    "retriever.seed": {"retriever"},
    "retriever.preprocess": {"features", "queries"},
    "retriever.train.store_side": {"retriever", "curated subset"},
    "retriever.train.name": set(),
    "retriever.train.start_lr": set(),  # of a continued training alone
    "retriever.train.start_warmup_epochs": set(),
    "retriever.feature": {"features", "queries"},
    "retriever": set(),
    "index": set(),
    "query": set(),
    "query.name": {"queries"},
    "budget.images": {"selection"},
    "compute.epochs": {"pretrain"},
    "compute.warmup": {"pretrain"},
    "compute": set(),
    "init": set(),
    "pretrain": {"pretrain"},
    "pretrain.name": set(),
    "pretrain.start_lr": set(),  # of a continued training alone
    "pretrain.start_warmup_epochs": set(),
    "backbone": {"pretrain", "finetune"},
    "selector": set(),
    "pretrain.store_side": {"subset"},
    "finetune": {"finetune"},
    "finetune.name": set(),
    "shot.per_class": {"queries", "finetune"},
    "task": {"task"},
    "task.name": set(),
    "task.path": set(),
    "task.test_fraction": set(),
    "hardware": set(),
    "engine": set(),
    "leak": {"selection"},
    "hardware.compile": {"retriever", "pretrain"},
    "hardware.precision": {"retriever", "features", "queries", "pretrain", "finetune"},
    "logger": set(),
    "carbon": set(),
    "store": set(),
    "table": set(),
    "plan": set(),
    "advise": set(),
    "export": set(),
    "export_copies": set(),
}
CHOSEN = {  # where another value of the same type would not be one
    "task.domain": "weaves",
    "pretrain.schedule": "constant",
    "hardware.precision": "bf16-mixed",
    "hardware.threads": 7,
    "hardware.workers": 5,
    "pool.curated": None,
    "retriever.feature": "cls",
    "retriever.preprocess.crop": 28,
    "retriever.preprocess.interpolation": "bilinear",
    "backbone.statistics": "imagenet",
    "retriever.backbone.statistics": "timm",
    "index.name": "exact",
    "engine.name": "ray",
    "leak": "remove",
    "compute.include": ["embedding"],
    "pool.sources": {"more": Source("folder", "/nowhere")},
    "pool.without": ["more"],
}
NOT_VARIED = {
    *("pool.kind", "task.kind", "init.name", "hardware.accelerator"),
    *("retriever.backbone.name", "backbone.name", "selector.name", "retriever.library"),
    "include_task",  # adds a step: tests/test_task_images.py
}


def settings(group: object, prefix: str = "") -> list[str]:
    """Every setting with a value in this experiment; the arguments of a model are one."""
    found = []
    for item in fields(group):  # type: ignore[arg-type]
        value, name = getattr(group, item.name), prefix + item.name
        if is_dataclass(value):
            found += settings(value, f"{name}.")
        elif value is not None:
            found.append(name)
    return found


def other(value: object) -> object:
    match value:
        case bool():
            return not value
        case int():
            return value + 2
        case float():
            return value + 0.123
        case str():
            return value + "x"
        case []:
            return ["pool"]
        case list():
            return [other(value[0]), *value[1:]]
        case dict():
            return {**value, "embed_dim": value["embed_dim"] * 2}
    raise AssertionError(value)


BASE = experiment()


@pytest.mark.parametrize("name", [name for name in settings(BASE) if name not in NOT_VARIED])
def test_a_setting_changes_the_stages_that_read_it_and_no_others(name):
    changed = copy.deepcopy(BASE)
    *groups, last = name.split(".")
    group = changed
    for each in groups:
        group = getattr(group, each)
    setattr(group, last, CHOSEN[name] if name in CHOSEN else other(getattr(group, last)))
    prefix = max((known for known in READ_BY if f"{name}.".startswith(f"{known}.")), key=len)
    before, after = steps(BASE), keys(changed)
    assert {each for each in before if before[each].key != after[each]} == built_on(READ_BY[prefix], before)


def test_the_seed_of_fine_tuning_repeats_nothing_else():
    one, two = keys(experiment("finetune.seed=0")), keys(experiment("finetune.seed=1"))
    assert {name for name in one if one[name] != two[name]} == {"finetune"}


def test_random_and_sept_share_the_pool_and_differ_from_the_selection_on():
    sept, random = keys(experiment("init=sept")), keys(experiment("init=random"))
    assert {name for name in random if random[name] == sept[name]} == {"pool", "task"}
    assert random.keys() == {"pool", "selection", "subset", "pretrain", "task", "finetune"}


def test_random_initialisation_needs_no_pool():
    assert keys(experiment("init=rand_init", "pool=folder", "pool.path=/nowhere")).keys() == {"task", "finetune"}


def test_where_things_lie_is_not_in_a_key(tmp_path):
    for name in ("here", "there"):
        for n in range(20):
            path = tmp_path / name / f"{n % 2}" / f"{n}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%d" % n)
    folders = "pool=folder pool.path={0} task=imagefolder task.path={0} budget.images=16 shot.per_class=2"
    here, there = (
        keys(experiment(*folders.format(tmp_path / name).split(), f"store.root={name}")) for name in ("here", "there")
    )
    assert here == there
    (tmp_path / "there" / "0" / "0.jpg").write_bytes(b"x")
    locate.identify.cache_clear()  # as another process would find it
    read.cache_clear()
    changed = keys(experiment(*folders.format(tmp_path / "there").split()))
    assert {name for name in here if here[name] != changed[name]} == set(here)


def test_flops_and_images_pay_for_as_many_steps_as_they_suffice_for():
    epochs = steps(experiment("compute.epochs=3"))["pretrain"]
    images, flops = (epochs.estimate[name] for name in ("images", "flops"))
    for length in (f"compute.images={images:.0f}", f"compute.flops={flops * 1.0001}"):
        made = steps(experiment("compute.epochs=null", length))["pretrain"]
        assert made.estimate == epochs.estimate
    with pytest.raises(ConfigError, match="is less than one step, which takes"):
        steps(experiment("compute.epochs=null", f"compute.flops={(BASE.pretrain.batch_size - 1) * flops / images}"))


@pytest.mark.parametrize("pretrain", ["moby_micro", "moby_small", "ibot_micro"])
def test_a_budget_of_flops_is_spent_to_within_a_step(pretrain):
    backbone = {"moby_micro": "swin_micro", "moby_small": "hog_micro", "ibot_micro": "vit_micro"}[pretrain]
    chosen = (f"pretrain={pretrain}", f"backbone={backbone}", "compute.epochs=null", "compute.flops=1e13")
    made = steps(whole([*chosen]))["pretrain"]
    assert 0.99 * 1e13 < made.estimate["flops"] <= 1e13


def test_a_budget_can_have_to_pay_for_embedding_and_selection_too():
    def flops(*overrides):
        made = steps(experiment("compute.epochs=null", "pool.images=40000", "compute.flops=3e12", *overrides))
        return made["pretrain"].estimate["flops"], made["features"].estimate["flops"]

    alone, embedding = flops()
    assert embedding > 0.01 * alone
    for tasks in (1, 4):
        charged, _ = flops("compute.include=[embedding]", f"compute.tasks={tasks}")
        assert alone - charged == pytest.approx(embedding / tasks, abs=0.01 * alone)
    with pytest.raises(ConfigError, match="of which embedding take"):
        flops("compute.include=[embedding]", "compute.flops=1e10")
    with pytest.raises(ConfigError, match=r"only compute\.flops pays"):
        whole(["compute.include=[embedding]"])
    with pytest.raises(ConfigError, match="names nothing that tasks share"):
        whole(["compute.tasks=3"])


@pytest.mark.parametrize("charge", ["embedding", "selection"])
def test_a_budget_does_not_pay_for_what_is_not_known_before_the_pool_is_listed(charge, tmp_path):
    (tmp_path / "a-000.tar").touch()
    budget = ("compute.epochs=null", "compute.flops=3e12", f"compute.include=[{charge}]")
    with pytest.raises(ConfigError, match=rf"compute\.include has {charge}: how many images .* listed"):
        steps(experiment("pool=webdataset", f"pool.path={tmp_path}", *budget))


def test_a_budget_does_not_pay_for_a_retriever_of_unknown_training():
    budget = ("compute.epochs=null", "compute.flops=3e13", "compute.include=[retriever]")
    with pytest.raises(ConfigError, match="training of ibot_micro, which is read from a file, took an unknown number"):
        steps(experiment("retriever=ibot_micro", *budget))


def test_a_weights_file_is_known_by_its_content(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"a")
    (tmp_path / "b.pth").write_bytes(b"a")
    (tmp_path / "c.pth").write_bytes(b"c")
    a, b, c = (keys(experiment(f"retriever.weights={tmp_path}/{name}.pth"))["retriever"] for name in "abc")
    assert a == b != c
    assert "curated selection" not in keys(experiment(f"retriever.weights={tmp_path}/a.pth"))


def test_a_pre_training_needs_a_batch_of_images_and_a_selection_does_not():
    pipeline = Pipeline(experiment("budget.images=10"), Runtime())
    assert pipeline.selection.estimate["images"] == 10
    with pytest.raises(ConfigError, match=r"budget\.images=10 is less than one batch: pretrain\.batch_size=16"):
        _ = pipeline.run


def test_golden_keys():
    """They change with a stage's VERSION or with what it reads, and not otherwise."""
    task = Task(kind="patterns", domain="glyphs", train_per_class=5, test_per_class=3, side=32)
    e = Experiment(task=task, finetune=Classify())
    e.pool = Pool(kind="patterns", images=400, side=32)
    e.init.name, e.backbone.name = "rand_init", "swin_tiny_patch4_window7_224"
    pipeline = Pipeline(e, Runtime())
    assert {step.stage: step.key[:16] for step in (pipeline.task, *pipeline.pools, pipeline.run)} == GOLDEN


GOLDEN = {"task": "a6798872ec1adc27", "pool": "ce972ee6da44b686", "finetune": "fbb5ac05bd69cc55"}


def selected(artefact: Artefact) -> np.ndarray:
    return pq.read_table(artefact.path / SELECTION)["row"].to_numpy()


@pytest.mark.parametrize("init", ["random", "sept"])
def test_a_smaller_budget_selects_the_first_of_a_larger_one(init, tiny):
    whole = Store(tiny.store).make(steps(experiment(f"init={init}"))["selection"])
    part = Store(tiny.store).make(steps(experiment(f"init={init}", "budget.images=20"))["selection"])
    assert (len(selected(part)), len(selected(whole))) == (20, 32)
    assert np.array_equal(selected(part), selected(whole)[:20])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_random_subset_may_have_a_share_of_one_source(share, tiny):
    mixed = experiment("init=random", "selector.source=curated", f"selector.share={share}")
    artefact = Store(tiny.store).make(steps(mixed)["selection"])
    keys = pq.read_table(artefact.path / SELECTION)["pool_key"].to_pylist()
    assert len(set(keys)) == 32
    assert sum(key.startswith("curated") for key in keys) == round(32 * share)


def test_a_share_without_its_source_is_refused():
    with pytest.raises(ConfigError, match="set both or neither"):
        experiment("init=random", "selector.share=0.5")
    with pytest.raises(ConfigError, match=r"selector\.share"), one_line():
        experiment("init=sept", "selector.share=0.5", "selector.source=curated")


def test_too_few_images_are_refused_before_any_work(tmp_path):
    for n in range(20):
        path: Path = tmp_path / f"{n % 2}" / f"{n}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % n)
    with pytest.raises(ConfigError, match=r"budget\.images=32 but the pool holds only 20 images"):
        steps(experiment("pool=folder", f"pool.path={tmp_path}"))
    with pytest.raises(DataError, match=r"class '0' has 8 training images but shot\.per_class=9"):
        steps(experiment("init=rand_init", "task=imagefolder", f"task.path={tmp_path}", "shot.per_class=9"))
