"""Published checkpoint formats, made with random weights under the published names, and backbones that timm loads."""

import argparse
import json
import os
import re
import sys
import tempfile
import types
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from micro import SIDE, SWIN, VIT
from reference_models import swin_feature, vit_tokens
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models import swin_transformer, vision_transformer

from sept.backbones.formats import INERT, read_state
from sept.backbones.networks import build, sized_args
from sept.backbones.saved import facts_of, header_of
from sept.backbones.weights import load_backbone, save_backbone
from sept.data.rng import generator
from sept.errors import ConfigError
from sept.methods.learner import mlp
from sept.methods.selfdistillation import PrototypeHead

SWIN_HEADS, SWIN_WINDOW, VIT_HEADS = SWIN.args["num_heads"], SWIN.args["window_size"], VIT.args["num_heads"]


def randomised(model, seed):
    """Every tensor different from what it is at the start: biases, norms and tables matter too."""
    for i, parameter in enumerate(model.parameters()):
        scale = 0.02 if parameter.ndim in (2, 4) else 0.1
        parameter.data.add_(scale * torch.randn(parameter.shape, generator=generator(seed, i)))
    return model.eval()


def swin(seed=0, **args):
    torch.manual_seed(seed)
    return randomised(build(SWIN.name, SWIN.args | args), seed)


def vit(seed=0):
    torch.manual_seed(seed)
    return randomised(build(VIT.name, VIT.args), seed)


def pixels(count=2, side=SIDE):
    return torch.randn(count, 3, side, side, generator=generator(0))


def same_features(model, other):
    return torch.equal(model(pixels()), other(pixels()))


def doubles(state):
    return {key: value.double() for key, value in state.items()}


