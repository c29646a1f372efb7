"""Fine-tuning on the few shots, and accuracy on the task's test set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sept import cost
from sept.config import Classify, Model
from sept.data.labelled import Shots, Tests, in_order
from sept.data.loading import Batches, loader, steps_per_epoch
from sept.data.rng import fold
from sept.data.transforms import FinetuneTransform, normalise
from sept.runtime.hardware import Runtime
from sept.stages import finetuning
from sept.stages.task import few_shots, open_task
from sept.store import Artefact
from sept.training.callbacks import TestEvery
from sept.transfer.classify import Classifier, nearest_class_mean

FLIP, COLOR_JITTER = 0.5, 0.4  # SimMIM
CLASSIFIER = "classifier.safetensors"


def build(
    folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, runtime: Runtime, place: Mapping[str, Any]
) -> dict[str, Any]:
    recipe, model = Classify(**spec["recipe"]), Model(**spec["model"])
    task = open_task(inputs["task"], place)
    shots = few_shots(inputs["task"], place, spec["shot"], spec["shot_seed"])
    per_epoch = steps_per_epoch(len(shots), recipe.batch_size)
    seed = fold(spec["shot_seed"], "finetune", recipe.seed)
    start = finetuning.backbone(inputs)
    learner = Classifier(recipe, model, len(task.classes), start, seed=seed, steps_per_epoch=per_epoch)
    transform = FinetuneTransform(
        recipe.side, (recipe.crop_scale[0], recipe.crop_scale[1]), FLIP, recipe.rand_augment, COLOR_JITTER
    )
    pin = runtime.accelerator != "cpu"
    tests = loader(Tests(task.test, recipe.side), in_order(len(task.test)), runtime.workers, pin=pin)
    frozen_top1 = _frozen(learner, Tests(shots, recipe.side), tests, runtime)

    batches = Batches(Shots(shots, transform, seed), len(shots), recipe.batch_size, seed)
    watchers = [TestEvery(tests, recipe.test_every * per_epoch)]
    seen = finetuning.finetune(learner, batches, folder, spec, runtime, watchers, CLASSIFIER)
    top1 = float(learner.last)
    return {
        "metric": "top1",
        "score": top1,
        "top1": top1,
        "best_top1": float(learner.best),
        "frozen_top1": frozen_top1,
        "shots": len(shots),
        "tests": len(task.test),
        "classes": len(task.classes),
        "images_seen": seen,
        "flops": cost.finetune_flops(recipe, model, len(task.classes), seen),
    }


@torch.no_grad()  # in inference mode the move to a device would leave weights that cannot be trained
def _frozen(learner: Classifier, shots: Tests, tests: Any, runtime: Runtime) -> float:
    """Nearest-class-mean top-1 on the features that fine-tuning starts from."""
    runtime.configure_torch()
    device = torch.device(runtime.accelerator)
    model: Any = learner.model.to(device).eval()

    def features(batches: Any) -> tuple[Tensor, Tensor]:
        found = [
            (
                model.forward_head(model.forward_features(normalise(b["images"].to(device))), pre_logits=True),
                b["labels"],
            )
            for b in batches
        ]
        return torch.cat([f.float().cpu() for f, _ in found]), torch.cat([labels for _, labels in found])

    result = nearest_class_mean(*features(loader(shots, in_order(len(shots.examples)), 0)), *features(tests))
    learner.train()
    return result
