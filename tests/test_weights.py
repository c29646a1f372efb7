"""Published checkpoint formats, made with random weights under the published names, and backbones that timm loads."""

import argparse
import json
import os
import sys
import types
from collections import OrderedDict

import pytest
import timm
import torch
from micro import SIDE, SWIN, VIT
from safetensors.torch import load_file, save_file
from torch import nn

from sept.data.rng import generator
from sept.errors import ConfigError
from sept.models.backbones import build
from sept.models.heads import IBotHead, moby_mlp
from sept.models.weights import INERT, load_backbone, read_state, save_backbone


def swin(seed=0):
    torch.manual_seed(seed)
    return build(SWIN.name, SWIN.args).eval()


def vit(seed=0):
    torch.manual_seed(seed)
    model = build(VIT.name, VIT.args).eval()
    nn.init.normal_(model.cls_token)
    return model


def pixels():
    return torch.randn(2, 3, SIDE, SIDE, generator=generator(0))


def same_features(model, other):
    return torch.equal(model(pixels()), other(pixels()))


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


def moby_state(online, target):
    """`model` of a released MoBY file."""
    heads = {}
    for name, sizes in (("projector", (32, 8, 4)), ("projector_k", (32, 8, 4)), ("predictor", (4, 8, 4))):
        first, norm, _, last = moby_mlp(*sizes)
        parts = {"linear_hidden.0": first, "linear_hidden.1": norm, "linear_out": last}
        for part, module in parts.items():
            heads |= prefixed(f"{name}.{part}.", module.state_dict())
    queues = {"queue1": torch.randn(4, 8), "queue2": torch.randn(4, 8), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    encoders = prefixed("encoder.", official_swin(online)) | prefixed("encoder_k.", official_swin(target))
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


def moby_file(path, CfgNode, online, target):
    optimizer = torch.optim.AdamW(online.parameters())
    torch.save(
        {
            "model": moby_state(online, target),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": {"base_values": [1e-3, 1e-3], "t_initial": 300},
            "max_accuracy": 0.0,
            "epoch": 299,
            "config": CfgNode({"MODEL": {"TYPE": "moby", "SWIN": {"DEPTHS": [2, 2, 6, 2]}}, "BASE": [""], "SEED": 0}),
            "amp": OrderedDict(loss_scaler0={"loss_scale": 65536.0, "unskipped": 1}),
        },
        path,
    )


def ibot_file(path, student, teacher):
    head = IBotHead(32, 8, 4, 6).state_dict()
    mask = {"masked_embed": torch.zeros(1, 32)}
    torch.save(
        {
            "student": prefixed(
                "module.", prefixed("backbone.", student.state_dict() | mask) | prefixed("head.", head)
            ),
            "teacher": prefixed("backbone.", teacher.state_dict()) | prefixed("head.", head),
            "optimizer": torch.optim.AdamW(student.parameters()).state_dict(),
            "epoch": 800,
            "args": argparse.Namespace(arch="vit_small", pred_ratio=[0.0, 0.3], global_crops_scale=(0.25, 1.0)),
            "ibot_loss": OrderedDict(center=torch.zeros(1, 6), center2=torch.zeros(1, 1, 6)),
            "fp16_scaler": {"scale": 65536.0, "_growth_tracker": 3},
        },
        path,
    )


def test_ibot_full_file_gives_the_branch_asked_for(tmp_path):
    path, student, teacher, model = tmp_path / "checkpoint.pth", vit(1), vit(2), vit(3)
    ibot_file(path, student, teacher)
    load_backbone(model, path)
    assert same_features(model, teacher)
    load_backbone(model, path, branch="student")
    assert same_features(model, student)


def test_ibot_backbone_file_loads(tmp_path):
    path, teacher, model = tmp_path / "checkpoint_teacher.pth", vit(1), vit(2)
    torch.save({"state_dict": teacher.state_dict() | {"masked_embed": torch.zeros(1, 32)}}, path)
    load_backbone(model, path)
    assert same_features(model, teacher)


def test_moby_file_gives_the_online_encoder_without_yacs(tmp_path, yacs):
    path, online, model = tmp_path / "moby_swin_t_300ep_pretrained.pth", swin(1), swin(3)
    moby_file(path, yacs, online, swin(2))
    forget_yacs()
    load_backbone(model, path)
    assert "yacs.config" not in sys.modules
    assert same_features(model, online)


def test_moby_file_without_its_configuration_loads(tmp_path):
    path, online, model = tmp_path / "moby.pth", swin(1), swin(3)
    torch.save({"model": moby_state(online, swin(2))}, path)
    load_backbone(model, path)
    assert same_features(model, online)


def test_official_supervised_swin_loads_without_its_head(tmp_path):
    path, published, model = tmp_path / "swin_tiny_patch4_window7_224.pth", swin(1), swin(2)
    head = {"head.weight": torch.randn(10, 32), "head.bias": torch.randn(10)}
    torch.save({"model": official_swin(published) | head}, path)
    load_backbone(model, path)
    assert same_features(model, published)


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


def test_one_renamed_key_is_refused_naming_it(tmp_path):
    path, state, model = tmp_path / "typo.pth", vit(1).state_dict(), vit(2)
    state["blocks.1.mlp.fc9.weight"] = state.pop("blocks.1.mlp.fc1.weight")
    torch.save({"state_dict": state}, path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ConfigError) as refusal:
        load_backbone(model, path)
    assert "missing 1 (blocks.1.mlp.fc1.weight)" in str(refusal.value)
    assert "unexpected 1 (blocks.1.mlp.fc9.weight)" in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


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
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, print])
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


def test_weights_with_unknown_classes_are_refused_naming_the_class(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"model": vit().state_dict(), "config": types.SimpleNamespace(a=1)}, path)
    with pytest.raises(ConfigError, match=r"without running code from it: it refers to types\.SimpleNamespace$"):
        read_state(path)


def test_reading_weights_leaves_torchs_own_loader_as_strict_as_it_was(tmp_path):
    path = tmp_path / "checkpoint.pth"
    ibot_file(path, vit(1), vit(2))
    read_state(path)
    assert not set(INERT) & set(torch.serialization.get_safe_globals())


FACTS = {"recipe": "MoBy", "images": 12}


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


def test_saved_backbone_weights_come_with_a_card_and_a_config(tmp_path):
    save_backbone(swin(), tmp_path, SWIN.name, SWIN.args, FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == SWIN.name
    assert config["model_args"].items() >= (SWIN.args | {"img_size": [SIDE, SIDE]}).items()
    card = (tmp_path / "README.md").read_text()
    assert "timm.create_model(" in card
    assert "- images: 12" in card