def assert_features(model, expected, images):
    """Of the model in float32, and of the reference, a float64 tensor: equal to 1e-5."""
    with torch.no_grad():
        torch.testing.assert_close(model(images).double(), expected, rtol=0, atol=1e-5)


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def official_swin(model):
    """timm's Swin state under the official names, with the buffers that official files hold."""
    state = OrderedDict()
    for key, value in model.state_dict().items():
        parts = key.split(".")
        if parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        state[".".join(parts)] = value
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.arange(256).view(16, 16)
    state["layers.1.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    return state


def detection_swin(model):
    """An official detection trunk: a norm at each output, the last stage's where the classifier has its only one."""
    state, last = official_swin(model), len(model.layers) - 1
    for part in ("weight", "bias"):
        state[f"norm{last}.{part}"] = state.pop(f"norm.{part}")
        state |= {f"norm{stage}.{part}": torch.rand(16 * 2**stage) for stage in range(last)}
    return state


def moby_state(online):
    """`model` of a released MoBY file, around an encoder's state."""
    heads = {}
    for name, sizes in (("projector", (32, 8, 4)), ("projector_k", (32, 8, 4)), ("predictor", (4, 8, 4))):
        first, norm, _, last = mlp(sizes)
        parts = {"linear_hidden.0": first, "linear_hidden.1": norm, "linear_out": last}
        for part, module in parts.items():
            heads |= prefixed(f"{name}.{part}.", module.state_dict())
    queues = {"queue1": torch.randn(4, 8), "queue2": torch.randn(4, 8), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    encoders = prefixed("encoder.", online) | prefixed("encoder_k.", official_swin(swin(2)))
    return OrderedDict(encoders | heads | queues)


@pytest.fixture
def yacs():
    """yacs' configuration class as it pickles: a dict with attributes; the module is gone after the test."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self, content):
            super().__init__({k: CfgNode(v) if isinstance(v, dict) else v for k, v in content.items()})
            self.__dict__["__immutable__"] = True
            self.__dict__["__deprecated_keys__"] = set()

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode
    sys.modules |= {"yacs": types.ModuleType("yacs"), "yacs.config": module}
    yield CfgNode
    forget_yacs()


def forget_yacs():
    for name in ("yacs", "yacs.config"):
        sys.modules.pop(name, None)


def moby_file(path, state, node):
    torch.save(
        {
            "model": moby_state(state),
            "optimizer": torch.optim.AdamW(swin(1).parameters()).state_dict(),
            "lr_scheduler": {"base_values": [1e-3, 1e-3], "t_initial": 300},
            "max_accuracy": 0.0,
            "epoch": 299,
            "config": node({"MODEL": {"TYPE": "moby", "SWIN": {"DEPTHS": [2, 2, 6, 2]}}, "BASE": [""], "SEED": 0}),
            "amp": OrderedDict(loss_scaler0={"loss_scale": 65536.0, "unskipped": 1}),
        },
        path,
    )


def bare_moby_file(path, state, node):
    torch.save({"model": moby_state(state)}, path)


def ibot_file(path, student, teacher):
    """A training checkpoint of iBOT: the student wrapped for DDP, the teacher not."""
    head = prefixed("head.", PrototypeHead(32, 8, 4, 6).state_dict())
    mask = {"backbone.masked_embed": torch.zeros(1, 32)}
    torch.save(
        {
            "student": prefixed("module.", prefixed("backbone.", student) | mask | head),
            "teacher": prefixed("backbone.", teacher) | head,
            "optimizer": torch.optim.AdamW(vit().parameters()).state_dict(),
            "epoch": 800,
            "args": argparse.Namespace(arch="vit_small", pred_ratio=[0.0, 0.3], global_crops_scale=(0.25, 1.0)),
            "ibot_loss": OrderedDict(center=torch.zeros(1, 6), center2=torch.zeros(1, 1, 6)),
            "fp16_scaler": {"scale": 65536.0, "_growth_tracker": 3},
        },
        path,
    )


def ibot_teacher(path, state, node):
    ibot_file(path, vit(5).state_dict(), state)


def ibot_student(path, state, node):
    ibot_file(path, state, vit(5).state_dict())


def ibot_backbone(path, state, node):
    torch.save({"state_dict": state | {"masked_embed": torch.zeros(1, 32)}}, path)


def supervised_swin(path, state, node):
    torch.save({"model": state | {"head.weight": torch.randn(10, 32), "head.bias": torch.randn(10)}}, path)


def detection_file(path, state, node, **meta):
    """What mmcv's runner writes for mmdet, with an evaluation's best score among its messages."""
    others = {"neck.fpn_convs.0.conv.weight": torch.randn(2, 2, 3, 3), "rpn_head.rpn_cls.bias": torch.randn(3)}
    others |= {"roi_head.bbox_head.fc_cls.bias": torch.randn(4), "roi_head.mask_head.convs.0.conv.bias": torch.ones(1)}
    told = {"env_info": "sys.platform: linux", "config": "model = dict(type='MaskRCNN')", "seed": None, "epoch": 36}
    told |= {"CLASSES": ("person", "car"), "time": "Wed Apr 14 2021", "mmdet_version": "2.11.0+c7b2011", "iter": 263880}
    told |= {"hook_msgs": {"best_score": np.float64(0.437), "last_ckpt": "epoch_36.pth", "best": np.float32(0.4)}}
    optimizer = torch.optim.AdamW(swin(1).parameters()).state_dict()
    content = {"meta": told | meta, "state_dict": OrderedDict(prefixed("backbone.", state) | others)}
    torch.save({**content, "optimizer": optimizer, "amp": OrderedDict(loss_scaler0={"loss_scale": 1.0})}, path)


def timm_file(path, state, node):
    torch.save(state | {"head.fc.weight": torch.randn(10, 32), "head.fc.bias": torch.randn(10)}, path)


def own_file(path, state, node):
    save_file(state, path, {"format": "pt", "recipe": "MoBy"})


@dataclass
class Format:
    """A published file: how it is written around a backbone's state, and what the state is under its own names."""

    write: object
    fresh: object  # a model, by seed
    names: object  # its state
    suffix: str = "pth"
    branch: str = "teacher"


def timm_names(model):
    return dict(model.state_dict())


FORMATS = {
    "ibot_teacher": Format(ibot_teacher, vit, timm_names),
    "ibot_student": Format(ibot_student, vit, timm_names, branch="student"),
    "ibot_backbone": Format(ibot_backbone, vit, timm_names),
    "moby": Format(moby_file, swin, official_swin),
    "moby_without_config": Format(bare_moby_file, swin, official_swin),
    "swin_supervised": Format(supervised_swin, swin, official_swin),
    "swin_detection": Format(detection_file, swin, detection_swin),
    "timm_swin": Format(timm_file, swin, timm_names),
    "timm_vit": Format(timm_file, vit, timm_names),
    "own_swin": Format(own_file, swin, timm_names, suffix="safetensors"),
    "own_vit": Format(own_file, vit, timm_names, suffix="safetensors"),
}


@pytest.fixture(params=FORMATS)
def published(request):
    return FORMATS[request.param]


def reference(form, state, images):
    """Features by hand, of the state under the names in the file."""
    state = doubles(state)
    if form.fresh is vit:
        return vit_tokens(state, images.double(), VIT_HEADS)[:, 0]
    if form.names is timm_names:
        state = {re.sub(r"layers\.1\.downsample", "layers.0.downsample", key): v for key, v in state.items()}
    elif form.names is detection_swin:
        state = {re.sub(r"^norm1\.", "norm.", key): value for key, value in state.items()}
    return swin_feature(state, images.double(), SWIN_HEADS, SWIN_WINDOW)


def test_published_weights_give_the_features_of_an_independent_forward(tmp_path, yacs, published):
    path, model = tmp_path / f"file.{published.suffix}", published.fresh(3)
    state = published.names(published.fresh(1))
    published.write(path, state, yacs)
    forget_yacs()
    load_backbone(model, path, published.branch)
    assert "yacs.config" not in sys.modules
    assert_features(model, reference(published, state, pixels()), pixels())
    assert same_features(model, published.fresh(1))


KEYS_APART = 5  # of a backbone's tensors, every how manieth is renamed in turn


def test_published_weights_with_one_key_renamed_are_refused_naming_it(tmp_path, yacs, published):
    path, model = tmp_path / f"file.{published.suffix}", published.fresh(3)
    state, before = published.names(published.fresh(1)), timm_names(published.fresh(3))
    keys = [key for key in state if not key.endswith(("relative_position_index", "attn_mask"))]
    for key in {*keys[::KEYS_APART], *(k for k in keys if "downsample" in k or k.startswith("norm")), keys[-1]}:
        published.write(path, {f"{k}_of_old" if k == key else k: v for k, v in state.items()}, yacs)
        with pytest.raises(ConfigError, match=rf"unexpected 1 \({key}_of_old\)"):
            load_backbone(model, path, published.branch)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_numbers_of_an_older_numpy_among_weights_are_passed_over(tmp_path):
    path, state = tmp_path / "epoch_36.pth", detection_swin(swin(1))
    meta = {"hook_msgs": {"best_score": np.float64(0.5)}}
    torch.save({"meta": meta, "state_dict": prefixed("backbone.", state)}, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    assert b"numpy._core.multiarray\n" in written
    path.write_bytes(written.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    load_backbone(swin(2), path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_small_patch16_224", lambda state, images: vit_tokens(state, images, 6)[:, 0]),
        ("swin_tiny_patch4_window7_224", lambda state, images: swin_feature(state, images, (3, 6, 12, 24), 7)),
    ],
)
def test_weights_of_full_size_give_the_features_of_an_independent_forward(tmp_path, name, expected):
    path, published = tmp_path / "full.pth", randomised(build(name, {}), 1)
    state = official_swin(published) if name.startswith("swin") else timm_names(published)
    torch.save({"model": state}, path)
    model = build(name, {}).eval()
    load_backbone(model, path)
    images = pixels(count=1, side=224)
    assert_features(model, expected(doubles(state), images.double()), images)


def test_detection_weights_give_the_trunks_features_where_windows_fit_and_every_stage_shifts(tmp_path):
    path, state = tmp_path / "mask_rcnn.pth", detection_swin(swin(1, depths=[2, 2]))
    detection_file(path, state, None)
    always, plain = swin(2, depths=[2, 2], always_partition=True), swin(2, depths=[2, 2])
    for model in (always, plain):
        load_backbone(model, path)
    trunk = swin_feature(doubles(state), pixels().double(), SWIN_HEADS, SWIN_WINDOW, trunk=True)
    assert_features(always, trunk, pixels())
    assert (plain(pixels()) - trunk).abs().max() > 1e-3


@pytest.mark.parametrize("spec", [SWIN, VIT])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_timm_weights_with_a_head_load(tmp_path, spec, suffix):
    torch.manual_seed(1)
    published = timm.create_model(spec.name, num_classes=7, **spec.args).eval()
    path, model = tmp_path / f"model.{suffix}", build(spec.name, spec.args).eval()
    (save_file if suffix == "safetensors" else torch.save)(published.state_dict(), path)
    load_backbone(model, path)
    published.reset_classifier(0)
    assert same_features(model, published)


def test_half_precision_weights_are_widened(tmp_path):
    path, published, model = tmp_path / "half.pth", swin(1), swin(2)
    torch.save({key: value.half() for key, value in published.state_dict().items()}, path)
    load_backbone(model, path)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize(("change", "told"), [("drop", "missing 1 "), ("add", "unexpected 1 ")])
def test_one_key_too_few_or_too_many_is_refused(tmp_path, change, told):
    path, state = tmp_path / "weights.pth", vit(1).state_dict()
    weight = state.pop("blocks.0.norm2.bias")
    if change == "add":
        state |= {"blocks.0.norm2.bias": weight, "blocks.0.norm3.bias": weight}
    torch.save({"state_dict": state}, path)
    with pytest.raises(ConfigError, match=told):
        load_backbone(vit(2), path)


def test_prefixes_left_on_are_never_a_random_encoder(tmp_path):
    path, model = tmp_path / "odd.pth", vit(2)
    torch.save({"state_dict": prefixed("trunk.", vit(1).state_dict())}, path)
    with pytest.raises(ConfigError, match=r"missing \d+ .* unexpected \d+ \(trunk\."):
        load_backbone(model, path)


def test_wrong_shapes_are_refused_naming_them(tmp_path):
    path, state = tmp_path / "wide.pth", vit(1).state_dict()
    state["norm.weight"] = torch.ones(48)
    torch.save({"state_dict": state}, path)
    with pytest.raises(ConfigError, match=r"other shape 1 \(norm\.weight\)"):
        load_backbone(vit(2), path)


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "swin.pth"
    torch.save({"model": official_swin(swin())}, path)
    with pytest.raises(ConfigError, match="does not fit VisionTransformer"):
        load_backbone(vit(), path)


@pytest.mark.parametrize("content", [{"teacher": {"epoch": 3}}, [1, 2], {"student": {"w": torch.ones(1)}, "epoch": 1}])
def test_files_without_a_state_dict_of_weights_are_refused(tmp_path, content):
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    with pytest.raises(ConfigError, match="holds no state dict of tensors"):
        read_state(path)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_cut_weights_are_refused(tmp_path, name):
    path, whole = tmp_path / name, tmp_path / f"whole.{name}"
    save_file(vit().state_dict(), whole) if name.endswith("safetensors") else torch.save(vit().state_dict(), whole)
    path.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"cannot be read|not a readable"):
        read_state(path)


class Harm:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, compile])
def test_weights_that_call_a_function_are_refused_and_nothing_runs(tmp_path, function, zipped):
    path, proof = tmp_path / "harmful.pth", tmp_path / "proof"
    argument = f"touch {proof}" if function is os.system else f"open({str(proof)!r}, 'w')"
    args = (path, "touch") if function is getattr else (argument,)
    torch.save(
        {"model": vit().state_dict(), "args": Harm(function, *args)}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ConfigError, match="cannot be read as tensors without running code from it"):
        read_state(path)
    assert not proof.exists()


