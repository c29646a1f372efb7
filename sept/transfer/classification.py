"""Fine-tuning on the few shots, and accuracy on the task's test set."""

from collections.abc import Sequence
from typing import Any

from sept.data import steps_per_epoch
from sept.data.labelled import Shots, Tests, in_order
from sept.data.loading import Batches, loader
from sept.data.rng import fold
from sept.data.tasks.task import Example, Task
from sept.data.transforms import FinetuneTransform
from sept.training.callbacks import EvaluateEvery
from sept.transfer.classify import Classifier
from sept.transfer.floor import floor
from sept.transfer.probe import frozen_scores, untrained_scores
from sept.transfer.training import FinetuneJob

CLASSIFIER = "classifier.safetensors"


def classify(job: FinetuneJob, task: Task, shots: Sequence[Example]) -> dict[str, Any]:
    """Trains on the task's shots, tests on all test images; saves CLASSIFIER, and returns the facts."""
    recipe, classes, runtime = job.recipe.settled(len(shots)), len(task.classes), job.runtime
    per_epoch = steps_per_epoch(len(shots), recipe.batch_size)
    seed = fold(job.seed, "finetune", recipe.seed)
    learner = Classifier(recipe, job.backbone, classes, job.start, seed=seed, steps_per_epoch=per_epoch)
    scale = (recipe.crop_scale[0], recipe.crop_scale[1])
    transform = FinetuneTransform(recipe.side, scale, recipe.flip, recipe.rand_augment, recipe.color_jitter)
    pin = runtime.accelerator != "cpu"
    tests = loader(Tests(task.test, recipe.side), in_order(len(task.test)), runtime.workers, pin=pin)
    frozen = frozen_scores(learner.model, job.backbone, Tests(shots, recipe.side), tests, runtime)
    if job.start is not None:
        frozen |= untrained_scores(job, seed, Tests(shots, recipe.side), tests)
    learner.train()

    batches = Batches(Shots(shots, transform, seed), len(shots), recipe.batch_size, seed)
    seen = job.train(learner, batches, [EvaluateEvery(tests, recipe.test_every * per_epoch)], CLASSIFIER)
    top1 = float(learner.last)
    return {
        "metric": "top1",
        "score": top1,
        "top1": top1,
        "best_top1": float(learner.best),
        **frozen,
        **floor(shots, task.test, runtime.threads),
        "shots": len(shots),
        "tests": len(task.test),
        "classes": classes,
        "images_seen": seen,
        "flops": recipe.flops(job.backbone, classes) * seen,
    }
