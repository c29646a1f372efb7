"""Where training starts: published weights fine-tuned as they are, and pre-trainings that go on from a file."""

import shutil

import pytest
import timm
import torch
from hub_server import Hub, published
from micro import SIDE, SWIN, VIT, ibot, moby

from sept import compose
from sept.app.making import make
from sept.backbones.files import origin
from sept.backbones.networks import build
from sept.backbones.saved import WEIGHTS
from sept.backbones.weights import save_backbone
from sept.compose import experiment
from sept.errors import ConfigError
from sept.methods.ibot.learner import IBot
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.overrides import command
from sept.pipeline import Pipeline
from sept.results import choices, row
from sept.runtime.hardware import resolve
from sept.store import Store
from sept.tables.statistics import ALIKE, AXES, gain

SETTINGS = (
    *("retriever=ibot_micro", "init=random", "pool.images=200", "budget.images=16", "compute.epochs=1"),
    *("pretrain.batch_size=16", "pretrain.queue=16", "pretrain.warmup_epochs=0", "pretrain.hidden_dim=16"),
    *("task.train_per_class=2", "task.test_per_class=1", "shot.per_class=2", "finetune=probe_micro"),
    *("hardware.accelerator=cpu", "hardware.threads=1"),
)


def cell(*overrides: str):
    return experiment([*SETTINGS, *overrides])