def test_weights_that_hide_a_call_in_the_options_are_refused(tmp_path):
    path, proof = tmp_path / "harmful.pth", tmp_path / "proof"
    options = argparse.Namespace(arch="vit_small", hook=Harm(os.system, f"touch {proof}"))
    torch.save({"teacher": vit().state_dict(), "args": options}, path)
    with pytest.raises(ConfigError, match="without running code"):
        read_state(path)
    assert not proof.exists()


class Number:
    """Pickles as one of NumPy's, made from `argument`."""

    def __init__(self, argument):
        self.argument = argument

    def __reduce__(self):
        return np.float64(1).__reduce__()[0], (self.argument,)


@pytest.mark.parametrize("hidden", [lambda harm: harm, lambda harm: {"best_score": Number(harm)}])
def test_detection_weights_that_hide_a_call_among_their_records_are_refused(tmp_path, hidden):
    path, proof = tmp_path / "harmful.pth", tmp_path / "proof"
    detection_file(path, detection_swin(swin()), None, hook_msgs=hidden(Harm(os.system, f"touch {proof}")))
    with pytest.raises(ConfigError, match=r"without running code from it: it refers to posix\.system"):
        read_state(path)
    assert not proof.exists()


def test_weights_with_unknown_classes_are_refused_naming_the_class(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"model": vit().state_dict(), "config": types.SimpleNamespace(a=1)}, path)
    with pytest.raises(ConfigError, match=r"without running code from it: it refers to types\.SimpleNamespace$"):
        read_state(path)


