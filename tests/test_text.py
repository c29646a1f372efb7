"""Retrievers of images and text: open_clip's own numbers, a text looked up by the command, and what is refused."""

import json

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from conftest import run
from hub_server import Hub
from PIL import Image
from safetensors.torch import save, save_file

import sept
from sept import capability, compose
from sept.backbones import Backbone
from sept.errors import ConfigError
from sept.retrievers import open_clip_networks, settings
from sept.retrievers.encoder import Encoder
from sept.runtime.hardware import Runtime

SIZES = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"width": 16, "heads": 2, "layers": 1},
}
NAME = "ViT-B-16-quickgelu.openai"
OVERRIDES = [
    "retriever=clip_b16_text",
    "+retriever.backbone.args.embed_dim=16",
    "+retriever.backbone.args.vision_cfg={image_size:32,layers:1,width:32,patch_size:8,head_width:16}",
    "+retriever.backbone.args.text_cfg={width:16,heads:2,layers:1}",
    "retriever.preprocess.resize=32",
    "retriever.preprocess.crop=32",
]
TEXTS = ["a red kite over a field", "stripes"]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return open_clip_networks.build(Backbone(NAME, SIZES)).eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    """As published: open_clip_model.safetensors."""
    path = tmp_path_factory.mktemp("clip") / "open_clip_model.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def encoder(file):
    preprocess = compose.experiment([*OVERRIDES, f"retriever.weights={file}"]).retriever.resolved_preprocess()
    return Encoder(file, Backbone(NAME, SIZES), "joint", preprocess, Runtime(threads=1), 2, library="open_clip")


def test_images_and_texts_are_open_clips_own(network, encoder, file, tmp_path):
    open_clip_networks.save(network, tmp_path, Backbone(NAME, SIZES), {"a": 1})
    (tmp_path / "open_clip_model.safetensors").write_bytes(file.read_bytes())
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    theirs.eval()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, width, 3), dtype=np.uint8) for width in (32, 50)]  # nothing to resize
    found, failures = encoder(images.__getitem__, range(2))
    assert not failures
    with torch.inference_mode():
        shown = torch.stack([transform(Image.fromarray(image)) for image in images])
        expected = F.normalize(theirs.encode_image(shown), dim=1).numpy()
        words = F.normalize(theirs.encode_text(open_clip.get_tokenizer("ViT-B-16-quickgelu")(TEXTS)), dim=1).numpy()
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(encoder.texts(TEXTS) - words).max() < 1e-5
    assert found.shape == (2, settings.dim("open_clip", encoder.backbone, "joint")) == (2, 16)


def test_the_named_option_sees_what_open_clip_records():
    r = compose.experiment(["retriever=clip_b16_text"]).retriever
    told = r.resolved_preprocess()
    r.preprocess = type(r.preprocess)(*[None] * 6)
    assert r.resolved_preprocess() == told


def test_flops_of_an_image_are_of_its_tower_alone():
    small, deep = SIZES, SIZES | {"text_cfg": {"width": 16, "heads": 2, "layers": 3}}
    counted = [settings.flops("open_clip", Backbone(NAME, args), 32) for args in (small, deep)]
    assert counted[0] == counted[1] > 0


def test_a_text_is_looked_up_in_the_pool(file, tmp_path):
    store = tmp_path / "store"
    done = run(
        *(*OVERRIDES, f"retriever.weights={file}", "text=a red kite, over 'a' field", "top=3", "pool.images=200"),
        store=store,
        script="search.py",
        without=("retriever",),
    )
    assert done.returncode == 0, done.stderr
    assert "okenizer" not in done.stderr
    lines = done.stdout.splitlines()
    start = lines.index("a red kite, over 'a' field")
    scores = [float(line.split()[0]) for line in lines[start + 1 : start + 4]]
    assert scores == sorted(scores, reverse=True)
    page = tmp_path / "outputs" / "matches-a-red-kite-over-a-field" / "gallery.html"
    assert page.read_text().count("data:image") == 1 + 3
    [made] = (store / "retriever").glob("clip_b16_text*")
    assert json.loads((made / "manifest.json").read_text())["spec"]["library"] == "open_clip"


def test_a_text_is_looked_up_from_python(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    chosen = [*OVERRIDES[1:], f"retriever.weights={file}", "hardware.accelerator=cpu"]
    text = "a red kite, over 'a' field = ${home}"
    found = sept.search("photos/", text=text, top=3, retriever="clip_b16_text", overrides=chosen).to_pylist()
    assert [row["query"] for row in found] == [text] * 3
    assert [row["rank"] for row in found] == [0, 1, 2]
    scores = [row["similarity"] for row in found]
    assert scores == sorted(scores, reverse=True)


def test_weights_from_the_hub_are_those_that_open_clip_names(network, monkeypatch, tmp_path):
    state = save({key: value.contiguous() for key, value in network.state_dict().items()})
    with Hub() as server:
        server.repositories["timm/vit_base_patch16_clip_224.openai"] = {"open_clip_model.safetensors": state}
        server.known_here(monkeypatch, tmp_path)
        found = open_clip_networks.fetch(Backbone(NAME, SIZES), "retriever.weights", online=True)
        assert found.read_bytes() == state
        with pytest.raises(ConfigError, match="open_clip names no weights of ViT-B-16 at the Hugging Face Hub"):
            open_clip_networks.fetch(Backbone("ViT-B-16"), "retriever.weights", online=True)


def refused(*overrides) -> str:
    with pytest.raises(ConfigError) as told:
        capability.require(compose.experiment([*overrides]), selection_only=True)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_cannot_be_is_refused_in_a_line():
    assert refused("query.text=stripes") == (
        "query.text=stripes: retriever=ibot_micro has no text tower; use one for images and text, "
        "retriever=clip_b16_text"
    )
    assert "look up one at a time" in refused(*OVERRIDES, "query.text=stripes", "query.path=x.jpg")
    assert "near it: ViT-B-16" in refused(*OVERRIDES, "retriever.backbone.name=ViT-B-61")
    assert "open_clip has no weights opena of ViT-B-16-quickgelu; known are openai" in refused(
        *OVERRIDES, "retriever.backbone.name=ViT-B-16-quickgelu.opena"
    )
    assert "retriever.preprocess.crop=24: ViT-B-16-quickgelu.openai takes images of 32 pixels" in refused(
        *OVERRIDES, "retriever.preprocess.crop=24"
    )
    assert "of networks of retriever.library=open_clip are taken joint" in refused(*OVERRIDES, "retriever.feature=cls")
    assert "retriever.weights=null trains networks of timm" in refused(*OVERRIDES, "retriever.weights=null")
    assert "do not fit ViT-B-16-quickgelu.openai" in refused(*OVERRIDES, "+retriever.backbone.args.nonsense=1")
