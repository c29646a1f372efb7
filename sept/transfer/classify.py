"""The fine-tuned classifier: SimMIM's recipe on any timm backbone (SEPT, Target Task Finetuning)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from sept.backbones import Backbone
from sept.backbones.networks import build, layer_ids, statistics
from sept.backbones.weights import load_backbone
from sept.data import steps_per_epoch
from sept.data.labelled import Shots, Tests, batches_of
from sept.data.loading import Batches, loader
from sept.data.rng import fold, numpy_rng
from sept.data.tasks.task import Example, Task
from sept.data.transforms import FinetuneTransform, draw_mix, erase, mix_images, normalise, soft_targets
from sept.training.callbacks import EvaluateEvery
from sept.training.learner import Learner, seeded_weights
from sept.training.optim import layer_decay_groups, warmup_cosine
from sept.transfer.probe import floor, frozen_scores, untrained_scores
from sept.transfer.recipes import Classify
from sept.transfer.training import FinetuneJob

HEAD_STD = 0.02  # SimMIM's initialisation of the new head
CUTMIX_RATHER = 0.5  # probability of CutMix instead of Mixup if both are on (SimMIM)
ERASED_AREA, ERASED_ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)  # timm's defaults, which SimMIM keeps
CLASSIFIER = "classifier.safetensors"


class Classifier(Learner):
    """A backbone with a new linear head, trained with soft targets; top-1 on the test set, in percent.

    `best` is the highest top-1 seen at any test; the last one is the headline (no validation set in few-shot tasks).
    """

    best: Tensor
    last: Tensor

    def __init__(
        self, recipe: Classify, backbone: Backbone, classes: int, start: Path | None, *, seed: int, steps_per_epoch: int
    ) -> None:
        super().__init__(seed=seed, steps=recipe.epochs * steps_per_epoch)
        self.statistics = statistics(backbone)
        self.recipe, self.classes, self.warmup = recipe, classes, recipe.warmup_epochs * steps_per_epoch
        with seeded_weights(seed, "classifier"):
            self.model = build(backbone.name, backbone.args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            if start is not None:
                load_backbone(self.model, start)
            self.model.reset_classifier(classes)  # type: ignore[operator]
            head: Any = self.model.get_classifier()  # type: ignore[operator]
            nn.init.trunc_normal_(head.weight, std=HEAD_STD)
            nn.init.zeros_(head.bias)
        self.accuracy = MulticlassAccuracy(classes, average="micro")
        self.register_buffer("best", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def lr(self, step: int, scale: float = 1.0) -> float:
        """The warm-up's first and the cosine's last rate are the same in every layer (SimMIM)."""
        r = self.recipe
        by_batch = r.batch_size / r.lr_batch
        peak, first, last = r.lr * by_batch * scale, r.warmup_lr * by_batch, r.min_lr * by_batch
        return warmup_cosine(step, self.steps, self.warmup, peak, first, last)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        r = self.recipe
        rng = numpy_rng(self.seed, "mix", self.step)
        images = erase(normalise(batch["images"], self.statistics), rng, r.erasing, ERASED_AREA, ERASED_ASPECT)
        height, width = images.shape[2:]
        drawn = draw_mix(rng, height, width, r.mixup, r.cutmix, r.mix_prob, CUTMIX_RATHER)
        images = mix_images(images, drawn)
        targets = soft_targets(batch["labels"], self.classes, r.smoothing, drawn)
        loss = torch.sum(-targets * torch.log_softmax(self.model(images).float(), dim=-1), dim=-1).mean()
        self.record({"loss": loss})
        return self.finite(loss)

    def test_batch(self, batch: Any) -> None:
        """Counts the correct predictions of one test batch; `sept.training.callbacks.EvaluateEvery` calls it in eval
        mode."""
        self.accuracy.update(self.model(normalise(batch["images"], self.statistics)), batch["labels"])

    def test_end(self) -> dict[str, float]:
        """Computes top-1 from the counts, and returns what is to be logged."""
        self.last = 100 * self.accuracy.compute()
        self.accuracy.reset()
        self.best = torch.maximum(self.best, self.last)
        return {"top1": self.last.item(), "best_top1": self.best.item()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        ids, layers = layer_ids(self.model)
        groups = layer_decay_groups(
            self.model, ids.__getitem__, layers, self.recipe.weight_decay, self.recipe.layer_decay
        )
        return self.adamw(groups)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)


def classify(job: FinetuneJob, task: Task, shots: Sequence[Example]) -> dict[str, Any]:
    """Trains on the task's shots, tests on all test images; saves CLASSIFIER, and returns the facts."""
    recipe, classes, runtime = job.recipe.settled(len(shots)), len(task.classes), job.runtime
    per_epoch = steps_per_epoch(len(shots), recipe.batch_size)
    seed = fold(job.seed, "finetune", recipe.seed)
    learner = Classifier(recipe, job.backbone, classes, job.start, seed=seed, steps_per_epoch=per_epoch)
    scale = (recipe.crop_scale[0], recipe.crop_scale[1])
    transform = FinetuneTransform(recipe.side, scale, recipe.flip, recipe.rand_augment, recipe.color_jitter)
    pin = runtime.accelerator != "cpu"
    tests = loader(Tests(task.test, recipe.side), batches_of(len(task.test)), runtime.workers, pin=pin)
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