def test_reading_weights_leaves_torchs_own_loader_as_strict_as_it_was(tmp_path):
    path = tmp_path / "checkpoint.pth"
    ibot_file(path, vit(1).state_dict(), vit(2).state_dict())
    read_state(path)
    assert not set(INERT) & set(torch.serialization.get_safe_globals())


FACTS = {
    "method": "MoBy",
    "recipe": {"side": 32, "lr": 1e-3, "blur": [1.0, 0.1], "weights": None},
    "selection": "0123456789",  # a key that reads as a number
    "pool": "5e10",
    "images": 12345,
    "flops": 1.5e12,
    "collapsed": False,
}


@pytest.mark.parametrize(("spec", "fresh"), [(SWIN, swin), (VIT, vit)])
def test_saved_backbone_weights_load_in_timm_in_one_line(tmp_path, spec, fresh):
    model = fresh(1)
    save_backbone(model, tmp_path / "backbone", spec.name, spec.args, FACTS)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'backbone'}", pretrained=True, num_classes=10).eval()
    assert loaded(pixels()).shape == (2, 10)
    torch.testing.assert_close(loaded.forward_features(pixels()), model.forward_features(pixels()), rtol=0, atol=0)
    loaded.reset_classifier(0)
    assert same_features(loaded, model)


