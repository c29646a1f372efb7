"""What data and networks cannot do is told before any work; what is told without torch is what torch says."""

import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import TINY

from sept import capability
from sept.backbones import Backbone, trial
from sept.backbones.flops import KNOWN
from sept.compose import check_hydra, experiment
from sept.errors import ConfigError, StorageError
from sept.gpu.micro import SWIN, VIT
from sept.methods.ibot.recipe import IBotRecipe

VITS, SWINS = VIT.name, SWIN.name
HOW = {
    "embed": {"needs": ("cls", "tokens"), "function": "sept.retrievers.encoder:cls_mean", "times": 2},
    "ibot": {"needs": IBotRecipe.needs, "drop_path_rate": 0.1},
    "moby": {"needs": ("pooled",), "drop_path_rate": 0.1},
    "simmim": {"needs": ("pooled", "plain_swin"), "drop_path_rate": 0.1},
    "classify": {"drop_path_rate": 0.1, "batch": 2},
    "trunk": {"least": 2, "most": 5, "maps": "spread"},
}
ROLES = {"ibot": "pretrain", "moby": "pretrain", "simmim": "pretrain"}  # of the trial, where it differs from the case
POOL = [text for text in TINY if not text.startswith("finetune.")]
TRIED = [
    ("embed", VIT, [32], ""),
    ("embed", SWIN, [32], "no class token"),
    ("embed", Backbone("resnet18"), [32], "no class token"),
    ("ibot", VIT, [32, 16], ""),
    ("ibot", replace(VIT, args=VIT.args | {"global_pool": "avg"}), [32], "no norm before they are averaged"),
    ("ibot", VIT, [32, 18], "does not take sides of 32, 18 pixels"),
    ("moby", SWIN, [32], ""),
    ("moby", Backbone("swin_tiny_patch4_window7_224"), [224, 96], ""),
    ("simmim", Backbone("swin_tiny_patch4_window7_224"), [224], ""),
    ("simmim", VIT, [32], "it is no Swin"),
    ("moby", VIT, [64], ""),
    ("moby", Backbone("resnet18"), [32], ""),
    ("moby", SWIN, [34], "multiples of its patches of 4 pixels"),
    ("moby", Backbone("swin_tiny"), [32], "timm .* has no such model"),
    ("moby", Backbone(SWINS, SWIN.args | {"window_size": 0}), [32], "do not fit"),
    ("moby", Backbone(SWINS, SWIN.args | {"num_heads": [1]}), [32], "do not fit"),
    ("moby", Backbone(SWINS, SWIN.args | {"features_only": True}), [32], "gives no single vector"),
    ("moby", Backbone(SWINS, SWIN.args | {"in_chans": 1}), [32], "does not take sides"),
    ("classify", SWIN, [64, 32], ""),
    ("classify", Backbone(SWINS, SWIN.args | {"window_size": 8}), [64, 32], "weights cannot be handed on"),
    ("classify", Backbone("vgg11"), [32], "^finetune.drop_path_rate=0.1: vgg11 has no stochastic depth; set finetune."),
    ("moby", Backbone("vgg11"), [32], "^pretrain.drop_path_rate=0.1: vgg11 has no stochastic depth; set pretrain."),
    ("trunk", Backbone("swinv2_tiny_window8_256"), [], r"takes no images of any size, .*; swin_\*, vit_\* and conv"),
    ("moby", Backbone(VITS, VIT.args | {"nonsense": 1}), [32], "do not fit .*: it takes no nonsense; leave it out"),
    ("trunk", SWIN, [32], ""),
    ("trunk", Backbone("resnet18"), [], ""),
    ("trunk", VIT, [32], ""),
    ("trunk", Backbone("mixer_b16_224"), [], "positions are for images of one size"),
    ("trunk", Backbone(SWINS, SWIN.args | {"window_size": 8}), [32], "too small for detection images"),
]


@pytest.mark.parametrize(("role", "model", "sides", "message"), TRIED)
def test_a_network_is_tried_without_data(role, model, sides, message):
    how, role = HOW[role], ROLES.get(role, role)
    others = {key: value for key, value in how.items() if key != "needs"}
    sure = capability._is_sure(role, model, sides, how.get("needs", ()), **others)
    if not message:
        trial.attempt("backbone", role, model, sides, **how)
        return
    assert not sure
    with pytest.raises(ConfigError, match=message) as refused:
        trial.attempt("backbone", role, model, sides, **how)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(("backbone", "finetune.drop_path_rate", "pretrain.drop_path_rate"))


def test_a_network_without_stochastic_depth_is_built_where_none_is_asked_for():
    trial.attempt("backbone", "classify", Backbone("vgg11"), [32], drop_path_rate=0.0, batch=2)
    trial.attempt("backbone", "trunk", Backbone("vgg11"), [], least=2, most=5, maps="spread", drop_path_rate=0.0)
    with pytest.raises(ConfigError, match=r"^retriever\.train\.drop_path_rate=0\.2: vgg11 has no stochastic depth"):
        trial.attempt("retriever.backbone", "pretrain", Backbone("vgg11"), [32], drop_path_rate=0.2)


