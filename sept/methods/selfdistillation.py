"""What DINO and iBOT share: a student, shown all crops of an image, has to give what its moving average, the teacher,
gives for the global ones.

Shapes: V crops, B batch, C prototypes.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sept.backbones import Backbone
from sept.backbones.networks import any_side, build, share_drop_path, width
from sept.methods.learner import FLOAT_BYTES, PIXEL_BYTES, PretrainingLearner, ema_update, momentum_copy, pooled
from sept.methods.recipe import GLOBAL_CROPS, Length, SelfDistillationRecipe
from sept.methods.views import MultiCrop
from sept.training.learner import clip_each, seeded_weights
from sept.training.optim import at_least_single, cosine, decay_groups, ibot_lr, linear_epochs


class PrototypeHead(nn.Module):
    """MLP to a bottleneck, L2-normalised, then a weight-normalised linear map to `out_dim` prototypes: DINO's head, and
    iBOT's, whose one last layer serves [CLS] and patch tokens. (..., in_dim) -> (..., out_dim).
    """

    def __init__(self, in_dim: int, hidden_dim: int, bottleneck_dim: int, out_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last_layer = weight_norm(nn.Linear(bottleneck_dim, out_dim, bias=False))
        self.lengths.data.fill_(1.0)

    @property
    def lengths(self) -> Tensor:
        """(out_dim, 1): of the prototypes."""
        return self.last_layer.parametrizations.weight.original0  # type: ignore[union-attr,return-value]

    def forward(self, x: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class SelfDistillation(PretrainingLearner):
    """Student and teacher of one shape, each a backbone and a head; the teacher's backbone is saved.

    A step (released code of both methods): teacher on the global crops, student on all of them, crops of one size
    together, loss with the previous centres, centres, backward, clipping per tensor, optimiser, and then the EMA
    (unlike MoBy).
    """

    views: MultiCrop
    student: Any
    teacher: Any
    cls_center: Tensor

    def __init__(self, recipe: SelfDistillationRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        super().__init__(seed=seed, steps=length.steps)
        self.recipe: Any = recipe
        self.length = length
        args = any_side(backbone.name, backbone.args, recipe.side) if recipe.local_crops else backbone.args
        with seeded_weights(seed, recipe.method):
            encoder = build(backbone.name, args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            head = PrototypeHead(width(encoder), recipe.head_hidden_dim, recipe.head_bottleneck_dim, recipe.out_dim)
            teacher = build(backbone.name, args, side=recipe.side)
        self.student = nn.ModuleDict({"backbone": share_drop_path(encoder), "head": head})
        teacher.load_state_dict(encoder.state_dict())
        self.teacher = nn.ModuleDict({"backbone": teacher, "head": momentum_copy(head)}).requires_grad_(False)
        self.register_buffer("cls_center", torch.zeros(1, recipe.out_dim))

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is saved: the teacher."""
        return self.teacher["backbone"]  # type: ignore[no-any-return]

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.student["backbone"], self.teacher["backbone"]]

    @property
    def epoch(self) -> int:
        """By which the temperature rises and the prototypes are frozen: with a share of the steps to warm up in, both
        are as long as the recipe has them beside its warm-up."""
        return self.length.epoch(self.step, self.recipe.warmup_epochs)

    def lr(self, step: int, scale: float = 1.0) -> float:
        r = self.recipe
        peak = r.lr * r.rate_factor * scale
        return ibot_lr(step, self.steps, self.length.warmup(r.warmup_epochs), peak, r.min_lr)

    def weight_decay(self, step: int) -> float:
        return cosine(step, self.steps, self.recipe.weight_decay, self.recipe.weight_decay_end)

    def momentum(self, step: int) -> float:
        """From recipe.momentum at step 0 to 1, half a cosine."""
        return cosine(step, self.steps, self.recipe.momentum, 1.0)

    def temperature(self) -> float:
        """The teacher's temperature."""
        r = self.recipe
        return linear_epochs(self.epoch, r.warmup_teacher_temp_epochs, r.warmup_teacher_temp, r.teacher_temp)

    def encoded(self, network: nn.Module, images: Tensor, crops: int) -> Any:
        """Features (n, D) of images (n, 3, H, W), of which a sample has so many crops."""
        return self.encode(pooled, network, [images], crops)

    def record_state(self, target: Tensor) -> None:
        """Curves of the schedules, and of how much a target (n, C) tells. target: of `sharpen`."""
        if self.recording:
            entropy = torch.special.entr(target).sum(dim=-1).mean()
            self.record(
                {
                    "teacher_entropy_over_uniform": entropy / math.log(self.recipe.out_dim),
                    "teacher_temp": self.temperature(),
                    "momentum": self.momentum(self.step),
                    "weight_decay": self.weight_decay(self.step),
                }
            )

    @torch.no_grad()
    def move_center(self, center: Tensor, mean: Tensor) -> None:
        """Moves a centre towards the mean output of the teacher, of this process; it is used from the next step on."""
        if self.trainer.world_size > 1:
            mean = self.all_gather(mean).mean(dim=0)  # type: ignore[union-attr]
        center.lerp_(mean, 1 - self.recipe.center_momentum)  # type: ignore[operator]

    def encode_blank(self, images: int) -> Any:
        """Global and local crops."""
        r, network = self.recipe, self.student["backbone"]
        return [
            self.encoded(network, torch.zeros(crops * images, 3, side, side, device=self.device), crops)
            for crops, side in ((GLOBAL_CROPS, r.side), (r.local_crops, r.local_side))
            if crops
        ]

    def tokens(self) -> int:
        """Of a global crop, those that pass the head."""
        return 1

    def bytes_beside(self, images: int) -> int:
        r = self.recipe
        logits = GLOBAL_CROPS * self.tokens() + r.local_crops  # these, their logarithms, the teacher's shares
        heads = FLOAT_BYTES * logits * (3 * r.out_dim + 2 * r.head_hidden_dim)
        pixels = GLOBAL_CROPS * r.side**2 + r.local_crops * r.local_side**2
        return int(images * (heads + PIXEL_BYTES * 3 * pixels))

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that the optimiser moves, by name."""
        return [*self.student.named_parameters()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.adamw(decay_groups(self.trained(), self.recipe.weight_decay))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.recipe.clip is not None:
            clip_each(list(self.parameters()), self.recipe.clip)
        if self.epoch < self.recipe.freeze_prototypes_epochs:
            for parameter in self.student["head"].last_layer.parameters():
                parameter.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The student's step, then the teacher's, so that a callback that saves runs after both."""
        super().optimizer_step(*args, **kwargs)
        ema_update(self.student, self.teacher, self.momentum(self.step))


def sharpen(teacher: Tensor, center: Tensor, temperature: float) -> Tensor:
    """softmax((teacher - center) / temperature): the target distribution, without gradient."""
    return F.softmax((at_least_single(teacher.detach()) - center) / temperature, dim=-1)


def cls_loss(student: list[Tensor], teacher: list[Tensor], student_temp: float) -> Tensor:
    """Cross-entropy of every student crop v with every teacher global crop q, v != q: a scalar (DINO eq. 3).

    student: (B, C) logits of all crops, global ones first; teacher: (B, C) probabilities of the global ones.
    Mean over the batch, then over the pairs (22 with 2 global and 10 local crops).
    """
    logs = [F.log_softmax(at_least_single(crop) / student_temp, dim=-1) for crop in student]
    terms = [
        -(target * log).sum(dim=-1).mean() for q, target in enumerate(teacher) for v, log in enumerate(logs) if v != q
    ]
    return torch.stack(terms).mean()