@pytest.mark.parametrize(("spec", "fresh"), [(SWIN, swin), (VIT, vit)])
def test_saved_backbone_weights_load_by_checkpoint_path(tmp_path, spec, fresh):
    model = fresh(1)
    save_backbone(model, tmp_path, spec.name, spec.args, FACTS)
    path = tmp_path / "model.safetensors"
    loaded = timm.create_model(spec.name, checkpoint_path=path, num_classes=0, **spec.args).eval()
    assert same_features(loaded, model)


def test_saved_backbone_weights_round_trip_through_our_reader(tmp_path):
    model, other = swin(1), swin(2)
    save_backbone(model, tmp_path, SWIN.name, SWIN.args, FACTS)
    load_backbone(other, tmp_path / "model.safetensors")
    assert same_features(model, other)
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()


def test_saved_backbone_weights_carry_their_facts_in_their_own_header(tmp_path):
    save_backbone(swin(), tmp_path, SWIN.name, SWIN.args, FACTS)
    assert facts_of(tmp_path / "model.safetensors") == FACTS
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        header = file.metadata()
    assert header["format"] == "pt"
    assert header["method"] == "MoBy"
    assert json.loads(header["recipe"]) == FACTS["recipe"]


@settings(max_examples=30)
@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)))
def test_facts_of_any_kind_come_back_from_the_header(facts):
    facts.pop("format", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({"w": torch.ones(1)}, path, header_of(facts))
        assert facts_of(path) == facts


def test_facts_of_cut_weights_are_refused(tmp_path):
    save_backbone(swin(), tmp_path, SWIN.name, SWIN.args, FACTS)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=f"{path} is not a readable safetensors file"):
        facts_of(path)
    with pytest.raises(ConfigError, match=f"there is no file {tmp_path / 'absent.safetensors'}"):
        facts_of(tmp_path / "absent.safetensors")


