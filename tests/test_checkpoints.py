"""Checkpoints as training tools leave them: every wrapper comes off, and what cannot be used is told by name."""

import gzip
import logging
import os
import pathlib
from pathlib import Path

import pytest
import torch
from conftest import TINY
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.data import AttributeDict
from micro import SWIN, VIT
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from sept.backbones.files import resolve
from sept.backbones.formats import INNER, PLAIN, TEACHER, read_state
from sept.backbones.networks import build
from sept.backbones.weights import load_backbone
from sept.compose import CONF, load, register
from sept.errors import ConfigError
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve as machine_of
from sept.store import Store

OWN = build(VIT.name, VIT.args).state_dict()
State = dict[str, Tensor]


def state(value: float = 1.0) -> State:
    """Weights of the micro ViT, each told from the others."""
    return {key: torch.full_like(tensor, value + n / 64) for n, (key, tensor) in enumerate(OWN.items())}


def under(prefix: str, tensors: State) -> State:
    return {prefix + key: value for key, value in tensors.items()}


def inside(part: str, tensors: State) -> State:
    """With `part` in the middle of the blocks' names, as where each block was wrapped."""
    return {key.replace(".attn.", f".{part}.attn."): value for key, value in tensors.items()}


def loads(path: Path, branch: str = "teacher", value: float = 1.0) -> None:
    model, expected = build(VIT.name, VIT.args), state(value)
    load_backbone(model, path, branch)
    assert all(torch.equal(found, expected[key]) for key, found in model.state_dict().items())


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


LIGHTNING = {
    "epoch": 3,
    "pytorch-lightning_version": "2.5.0",
    "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "best_k_models": {}, "dirpath": "/x"}},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}],
    "hyper_parameters": AttributeDict(lr=1e-3, root=pathlib.PosixPath("/data")),
    "hparams_name": "kwargs",
}
HEAD = {"head.weight": torch.ones(7, 32), "head.bias": torch.ones(7)}


def averaged() -> State:
    """Of torch's own running mean of a network, an `AveragedModel`."""
    return under("module.", state()) | {"n_averaged": torch.tensor(7)}


CONTENTS = {
    "compiled": lambda: under("_orig_mod.", state()),
    "compiled in DDP": lambda: under("module._orig_mod.", state()),
    "DDP, compiled": lambda: under("_orig_mod.module.", state()),
    "compiled in one dictionary": lambda: {"state_dict": under("_orig_mod.", state()), "epoch": 3},
    "compiled blocks": lambda: inside("_orig_mod", state()),
    "FSDP, nested": lambda: under("_fsdp_wrapped_module.", inside("_fsdp_wrapped_module", state())),
    "activation checkpoints": lambda: inside("_checkpoint_wrapped_module", state()),
    "Fabric": lambda: {"model": under("_forward_module.", state()), "step": 3},
    "DeepSpeed": lambda: {"module": state(), "dp_world_size": 8, "ds_config": {"fp16": {"enabled": True}}},
    "Lightning": lambda: {**LIGHTNING, "state_dict": under("model.", state() | HEAD) | {"loss.weight": torch.ones(3)}},
    "Lightning, compiled": lambda: {**LIGHTNING, "state_dict": under("model._orig_mod.backbone.", state())},
    "Lightning with net": lambda: {**LIGHTNING, "state_dict": under("net.", state())},
    "Lightning with encoder": lambda: {**LIGHTNING, "state_dict": under("encoder.", state())},
    "Lightning with branches": lambda: {
        **LIGHTNING,
        "state_dict": under("student.backbone.", state(9)) | under("teacher.backbone.", state()),
    },
    "solo-learn": lambda: {"state_dict": under("backbone.", state(9)) | under("momentum_backbone.", state())},
    "DeiT and ConvNeXt with a mean": lambda: {"model": state(9), "model_ema": state(), "args": {"lr": 1}},
    "timm with a mean": lambda: {"state_dict": state(9), "state_dict_ema": under("module.", state()), "arch": "vit"},
    "a mean alone": lambda: {"ema": state(), "updates": 100},
    "a mean within": lambda: {"model": {"ema": state(), "model": state(9)}},
    "an averaged model": averaged,
    "an averaged model within": lambda: {"model": averaged()},
    "DINO": lambda: {"student": under("module.backbone.", state(9)), "teacher": under("backbone.", state())},
    "model_state_dict": lambda: {"epoch": 1, "model_state_dict": state(), "optimizer_state_dict": {"state": {}}},
    "parameters": lambda: {"state_dict": {key: nn.Parameter(value) for key, value in state().items()}},
}


