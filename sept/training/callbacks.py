"""Callbacks that observe a training every so many steps without affecting it."""

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from sept.data.transforms import normalise

NEIGHBOURS, TEMPERATURE = 20, 0.07  # of the k-NN evaluation of DINO and iBOT


class EvaluateEvery(L.Callback):
    """Runs the test set every `every` steps and after the last one."""

    def __init__(self, tests: DataLoader, every: int) -> None:
        self.tests, self.every = tests, every

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, learner: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if learner.step % self.every and learner.step != learner.steps:
            return
        learner.eval()
        for examples in self.tests:
            with trainer.precision_plugin.val_step_context():
                learner.test_batch(learner.transfer_batch_to_device(examples, learner.device, 0))
        accuracy = learner.test_end()
        for logger in trainer.loggers:  # not by `log`, which writes only at some steps
            logger.log_metrics(accuracy, learner.step)
        learner.train()


class KNNProbe(L.Callback):
    """Logs the k-NN accuracy of the encoder on labelled images every `every` steps and after the last one."""

    def __init__(self, examples: DataLoader, every: int) -> None:
        self.examples, self.every = examples, every

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, learner: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.is_global_zero or (learner.step % self.every and learner.step != learner.steps):
            return
        encoder, features, labels = learner.encoder.eval(), [], []
        for examples in self.examples:
            images = normalise(examples["images"].to(learner.device), learner.statistics)
            with trainer.precision_plugin.val_step_context():
                features.append(encoder.forward_head(encoder.forward_features(images), pre_logits=True).float())
            labels.append(examples["labels"].to(learner.device))
        accuracy = knn_accuracy(torch.cat(features), torch.cat(labels))
        for logger in trainer.loggers:
            logger.log_metrics({"knn_top1": accuracy}, learner.step)
        encoder.train()


@torch.no_grad()
def knn_accuracy(features: Tensor, labels: Tensor) -> float:
    """Leave-one-out top-1 in percent: votes of the nearest other images, weighted by exp(cosine / temperature).

    features (N, D), labels (N,). The weighted k-NN of DINO and iBOT; at most N - 1 neighbours vote.
    """
    unit = F.normalize(features.float(), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest, places = similarity.topk(min(NEIGHBOURS, len(unit) - 1), dim=1)
    votes = F.one_hot(labels[places]) * (nearest / TEMPERATURE).exp().unsqueeze(-1)  # (N, k, classes)
    return 100 * float((votes.sum(dim=1).argmax(dim=1) == labels).float().mean())


class LogImagesAtEnd(L.Callback):
    """Sends the pictures of `show`, uint8 (H, W, 3) by name, to the loggers that take images, at the end of a
    training."""

    def __init__(self, title: str, show: Callable[[], dict[str, np.ndarray]]) -> None:
        self.title, self.show = title, show

    @torch.no_grad()
    def on_train_end(self, trainer: L.Trainer, learner: Any) -> None:
        self.send(trainer)

    def send(self, trainer: L.Trainer) -> None:
        takers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if takers and trainer.is_global_zero:
            shown = self.show()
            for logger in takers:
                logger.log_image(self.title, list(shown.values()), caption=list(shown))


class LogImagesAtStart(LogImagesAtEnd):
    """The same before the first step; a resumed training has already sent them."""

    @torch.no_grad()
    def on_train_start(self, trainer: L.Trainer, learner: Any) -> None:
        if learner.first_step == 0:
            self.send(trainer)

    def on_train_end(self, trainer: L.Trainer, learner: Any) -> None:
        pass