def test_saved_backbone_weights_come_with_a_config_of_ours_alone(tmp_path):
    save_backbone(vit(), tmp_path, VIT.name, VIT.args, FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == VIT.name
    assert config["model_args"].items() >= (VIT.args | {"img_size": [SIDE, SIDE]}).items()
    told = config["pretrained_cfg"]
    assert (told["mean"], told["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # timm's ViT has 0.5
    assert not told.keys() & {"license", "tag", "origin_url", "hf_hub_id", "url"}  # of other weights


def test_saved_backbone_weights_come_with_a_card_whose_lines_load_them(tmp_path, monkeypatch):
    model = vit(1)
    save_backbone(model, tmp_path / "FOLDER", VIT.name, VIT.args, FACTS)
    _, header, text = (tmp_path / "FOLDER" / "README.md").read_text().split("---\n", 2)
    tags = ["image-feature-extraction", "timm", "sept"]
    assert yaml.safe_load(header) == {"library_name": "timm", "pipeline_tag": tags[0], "tags": tags}
    lines = [line for line in text.splitlines() if line.startswith("model = ")]
    assert len(lines) == 2
    monkeypatch.chdir(tmp_path)
    loaded = {}
    for line in lines:
        exec(f"import timm\n{line}", loaded)
        loaded["model"].reset_classifier(0)
        assert same_features(loaded["model"].eval(), model)
    for fact in ("- method: MoBy", "- selection: 0123456789", "- images: 12,345", "- flops: 1.5e+12", '"lr": 0.001'):
        assert fact in text


def test_equal_weights_with_equal_facts_are_saved_as_equal_files(tmp_path):
    facts = {**FACTS, **{f"fact {i}": i for i in range(20)}}  # more than chance would leave in order
    for name in ("a", "b"):
        save_backbone(vit(1), tmp_path / name, VIT.name, VIT.args, facts)
    for file in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert facts_of(tmp_path / "a" / "model.safetensors") == facts


# Sides


@pytest.mark.parametrize("side", [16, 48, 64, 96])
@pytest.mark.parametrize(("spec", "fresh"), [(SWIN, swin), (VIT, vit)])
def test_weights_of_one_side_load_at_another_and_are_saved_for_it(tmp_path, spec, fresh, side):
    path, published = tmp_path / "file.pth", fresh(1)
    torch.save({"model": official_swin(published) if fresh is swin else timm_names(published)}, path)
    model = build(spec.name, spec.args, side=side).eval()
    load_backbone(model, path)
    expected = model(pixels(side=side))
    save_backbone(model, tmp_path / "saved", spec.name, sized_args(spec.name, spec.args, side), FACTS)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True, num_classes=0).eval()
    assert torch.equal(loaded(pixels(side=side)), expected)
    back = fresh(2)
    load_backbone(back, tmp_path / "saved" / "model.safetensors")
    assert same_features(back, published)


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize(("spec", "fresh"), [(SWIN, swin), (VIT, vit)])
def test_weights_at_another_side_give_the_features_of_a_timm_model_of_that_side(tmp_path, spec, fresh, side):
    path, published = tmp_path / "file.safetensors", fresh(1)
    save_file(published.state_dict(), path)
    model = build(spec.name, spec.args, side=side).eval()
    load_backbone(model, path)
    theirs = timm.create_model(spec.name, num_classes=0, **spec.args | {"img_size": side}).eval()
    theirs.load_state_dict(filters[fresh](published.state_dict(), theirs))
    torch.testing.assert_close(model(pixels(side=side)), theirs(pixels(side=side)), rtol=0, atol=1e-6)


filters = {swin: swin_transformer.checkpoint_filter_fn, vit: vision_transformer.checkpoint_filter_fn}


def test_swin_weights_of_full_size_load_at_smaller_and_larger_sides(tmp_path):
    path, name = tmp_path / "file.pth", "swin_tiny_patch4_window7_224"
    torch.save({"model": official_swin(build(name, {}))}, path)
    for side in (128, 256):
        model = build(name, {}, side=side).eval()
        load_backbone(model, path)
        with torch.no_grad():
            assert model(pixels(count=1, side=side)).isfinite().all()


@pytest.mark.parametrize("spec", [SWIN, VIT])
@pytest.mark.parametrize("side", [None, SIDE])
def test_the_own_side_changes_nothing(spec, side):
    assert sized_args(spec.name, spec.args, side) == spec.args
    torch.manual_seed(3)
    model = build(spec.name, spec.args, side=side)
    torch.manual_seed(3)
    plain = timm.create_model(spec.name, num_classes=0, **spec.args)
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("spec", [SWIN, VIT])
def test_a_side_draws_the_weights_that_the_own_side_draws(spec):
    torch.manual_seed(3)
    model = build(spec.name, spec.args, side=64).state_dict()
    torch.manual_seed(3)
    plain = build(spec.name, spec.args).state_dict()
    assert all(torch.equal(value, plain[key]) for key, value in model.items())


def test_convolutional_networks_take_any_side_as_they_are():
    assert sized_args("resnet18", {}, 96) == sized_args("convnext_atto", {}, 96) == {}
    assert build("resnet18", {}, side=96).eval()(pixels(side=96)).shape == (2, 512)


def test_weights_of_another_side_are_refused_where_the_model_cannot_change_sides(tmp_path):
    path = tmp_path / "coatnet.pth"
    torch.save(build("test_coatnet", {}).state_dict(), path)
    model = build("test_coatnet", {}, side=96).eval()
    assert model(pixels(side=96)).shape == (2, model.num_features)
    with pytest.raises(ConfigError, match=r"missing none; unexpected none; other shape \d \(stages\S*rel_pos"):
        load_backbone(model, path)


@pytest.mark.parametrize(("spec", "patch"), [(SWIN, 4), (VIT, 8)])
def test_a_side_that_cuts_a_patch_is_refused(spec, patch):
    with pytest.raises(ConfigError, match=f"side=50: {spec.name} takes sides .* of its patches of {patch} pixels"):
        build(spec.name, spec.args, side=50)


def test_a_side_does_not_hide_arguments_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"backbone\.args=\{'depht': 3\} do not fit vit_small_patch16_224"):
        build("vit_small_patch16_224", {"depht": 3}, side=96)
