"""Vectors of images: the float32 of a CPU as it was, bfloat16 in the network alone, and never one for the other."""

from types import SimpleNamespace

import micro
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sept.backbones.networks import build, tokens
from sept.backbones.weights import save_backbone
from sept.data.transforms import embed_view, normalise
from sept.errors import ConfigError
from sept.retrievers.encoder import Encoder
from sept.retrievers.settings import Preprocess
from sept.stages.task_selection import _require_same_encoder

IMAGES, BATCH = 10, 4


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retriever")
    torch.manual_seed(0)
    save_backbone(build(micro.VIT.name, micro.VIT.args), folder / "backbone", micro.VIT.name, micro.VIT.args, {})
    return folder


def encoder(retriever, **precision) -> Encoder:
    weights = retriever / "backbone" / "model.safetensors"
    return Encoder(weights, micro.VIT, "cls_mean", Preprocess(32, 32, True), micro.MACHINE, BATCH, **precision)


def vectors(made: Encoder) -> np.ndarray:
    found, failures = made(micro.images(IMAGES).__getitem__, range(IMAGES))
    assert not failures
    return found


@torch.inference_mode()
def expected(made: Encoder, mixed: bool) -> np.ndarray:
    """The same by hand: only the network is under autocast."""
    parts = []
    for start in range(0, IMAGES, BATCH):
        views = torch.stack([embed_view(image, 32, 32, True) for image in micro.images(IMAGES)[start : start + BATCH]])
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            cls, patches = tokens(made.network, normalise(views))
        parts.append(F.normalize(torch.cat([cls.float(), patches.float().mean(dim=1)], dim=1), dim=1))
    return torch.cat(parts).numpy()


def test_a_cpu_embeds_in_float32_unless_told(retriever):
    made = encoder(retriever)
    seen = []
    made.network.blocks[0].mlp.fc1.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    assert np.array_equal(vectors(made), expected(made, mixed=False))
    assert set(seen) == {torch.float32}


def test_bfloat16_is_the_networks_and_means_and_lengths_are_float32(retriever):
    made = encoder(retriever, precision="bf16-mixed")
    seen = []
    made.network.blocks[0].mlp.fc1.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    found, exact = vectors(made), vectors(encoder(retriever))
    assert found.dtype == np.float32
    assert np.array_equal(found, expected(made, mixed=True))
    assert set(seen) == {torch.bfloat16}
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    assert np.abs(found - exact).max() > 0
    assert (found * exact).sum(axis=1).min() > 0.9995


def test_the_machine_does_not_decide_what_vectors_are_made_of(retriever):
    made = encoder(retriever)
    made.runtime = micro.MACHINE.__class__(threads=1, precision="bf16-mixed")
    assert np.array_equal(vectors(made), expected(made, mixed=False))


def test_a_pool_and_queries_of_different_precision_are_not_compared():
    def artefact(precision: str) -> SimpleNamespace:
        spec = {"preprocess": {"resize": 32}, "precision": precision}
        return SimpleNamespace(manifest={"inputs": {"retriever": {"key": "a"}}, "spec": spec})

    _require_same_encoder(artefact("bf16-mixed"), artefact("bf16-mixed"))
    with pytest.raises(ConfigError, match=r"'precision': 'bf16-mixed'.* but the queries by .*'precision': '32-true'"):
        _require_same_encoder(artefact("bf16-mixed"), artefact("32-true"))
