"""One step of the published recipes at their published size, on four images."""

from dataclasses import replace

import numpy as np
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from micro import cropped, recorded, run

from sept import compose
from sept.data.subset import Subset, write_subset
from sept.methods.ibot.learner import IBot
from sept.methods.moby.learner import MoBy
from sept.methods.recipe import Length
from sept.runtime.hardware import Runtime

BATCH = 4


def experiment(*choices):
    compose.register()
    with initialize_config_dir(str(compose.CONF), version_base="1.3"):
        return compose.load(hydra_compose("config", list(choices)))


@pytest.fixture
def photographs(tmp_path) -> Subset:
    """Images as a selection holds them: 256 px at their shorter side."""
    (tmp_path / "images").mkdir()
    images = (np.random.default_rng(i).integers(0, 256, (256, 300, 3), dtype=np.uint8) for i in range(BATCH))
    write_subset(tmp_path / "images", enumerate(images), 256)
    return Subset.open(tmp_path / "images")


def test_a_full_size_moby_step_runs_from_the_default_yaml(photographs, tmp_path):
    e = experiment("backbone=swin_t", "pretrain=moby_swin_t", f"pretrain.batch_size={BATCH}")
    learner = recorded(MoBy)(e.pretrain, e.backbone, seed=0, length=Length(1, 1))
    run(learner, cropped(learner, photographs, BATCH), tmp_path, Runtime(threads=1))
    assert sum(p.numel() for p in learner.parameters() if p.requires_grad) == 33_835_898
    assert learner.batches[0]["crops"][0].shape == (BATCH, 3, 224, 224)
    assert learner.health()["loss_over_chance"] == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_a_full_size_ibot_step_runs_from_the_default_yaml(photographs, tmp_path):
    retriever = experiment("retriever=ibot_vit_s16", f"retriever.train.batch_size={BATCH}").retriever
    learner = recorded(IBot)(retriever.train, retriever.backbone, seed=0, length=Length(1, 1))
    run(learner, cropped(learner, photographs, BATCH), tmp_path, Runtime(threads=1))
    sides = [crop.shape[-1] for crop in learner.batches[0]["crops"]]
    assert sides == [224] * 2 + [96] * 10
    assert learner.health()["loss_over_chance"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("name", "model", "branch"),
    [
        ("ibot_vit_s16", "vit_small_patch16_224", "teacher"),
        ("ibot_vit_b16", "vit_base_patch16_224", "teacher"),
        ("ibot_vit_l16", "vit_large_patch16_224", "teacher"),
        ("ibot_vit_b16_in22k", "vit_base_patch16_224", "student"),
        ("ibot_vit_l16_in22k", "vit_large_patch16_224", "student"),
    ],
)
def test_the_papers_retrievers_differ_from_the_first_in_model_weights_branch_and_epochs_alone(
    name, model, branch, monkeypatch
):
    monkeypatch.delenv("SEPT_WEIGHTS", raising=False)
    first, found = experiment("retriever=ibot_vit_s16").retriever, experiment(f"retriever={name}").retriever
    assert (found.backbone.name, found.branch) == (model, branch)
    expected = replace(first, name=name, backbone=found.backbone, branch=branch, weights=f"weights/{name}.pth")
    assert found == replace(expected, epochs=found.epochs)
