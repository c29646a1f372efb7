"""Logistic regression on frozen features: its objective, a strength by cross-validation, a recipe of its own."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from sept.backbones import IMAGENET
from sept.compose import experiment
from sept.errors import ConfigError, NonFiniteError
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve
from sept.store import Store
from sept.transfer import probe

SETTINGS = (
    *("retriever=ibot_micro", "init=rand_init", "task.train_per_class=3", "task.test_per_class=2"),
    *("shot.per_class=3", "hardware.accelerator=cpu", "hardware.threads=1"),
)


def planted(classes: int, shots: int, width: int, noise: float, seed: int = 0):
    """Shots and tests around random class means in directions of unequal size."""
    rng = torch.Generator().manual_seed(seed)
    means, sizes = torch.randn(classes, width, generator=rng), torch.logspace(1, -1, width)
    labels = torch.arange(classes).repeat(shots)
    return [
        (((means[labels] + noise * torch.randn(len(labels), width, generator=rng)) * sizes), labels) for _ in range(2)
    ]


def test_the_regression_finds_the_least_of_scikit_learns_objective():
    (features, labels), _ = planted(4, 6, 5, 1.5)
    features, strength = probe.standardise(features, features)[0], 0.5
    x, y = features.double().numpy(), labels.numpy()

    def objective(flat):
        weights = flat.reshape(6, 4)
        logits = x @ weights[:-1] + weights[-1]
        highest = logits.max(1)
        losses = highest + np.log(np.exp(logits - highest[:, None]).sum(1)) - logits[np.arange(len(y)), y]
        return strength * losses.sum() + 0.5 * (weights[:-1] ** 2).sum()

    least = minimize(objective, np.zeros(24), method="BFGS", options={"gtol": 1e-7}).x.reshape(6, 4)
    found = probe.fit(features, labels, strength).double().numpy()
    assert np.allclose(found[:-1], least[:-1], atol=2e-3)
    assert objective(found.ravel()) == pytest.approx(objective(least.ravel()), rel=1e-5)


def test_each_shot_with_a_second_of_its_class_is_held_out_once_and_a_single_one_never():
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 0, 0, 0, 0])
    folds = probe.stratified_folds(labels)
    assert folds[3] == -1
    assert folds[labels == 0].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert folds[labels == 1].tolist() == [0, 1]


def test_noise_asks_for_more_regularisation_than_clear_classes():
    chosen = []
    for noise in (0.2, 6.0):
        (features, labels), _ = planted(5, 5, 20, noise)
        chosen.append(probe.choose_strength(probe.standardise(features, features)[0], labels))
    assert chosen[0] > chosen[1]
    assert {*chosen} <= {*probe.STRENGTHS}


def test_one_shot_a_class_has_a_fixed_strength():
    assert probe.choose_strength(torch.randn(7, 3), torch.arange(7)) == probe.ALONE


def test_of_many_shots_some_classes_choose_the_strength():
    labels = torch.arange(500).repeat(10)
    features, targets = probe._some_classes(torch.randn(5000, 2), labels)
    assert len(features) == len(targets) == probe.SHOTS_TRIED
    assert targets.unique().tolist() == [*range(100)]
    few = torch.arange(2).repeat(2000)
    assert len(probe._some_classes(torch.randn(4000, 2), few)[1]) == 4000


def test_a_feature_that_never_changes_is_left_out():
    shots, test = torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[2.0, 9.0]])
    assert [each.tolist() for each in probe.standardise(shots, test)] == [[[-1, 0], [1, 0]], [[0, 0]]]


class Plain(torch.nn.Module):
    """Gives its images' pixels of one row as features."""

    def forward_features(self, images):
        return images[:, 0, 0]

    def forward_head(self, features, pre_logits):
        return features * self.factor

    factor = 1.0


def test_features_that_are_not_finite_are_refused():
    model = Plain()
    model.factor = float("nan")
    batch = {"images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "labels": torch.tensor([0, 1])}
    with pytest.raises(NonFiniteError, match="not finite"):
        probe._features(model, [batch], IMAGENET, torch.device("cpu"))


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """Of the same fresh weights: fine-tuned, and frozen with two seeds; their keys."""
    store = Store(tmp_path_factory.mktemp("probe") / "store")
    short = ("finetune.epochs=1", "finetune.warmup_epochs=0", "finetune.batch_size=24")
    made = {}
    for name, chosen in {"tuned": short, "frozen": ("finetune=probe_micro",)}.items():
        e = experiment([*SETTINGS, *chosen])
        made[name] = store.make(Pipeline(e, resolve(e.hardware)).run)
    return made


def test_a_probe_alone_has_a_top1_and_trains_nothing(facts):
    frozen = facts["frozen"]
    assert frozen.facts["metric"] == "top1"
    assert frozen.facts["score"] == frozen.facts["top1"] == frozen.facts["probe_top1"]
    assert "best_top1" not in frozen.facts
    assert not list(frozen.path.glob("*.safetensors"))


def test_a_fine_tuned_run_has_the_probe_of_its_start_beside_it(facts):
    assert 0 <= facts["tuned"].facts["probe_top1"] <= 100
    assert facts["tuned"].facts["probe_strength"] in probe.STRENGTHS


def test_a_seed_of_a_probe_changes_no_key_and_is_refused_outside_a_sweep():
    e = experiment([*SETTINGS, "finetune=probe_micro"])
    key = Pipeline(e, resolve(e.hardware)).run.key
    e.finetune.seed = 3
    assert Pipeline(e, resolve(e.hardware)).run.key == key
    with pytest.raises(ConfigError, match="uses no randomness"):
        experiment([*SETTINGS, "finetune=probe_micro", "finetune.seed=3"])


def test_a_probe_fits_tasks_of_classes_alone():
    e = experiment(["finetune=probe_micro", "init=rand_init", "task=patterns_boxes"])
    with pytest.raises(ConfigError, match="does not fit task=patterns_boxes"):
        _ = Pipeline(e, resolve(e.hardware)).run