@pytest.mark.parametrize("name", CONTENTS)
def test_what_training_tools_wrap_around_weights_comes_off(name, tmp_path):
    loads(saved(tmp_path / "file.pth", CONTENTS[name]()))


@settings(max_examples=25)
@given(st.lists(st.sampled_from([*sorted(INNER), *PLAIN, *TEACHER]), max_size=5), st.integers(0, 3))
def test_wrappers_come_off_in_any_order_and_depth(tmp_path_factory, wrappers, dictionaries):
    """The first few as dictionaries, the others in the tensors' names."""
    content: dict = under("".join(f"{name}." for name in wrappers[dictionaries:]), state())
    for name in reversed(wrappers[:dictionaries]):
        content = {name: content, "epoch": 3}
    loads(saved(tmp_path_factory.mktemp("any") / "file.pth", content))


@pytest.mark.parametrize(("branch", "value"), [("teacher", 1.0), ("student", 9.0)])
@pytest.mark.parametrize(
    "name", ["DINO", "Lightning with branches", "DeiT and ConvNeXt with a mean", "timm with a mean"]
)
def test_the_branch_is_the_one_asked_for_without_a_warning(name, branch, value, tmp_path, caplog):
    loads(saved(tmp_path / "file.pth", CONTENTS[name]()), branch, value)
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "branch"), [("student", "teacher"), ("teacher", "student"), ("model_ema", "student")]
)
def test_the_other_branch_alone_is_refused(content, branch, tmp_path):
    path = saved(tmp_path / "file.pth", {content: state()})
    with pytest.raises(
        ConfigError, match=f"{path} holds no state dict of tensors of the branch {branch}: it has {content}"
    ):
        loads(path, branch)


@pytest.mark.parametrize("name", ["compiled", "Lightning", "model_state_dict"])
def test_a_student_of_a_file_that_knows_no_branches_warns(name, tmp_path, caplog):
    path = saved(tmp_path / "file.pth", CONTENTS[name]())
    loads(path, "student")
    [told] = caplog.records
    assert told.levelno == logging.WARNING
    assert told.getMessage().startswith(f"retriever.branch=student: {path} does not say whose weights it holds")


def test_two_tensors_that_become_one_are_refused(tmp_path):
    path = saved(tmp_path / "file.pth", state() | under("_orig_mod.", state(9)))
    with pytest.raises(ConfigError, match="holds two tensors called cls_token"):
        read_state(path)


def test_a_file_that_holds_itself_is_refused(tmp_path):
    content: dict = {"epoch": 3}
    content["model"] = content
    with pytest.raises(ConfigError, match="holds no state dict of tensors"):
        read_state(saved(tmp_path / "file.pth", content))


def test_a_networks_own_names_are_no_wrappers(tmp_path):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.norm = nn.Linear(2, 2), nn.LayerNorm(2)

    path, model = saved(tmp_path / "file.pth", {"model": Own().state_dict()}), Own()
    load_backbone(model, path)