@pytest.mark.parametrize("name", KNOWN)
def test_the_shapes_that_are_known_are_timms(name):
    import timm
    import torch

    with torch.device("meta"):
        model = timm.create_model(name)
    known = KNOWN[name]
    if "num_heads" not in known:
        blocks = model.stages if "dims" in known else [model.layer1, model.layer2, model.layer3, model.layer4]
        assert [len(getattr(stage, "blocks", stage)) for stage in blocks] == known.get("layers", known.get("depths"))
        return
    heads = [stage.blocks[0].attn.num_heads for stage in model.layers] if "depths" in known else None
    assert known["num_heads"] == (heads or model.blocks[0].attn.num_heads)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("backbone=swin_micro backbone.name=resnet18", "do not fit resnet18"),  # an option's arguments stay
        ("task=patterns_boxes finetune=detect_micro task.images=9999", "draws only"),
        ("retriever.backbone.args.depth=2 retriever=ibot_micro", "does not fit retriever.backbone.args"),
        ("pool.images=20", "cannot hold every class"),
        ("task.domain=weaves", "is not a task of patterns"),
        ("init=random selector.source=curate selector.share=0.5", "did you mean curated?"),
        (
            "init=random selector.source=curated selector.share=1 budget.images=320",
            "of curated, and the pool holds only",
        ),
        ("pool.curated=nope", "pool.curated=nope: must be one of curated, wild"),
        ("pretrain.side=30", "multiples of its patches"),
        (
            "backbone.name=vit_small_patch16_224.nonsense",
            "backbone.name=.*has no weights nonsense of .*; it has dino, ",
        ),
        (
            "retriever=timm retriever.backbone.name=resnet18.no retriever.weights=f",
            "retriever.backbone.name=.*no weights no",
        ),
        (
            "init=foundation",
            "init.weights=hub: the published weights of swin_.* do not fit backbone.args=.* without them",
        ),
        ("pretrain.from=hub", "pretrain.from=hub: the published weights of swin_.* give a file: pretrain.from=FILE"),
        ("retriever=ibot_micro retriever.weights=hub", "^retriever.weights=hub: .* do not fit retriever.backbone.args"),
        ("retriever.train.from=hub", "^retriever.train.from=hub: .* do not fit retriever.backbone.args"),
        (
            "backbone.args.num_classes=3",
            "^backbone.args.num_classes=3: a head is made for the task's classes; leave it",
        ),
        (
            "backbone.args.pretrained=true",
            "^backbone.args.pretrained=true: init=foundation fine-tunes published weights",
        ),
        ("retriever.backbone.args.pretrained=true", "^retriever.backbone.args.pretrained=true: retriever.weights=hub"),
        ("backbone.args.drop_path_rate=0.1", "write pretrain.drop_path_rate and finetune.drop_path_rate"),
        ("backbone=vit_micro backbone.args.depth=-1", "^backbone.args.depth=-1: must be a whole number of at least 1"),
        ("backbone.args.depths=[2,0]", r"^backbone.args.depths=\[2,0\]: must be a whole number of at least 1"),
    ],
)
def test_it_is_told_before_any_work(overrides, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        capability.require(experiment([*POOL, *overrides.split()]))


def test_a_detector_on_a_network_for_images_of_one_size_is_refused_before_the_pre_training():
    e = experiment([*POOL, "task=patterns_boxes", "finetune=detect_micro", "task.images=8"])
    e.backbone = Backbone("mixer_b16_224", {"img_size": 32})
    with pytest.raises(ConfigError, match=r"backbone\.name=mixer_b16_224: its positions are for images of one size"):
        capability.require(e)


def test_a_source_of_archives_is_one_of_their_names(tmp_path):
    for name in ("good-000.tar", "good-001.tar", "junk-000.tar"):
        (tmp_path / name).write_bytes(bytes(10240))
    shards = ["pool=webdataset", f"pool.path={tmp_path}", "init=random", "selector.share=0.5"]
    capability.require(experiment([*TINY, *shards, "selector.source=good"]))
    with pytest.raises(ConfigError, match=r"selector\.source=god: must be one of good, junk; did you mean good\?"):
        capability.require(experiment([*TINY, *shards, "selector.source=god"]))


def test_an_extra_that_is_not_there_is_told_at_once(monkeypatch):
    monkeypatch.setattr(capability, "find_spec", lambda name: None)
    capability.require_packages(experiment([*TINY]))
    with pytest.raises(ConfigError, match=r"engine=ray needs ray, which is not installed: pip install 'sept\[ray\]'"):
        capability.require_packages(experiment([*TINY, "engine=ray"]))


def test_shapes_that_are_known_bring_no_torch():
    code = "from sept import capability, compose; capability.require(compose.experiment([])); "
    code += "import sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ("hydra.run.dir=", ConfigError, "hydra.run.dir is empty"),
        ("hydra.run.dir=store/x", ConfigError, "hydra.run.dir=store/x lies in store.root=store"),
        ("hydra.sweep.dir=photos pool=folder pool.path=photos", ConfigError, "lies in pool.path=photos"),
        ("hydra.run.dir=file/x", StorageError, "hydra.run.dir=file/x cannot be created"),
        ("hydra.job.chdir=true", ConfigError, "hydra.job.chdir=true"),
    ],
)
def test_a_folder_of_hydras_is_not_among_others_files(overrides, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.delenv("SEPT_STORE", raising=False)
    with pytest.raises(error, match=message):
        check_hydra(overrides.split())
    check_hydra(["hydra.run.dir=out", "seed=0,1", "-m"])
    assert [path.name for path in tmp_path.iterdir()] != ["store"]
