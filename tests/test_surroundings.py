"""What a scheduler leaves in the environment changes nothing of a training that works alone."""

import os
from pathlib import Path

import micro
import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import Dataset

from sept.data.loading import Batches
from sept.runtime.environment import forget, forgotten
from sept.runtime.hardware import Runtime
from sept.training.loop import CURVES, train
from sept.transfer.classify import Classifier

VARIABLES = dict.fromkeys(("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK"), "1") | {
    "WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "SLURM_NTASKS": "4",
    "MASTER_ADDR": "nowhere.invalid",
    "TORCHELASTIC_RUN_ID": "none",
    "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1",
    "PL_GLOBAL_SEED": "7",
}


class Labelled(Dataset):
    def __getitem__(self, place):
        pixels = torch.full((3, micro.SIDE, micro.SIDE), 20 * place[1], dtype=torch.uint8)
        return {"images": pixels, "labels": place[1] % 2}


def curves(folder: Path) -> str:
    """Trains, and gives what was written as it went."""
    recipe = micro.finetune(epochs=1, batch_size=4, warmup_epochs=0)
    learner = Classifier(recipe, micro.SWIN, 2, None, seed=3, steps_per_epoch=2)
    train(learner, Batches(Labelled(), 8, 4, 3), folder, Runtime(checkpoint_every_s=1e9), what="train")
    [path] = (folder / CURVES).rglob("metrics.csv")
    return path.read_text()


@pytest.mark.parametrize("name", VARIABLES)
def test_curves_are_the_same_whatever_a_scheduler_says(name, tmp_path, monkeypatch):
    expected = curves(tmp_path / "plain")
    monkeypatch.setenv(name, VARIABLES[name])
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as Lightning reads it when it is imported
    assert curves(tmp_path / "told") == expected
    assert os.environ[name] == VARIABLES[name]  # a scheduler's own code may ask for it afterwards


def test_a_process_of_a_shared_training_hears_of_no_other(monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    with forgotten():
        assert not VARIABLES.keys() & os.environ.keys()
        os.environ["RANK"] = "0"
    assert os.environ["RANK"] == "1"
    forget()
    assert not VARIABLES.keys() & os.environ.keys()