# Values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_values_that_are_not_finite_are_named_when_they_are_read(value, suffix, tmp_path):
    tensors, path = state(), tmp_path / f"file.{suffix}"
    tensors["blocks.1.mlp.fc1.bias"][3] = value
    (save_file if suffix == "safetensors" else torch.save)(tensors, path)
    with pytest.raises(
        ConfigError, match=rf"{path}: the tensor blocks\.1\.mlp\.fc1\.bias holds values that are not fin"
    ):
        loads(path)


def test_doubles_beyond_the_models_precision_are_not_finite_in_it(tmp_path):
    tensors = {key: value.double() for key, value in state().items()}
    tensors["norm.bias"][0] = 1e300
    with pytest.raises(ConfigError, match=r"norm\.bias holds values that are not finite \(NaN or infinite, 1 of 32\)"):
        loads(saved(tmp_path / "file.pth", tensors))


def test_a_head_that_is_not_used_may_hold_anything(tmp_path):
    loads(saved(tmp_path / "file.pth", state() | {"head.weight": torch.full((7, 32), float("nan"))}))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_every_precision_are_read_as_the_models(kind, tmp_path):
    tensors, model = {key: value.to(kind) for key, value in state().items()}, build(VIT.name, VIT.args)
    load_backbone(model, saved(tmp_path / "file.pth", tensors))
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, tensors[key].float())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (lambda value: value.to(torch.int8), "is of int8, the model's of float32"),
        (lambda value: value.to(torch.complex64), "is of complex64, the model's of float32"),
        (lambda value: value.to("meta"), "is sparse, quantised or without its values"),
    ],
)
def test_tensors_of_another_kind_are_refused_by_name(changed, told, tmp_path):
    tensors = state()
    tensors["norm.weight"] = changed(tensors["norm.weight"])
    with pytest.raises(ConfigError, match=rf"the tensor norm\.weight {told}"):
        loads(saved(tmp_path / "file.pth", tensors))


@pytest.mark.parametrize(
    ("model", "args", "told"),
    [
        (VIT, {"img_size": 64}, "its images are 64 pixels, the model's 32 pixels: take the network of the file"),
        (VIT, {"patch_size": 4}, "its patches are 4 pixels, the model's 8 pixels"),
        (VIT, {"depth": 3}, "its depth are 3, the model's 2"),
        (VIT, {"embed_dim": 64}, "its width are 64, the model's 32"),
        (SWIN, {"window_size": 8}, "its windows are 8 patches, the model's 4 patches"),
    ],
)
def test_weights_of_another_size_are_refused_saying_which(model, args, told, tmp_path):
    path = saved(tmp_path / "file.pth", build(model.name, model.args | args).state_dict())
    with pytest.raises(ConfigError, match=told):
        load_backbone(build(model.name, model.args), path)


# Files


@pytest.mark.parametrize("name", ["UPPER.SAFETENSORS", "wrong.pth", "model.bin", "none"])
def test_a_safetensors_file_is_known_by_its_content(name, tmp_path):
    save_file(state(), tmp_path / name)
    loads(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["wrong.safetensors", "UPPER.PTH", "pytorch_model.bin", "epoch=3.ckpt"])
def test_a_file_of_torch_is_known_by_its_content(name, zipped, tmp_path):
    torch.save(state(), tmp_path / name, _use_new_zipfile_serialization=zipped)
    loads(tmp_path / name)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"x")


NOT_WEIGHTS = {
    "there is no file": lambda path: None,
    "it is a link to": lambda path: path.symlink_to("gone.pth"),
    "is a folder: give the file in it, such as model.safetensors": folder,
    "is not a file": os.mkfifo,
    "is empty": lambda path: path.write_bytes(b""),
    "is a pointer of git-lfs": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
    ),
    "is a web page": lambda path: path.write_text("\n<!DOCTYPE html><html>not found</html>"),
    "is an index or a configuration in JSON": lambda path: path.write_text('{"weight_map": {}}'),
    "is compressed: unpack it": lambda path: path.write_bytes(gzip.compress(b"weights")),
    "holds nothing but zeros": lambda path: path.write_bytes(bytes(1000)),
}


