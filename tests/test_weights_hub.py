"""Weights from the Hugging Face Hub: a server on localhost gives small random ones in the layout of the real ones."""

import time

import pytest
import timm
from hub_server import Hub, published
from huggingface_hub import constants

from sept.backbones import hub
from sept.errors import ConfigError

TINY = {"layers": [1, 1, 1], "channels": [8, 16, 32]}
RESNET = "timm/resnet18.a1_in1k"


@pytest.fixture(scope="module")
def files():
    return published(timm.create_model("resnet18", num_classes=5, **TINY))


@pytest.fixture
def server(files, monkeypatch, tmp_path):
    with Hub() as made:
        made.repositories[RESNET] = dict(files)
        made.known_here(monkeypatch, tmp_path / "cache")
        yield made


def refused(name, **how):
    with pytest.raises(ConfigError) as told:
        hub.fetch(name, "retriever.weights", **how)
    message = str(told.value)
    assert "\n" not in message
    assert message.startswith("retriever.weights=hub: ")
    assert message.endswith("give a file: retriever.weights=FILE")
    return message


def test_weights_are_fetched_once_and_the_hub_is_asked_whether_they_changed(server, files):
    first = hub.fetch("resnet18", "retriever.weights")
    assert first.read_bytes() == files["model.safetensors"]
    assert [method for method, _ in server.requests].count("GET") == 1
    assert hub.fetch("resnet18", "retriever.weights") == first
    assert [method for method, _ in server.requests].count("GET") == 1


def test_weights_that_changed_at_the_hub_are_fetched_again(server):
    hub.fetch("resnet18", "retriever.weights")
    changed = published(timm.create_model("resnet18", num_classes=6, **TINY))
    server.publish(RESNET, changed)
    assert hub.fetch("resnet18", "retriever.weights").read_bytes() == changed["model.safetensors"]


def test_a_repository_without_safetensors_gives_its_other_file(server):
    server.repositories[RESNET] = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    assert hub.fetch("resnet18", "init.weights").read_bytes() == b"weights"


def test_a_plan_looks_into_the_cache_alone(server):
    assert "timm/resnet18.a1_in1k is not in the local cache" in refused("resnet18", online=False)
    assert not server.requests
    found = hub.fetch("resnet18", "retriever.weights")
    asked = len(server.requests)
    assert hub.fetch("resnet18", "retriever.weights", online=False) == found
    assert len(server.requests) == asked


@pytest.mark.parametrize("how", ["offline", "refuses", "silent"])
def test_a_hub_that_does_not_answer_leaves_the_cache_or_one_line_within_seconds(server, monkeypatch, how):
    found = hub.fetch("resnet18", "retriever.weights")
    monkeypatch.setattr(hub, "SECONDS", 0.3)
    match how:
        case "offline":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        case "refuses":
            server.url_template(monkeypatch, "http://127.0.0.1:9")
        case "silent":
            server.silent = True
    began = time.monotonic()
    assert hub.fetch("resnet18", "retriever.weights") == found
    told = refused("resnet34")
    assert time.monotonic() - began < 5
    assert "timm/resnet34.a1_in1k is not in the local cache" in told
    assert ("HF_HUB_OFFLINE is set" if how == "offline" else "does not answer") in told


def test_a_download_that_stops_halfway_is_refused_or_goes_on(server, files):
    server.cut = len(files["model.safetensors"]) // 2
    assert hub.fetch("resnet18", "retriever.weights").read_bytes() == files["model.safetensors"]
    assert len([path for method, path in server.requests if method == "GET"]) == 2


def test_what_the_hub_refuses_is_told_with_what_to_do(server):
    assert "has no timm/resnet34.a1_in1k" in refused("resnet34")
    server.gated.add("timm/vit_small_patch16_dinov3.lvd1689m")
    told = refused("vit_small_patch16_dinov3.lvd1689m")
    assert f"accept its terms at {server.url}/timm/vit_small_patch16_dinov3.lvd1689m" in told
    server.repositories["timm/resnet50.a1_in1k"] = {"config.json": b"{}"}
    assert "has none of model.safetensors, pytorch_model.bin" in refused("resnet50")


def test_a_network_without_published_weights_is_refused(server):
    assert "names no weights of gcvit_base.in1k at the Hugging Face Hub" in refused("gcvit_base.in1k")
    assert not server.requests


def test_names_and_tags_that_timm_does_not_have_are_refused_with_those_it_has():
    with pytest.raises(ConfigError, match=r"backbone\.name=resnet81: timm .* has no such model; near it: resnet18"):
        hub.fetch("resnet81", "retriever.weights")
    with pytest.raises(ConfigError, match=r"has no weights a8_in1k of resnet18; it has .*a1_in1k"):
        hub.fetch("resnet18.a8_in1k", "retriever.weights")


def test_the_repositories_that_a_plan_knows_are_timms():
    for name, repository in hub.REPOSITORIES.items():
        record = timm.get_pretrained_cfg(name)
        assert (record.hf_hub_id, record.hf_hub_filename) == (repository, None), name