def pipeline(*overrides: str) -> Pipeline:
    e = cell(*overrides)
    return Pipeline(e, resolve(e.hardware))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file for the default backbone."""
    folder, backbone = tmp_path_factory.mktemp("weights") / "shared", cell().backbone
    torch.manual_seed(0)
    save_backbone(build(backbone.name, backbone.args), folder, backbone.name, backbone.args, {})
    return folder / WEIGHTS


@pytest.mark.parametrize(("learner", "recipe", "backbone"), [(MoBy, moby(), SWIN), (IBot, ibot(), VIT)])
def test_every_copy_of_the_backbone_starts_from_the_file_and_heads_at_random(tmp_path, learner, recipe, backbone):
    torch.manual_seed(1)
    published = build(backbone.name, backbone.args, side=SIDE)
    save_backbone(published, tmp_path / "file", backbone.name, backbone.args, {})
    made, fresh = (learner(recipe, backbone, seed=0, length=Length(2, 2)) for _ in range(2))
    made.start_from(tmp_path / "file" / WEIGHTS)
    assert len(made.encoders) == 2
    assert any(made.encoder is each for each in made.encoders)
    for encoder in made.encoders:
        state = encoder.state_dict()
        assert all(torch.equal(state[name], value) for name, value in published.state_dict().items())
    inside = {id(each) for encoder in made.encoders for each in encoder.parameters()}
    others = fresh.state_dict()
    heads = [(name, value) for name, value in made.named_parameters() if id(value) not in inside]
    assert heads
    assert all(torch.equal(value, others[name]) for name, value in heads)


def test_a_continued_training_has_rates_and_a_warm_up_of_its_own():
    recipe = moby(start="f", lr=1e-3, warmup_lr=1e-5, min_lr=1e-5, warmup_epochs=9).settled()
    assert (recipe.lr, recipe.warmup_lr, recipe.min_lr) == pytest.approx((1e-4, 1e-6, 1e-6))
    assert recipe.warmup_epochs == 1
    assert recipe.start is None
    assert moby(start_lr=0.5, start_warmup_epochs=3).settled() == moby().settled()
    assert moby(lr=1e-3, warmup_epochs=4).settled().lr == 1e-3


def test_the_content_of_the_weights_is_in_the_key_and_their_place_is_not(weights, tmp_path):
    scratch = pipeline().pretrain.key
    begun = pipeline(f"pretrain.from={weights}").pretrain.key
    copied = shutil.copy(weights, tmp_path / "other.safetensors")
    assert scratch != begun == pipeline(f"pretrain.from={copied}").pretrain.key
    assert begun != pipeline(f"pretrain.from={weights}", "pretrain.start_lr=0.01").pretrain.key
    with open(copied, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    assert begun != pipeline(f"pretrain.from={copied}").pretrain.key


def test_a_pre_training_that_goes_on_from_a_file_gives_a_row_that_says_so(weights, tmp_path):
    p, store = pipeline(f"pretrain.from={weights}"), Store(tmp_path / "store")
    assert [step.slug for step in p.pretrain.walk()].count("start-shared") == 1
    store.make(p.run)
    assert row(p.e, p.run, store)["init"] == "random from shared"
    assert store.find(p.pretrain).facts["start"] == WEIGHTS
    assert f"pretrain.from={weights}" in command(p.e)


def test_published_weights_are_a_column_of_their_own(weights, tmp_path):
    p, store = pipeline("init=foundation", f"init.weights={weights}"), Store(tmp_path / "store")
    store.make(p.run)
    assert row(p.e, p.run, store)["init"] == "foundation"
    assert {step.stage for step in p.run.walk()} == {"task", "weights", "finetune"}


def test_a_retriever_is_trained_on_from_a_file_too():
    shipped = "retriever.train.from=sept:ibot_micro"
    start = pipeline("init=sept", "retriever=ibot_micro_train", shipped).retriever.inputs["start"]
    assert start.stage == "weights"
    with pytest.raises(ConfigError, match=r"retriever\.train\.from=.* would have no effect"):
        cell("init=sept", shipped)


def test_from_on_a_command_line_is_the_field_start():
    given = ["pretrain.from=a", "+retriever.train.from=hub", "pretrain.from_x=1", "x.pretrain.from=b", "seed=1"]
    assert compose.renamed(given) == ["pretrain.start=a", "+retriever.train.start=hub", *given[2:]]
    assert compose.written("pretrain.start") == "pretrain.from"
    assert compose.written("pretrain.start_lr") == "pretrain.start_lr"


def test_from_is_understood_wherever_a_command_line_is_read():
    assert "pretrain.from" in compose.known_names()
    with pytest.raises(ConfigError, match=r"^pretrain\.start: write pretrain\.from$"):
        compose.check_overrides(["pretrain.start=a"])
    compose.check_overrides(["pretrain.from=a"])
    compose.check_hydra(["pretrain.from=a", "hydra.job.name=x"])
    swept = compose.asked([*SETTINGS, "pretrain.from=a,hub", "-m"]).cells
    assert [experiment(each, expanded=True).pretrain.start for each in swept] == ["a", "hub"]
    table = compose.expand("quickstart", ["init=sept,random", "pretrain.from=a"])
    assert {each.pretrain.start for each in table} == {"a"}


def test_weights_that_are_of_no_use_are_told_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^pretrain\.from=nowhere: there is no file nowhere$"):
        _ = pipeline("pretrain.from=nowhere").pretrain
    with pytest.raises(ConfigError, match=r"pretrain\.from=x would have no effect: init=rand_init"):
        cell("init=rand_init", "pretrain.from=x")
    p = pipeline("pretrain.from=sept:ibot_micro")
    store = Store(tmp_path / "store")
    with pytest.raises(ConfigError, match=r"^pretrain\.from: .* does not fit SwinTransformer: missing"):
        store.make(p.pretrain)
    assert not list((tmp_path / "store").glob("pool/*"))


@pytest.mark.parametrize(
    ("option", "others"),
    [("init.weights", ["init=foundation"]), ("pretrain.from", []), ("retriever.weights", ["init=sept"])],
)
def test_a_file_that_does_not_fit_is_told_before_any_other_work(option, others, tmp_path):
    folder = tmp_path / "file"
    save_backbone(build("resnet18", {"layers": [1, 1, 1, 1]}), folder, "resnet18", {}, {})
    e = cell(*others, f"{option}={folder / WEIGHTS}", f"store.root={tmp_path / 'store'}")
    with pytest.raises(ConfigError, match=rf"^{option}: .* does not fit \w+: missing"):
        make(e, lambda steps: [steps.run])
    assert not list((tmp_path / "store").glob("[a-z]*/*"))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("hub", "hub"),
        ("a/dinov2.pth", "dinov2"),
        ("a/dino/model.safetensors", "dino"),
        ("store/pretrain/x-1/backbone/model.safetensors", "x-1"),
        ("model.safetensors", "model"),
        ("sept:ibot_micro", "ibot_micro"),
    ],
)
def test_a_file_of_weights_is_named_by_what_tells_it_apart(given, name):
    assert origin(given) == name


def test_a_gain_is_over_random_images_from_the_same_weights():
    def line(init: str, score: float):
        runs = [{"seed": 0, "finetune_seed": 0, "score": score}]
        return dict.fromkeys((*ALIKE, *AXES)) | {"init": init, "runs": runs}

    lines = [line("random", 1), line("sept from a", 9), line("random from a", 4)]
    assert gain(lines[1], lines).mean == 5


def test_a_share_of_a_source_and_a_start_stand_in_one_column():
    assert choices(cell("init=curated", "pretrain.from=f.pth"))["init"] == "random curated 100% from f"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The Hub, with weights of the micro ViT under its name in timm."""
    backbone = cell("backbone=vit_micro").backbone
    with Hub() as server:
        name = timm.get_pretrained_cfg(backbone.name).hf_hub_id
        server.repositories[name] = published(timm.create_model(backbone.name, num_classes=5, **backbone.args))
        server.known_here(monkeypatch, tmp_path / "cache")
        yield server


def test_published_weights_come_from_the_hub_by_the_name_of_the_backbone(hub, tmp_path):
    p, store = pipeline("backbone=vit_micro", "init=foundation"), Store(tmp_path / "store")
    store.make(p.run)
    start = store.find(p.initial_weights)
    assert start.facts["source"] == WEIGHTS
    assert p.initial_weights.slug == "foundation"
    begun = pipeline("backbone=vit_micro", "pretrain.from=hub")
    assert begun.pretrain.inputs["start"].key == start.key
    assert choices(begun.e)["init"] == "random from hub"


def test_a_hub_without_the_weights_is_told_in_one_line(hub):
    hub.repositories.clear()
    with pytest.raises(ConfigError, match=r"^pretrain\.from=hub: .* or give a file: pretrain\.from=FILE$"):
        _ = pipeline("backbone=vit_micro", "pretrain.from=hub").pretrain