@pytest.mark.parametrize("told", NOT_WEIGHTS)
def test_what_is_no_file_of_weights_is_told_with_its_option_before_any_work(told, tmp_path):
    path = tmp_path / "file.pth"
    NOT_WEIGHTS[told](path)
    for option in ("init.weights", "retriever.weights"):
        with pytest.raises(ConfigError, match=f"^{option}={path}: .*{told}") as refused:
            resolve(str(path), option)
        assert "cannot be read" not in str(refused.value)


@pytest.mark.parametrize(
    ("given_", "told"), [("", "is empty: give a file"), ("sept:nothing", "shipped with the package are sept:")]
)
def test_names_that_stand_for_no_file_are_refused(given_, told):
    with pytest.raises(ConfigError, match=f"^retriever.weights.*{told}"):
        resolve(given_, "retriever.weights")


@pytest.mark.parametrize("closed", ["file.pth", "."])
def test_a_file_that_may_not_be_read_is_not_called_absent(closed, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("changes the user for a moment")
    path = saved(tmp_path / "file.pth", state())
    os.chmod(tmp_path / closed, 0)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match=r"file.pth is not readable \(permission\)"):
            resolve(str(path), "init.weights")
        with pytest.raises(ConfigError, match=r"file.pth is not readable \(permission\)"):
            read_state(path)
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_is_told_so_and_not_suspected_of_code(name, kept, tmp_path):
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(state(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ConfigError, match=r"it is cut, damaged|is not a readable safetensors file") as refused:
        read_state(path)
    assert "weights_only" not in str(refused.value)
    assert "running code" not in str(refused.value)


def test_a_part_of_several_files_is_told_to_be_one(tmp_path):
    path = tmp_path / "model-00001-of-00002.safetensors"
    save_file({key: value for key, value in state().items() if key.startswith("blocks")}, path)
    with pytest.raises(ConfigError, match=r"missing .*; the file is part 1 of 2: save them as one"):
        loads(path)


def test_weights_of_no_use_are_told_before_the_pool_is_listed(tmp_path):
    for n in range(40):
        place = tmp_path / "pool" / f"{n % 2}" / f"{n}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (n, n, n)).save(place)
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = [*TINY, "pool=folder", f"pool.path={tmp_path / 'pool'}", f"retriever.weights={tmp_path / 'nan.pth'}"]
        e = load(compose("config", chosen))
    tensors = dict(build(e.retriever.backbone.name, e.retriever.backbone.args).state_dict())
    tensors["norm.weight"][0] = float("nan")
    saved(tmp_path / "nan.pth", tensors)
    pipeline, store = Pipeline(e, machine_of(e.hardware)), Store(tmp_path / "store")
    for step in (*pipeline.features, pipeline.selection):
        with pytest.raises(
            ConfigError, match=rf"^retriever\.weights: {tmp_path}/nan\.pth: the tensor norm\.weight holds val"
        ):
            store.make(step)
    assert not (tmp_path / "store" / "pool").exists()
    saved(tmp_path / "nan.pth", {})
    with pytest.raises(ConfigError, match=r"nan\.pth holds no state dict"):
        store.make(step)


def test_weights_that_changed_since_the_plan_are_refused(tmp_path):
    register()
    saved(tmp_path / "file.pth", under("_orig_mod.", read_state(resolve("sept:ibot_micro", "x"))))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        e = load(compose("config", [*TINY, "retriever=ibot_micro", f"retriever.weights={tmp_path / 'file.pth'}"]))
    step = Pipeline(e, machine_of(e.hardware)).retriever
    saved(tmp_path / "file.pth", read_state(resolve("sept:ibot_micro", "x")))
    with pytest.raises(ConfigError, match=r"^retriever\.weights: .*file\.pth changed after the plan was made"):
        Store(tmp_path / "store").make(step)
