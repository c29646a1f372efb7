"""Fine-tuning on the few shots, and accuracy on the task's test set."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sept.data.labelled import Shots, Tests, in_order
from sept.data.loading import Batches, loader, steps_per_epoch
from sept.data.rng import fold
from sept.data.tasks.task import Example, Task
from sept.data.transforms import FinetuneTransform, normalise
from sept.runtime.hardware import Runtime
from sept.training.callbacks import EvaluateEvery
from sept.transfer.classify import Classifier, nearest_class_mean
from sept.transfer.training import FinetuneJob

FLIP, COLOR_JITTER = 0.5, 0.4  # SimMIM
CLASSIFIER = "classifier.safetensors"


def classify(job: FinetuneJob, task: Task, shots: Sequence[Example]) -> dict[str, Any]:
    """Trains on the shots of the task, tests on all its test images; leaves CLASSIFIER, and gives the facts."""
    recipe, classes, runtime = job.recipe, len(task.classes), job.runtime
    per_epoch = steps_per_epoch(len(shots), recipe.batch_size)
    seed = fold(job.seed, "finetune", recipe.seed)
    learner = Classifier(recipe, job.backbone, classes, job.start, seed=seed, steps_per_epoch=per_epoch)
    transform = FinetuneTransform(
        recipe.side, (recipe.crop_scale[0], recipe.crop_scale[1]), FLIP, recipe.rand_augment, COLOR_JITTER
    )
    pin = runtime.accelerator != "cpu"
    tests = loader(Tests(task.test, recipe.side), in_order(len(task.test)), runtime.workers, pin=pin)
    frozen_top1 = _frozen(learner, Tests(shots, recipe.side), tests, runtime)

    batches = Batches(Shots(shots, transform, seed), len(shots), recipe.batch_size, seed)
    seen = job.train(learner, batches, [EvaluateEvery(tests, recipe.test_every * per_epoch)], CLASSIFIER)
    top1 = float(learner.last)
    return {
        "metric": "top1",
        "score": top1,
        "top1": top1,
        "best_top1": float(learner.best),
        "frozen_top1": frozen_top1,
        "shots": len(shots),
        "tests": len(task.test),
        "classes": classes,
        "images_seen": seen,
        "flops": recipe.flops(job.backbone, classes) * seen,
    }


@torch.no_grad()  # in inference mode the move to a device would leave weights that cannot be trained
def _frozen(learner: Classifier, shots: Tests, tests: Any, runtime: Runtime) -> float:
    """Nearest-class-mean top-1 on the features that fine-tuning starts from."""
    runtime.configure_torch()
    device = torch.device(runtime.accelerator)
    model: Any = learner.model.to(device).eval()

    def features(batches: Any) -> tuple[Tensor, Tensor]:
        found, labels = [], []
        for batch in batches:
            images = normalise(batch["images"].to(device), learner.statistics)
            found.append(model.forward_head(model.forward_features(images), pre_logits=True).float().cpu())
            labels.append(batch["labels"])
        return torch.cat(found), torch.cat(labels)

    result = nearest_class_mean(*features(loader(shots, in_order(len(shots.examples)), 0)), *features(tests))
    learner.train()
    return result
