"""Distillation of the retriever: from a view, tell which images of the batch the retriever finds alike."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sept.backbones import Backbone
from sept.methods.distill.recipe import DistillRecipe
from sept.methods.learner import FLOAT_BYTES, OneHeadLearner
from sept.methods.recipe import Length
from sept.training.optim import cosines


class Distill(OneHeadLearner):
    """A backbone and a linear layer to the retriever's vectors, which were made of the whole image and are packed with
    it, less the mean of the chosen images.

    The batch is what published recipes keep a queue for: what an image is compared with, itself included. Processes
    sharing a batch gather its features before the layer, so that the loss is of the whole batch.
    """

    def __init__(self, recipe: DistillRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        assert recipe.out_dim is not None, "that of the vectors"
        super().__init__(recipe, backbone, recipe.out_dim, seed=seed, length=length)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features = self.features(self.backbone, self.view(batch))
        with torch.no_grad():
            vectors = self.gathered(batch["vector"])
        loss = agreement(self.head(features), vectors, self.recipe.temperature)
        self.log_health(loss, math.log(len(vectors)), features)
        return self.finite(loss)

    def head_bytes(self) -> int:
        r = self.recipe
        return int(FLOAT_BYTES * 3 * (r.out_dim + r.batch_size))  # its output, cosines, and their gradients


def agreement(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of two distributions over the images of a batch, each a softmax of cosines with the teacher's
    vectors over the temperature: those of the teacher's own vector are the target. A scalar; ln B if the student tells
    no image from another.

    student, teacher (B, D); no gradient reaches the teacher.
    """
    with torch.no_grad():
        target = F.softmax(cosines(teacher, teacher) / temperature, dim=1)
    return F.cross_entropy(cosines(student, teacher.detach()) / temperature, target)
