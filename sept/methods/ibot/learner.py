"""iBOT: self-distillation with masked images, the paper's retriever (iBOT paper and released code)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.networks import build, share_drop_path, width
from sept.methods.ibot.head import IBotHead
from sept.methods.ibot.loss import cls_loss, patch_loss, sharpen
from sept.methods.ibot.recipe import LR_BATCH, IBotRecipe
from sept.methods.ibot.views import MultiCrop
from sept.methods.learner import (
    FLOAT_BYTES,
    PIXEL_BYTES,
    SelfSupervised,
    ema_update,
    interleave_views,
    momentum_copy,
    split_views,
)
from sept.methods.recipe import Length
from sept.training.learner import clip_each, seeded_weights
from sept.training.optim import cosine, decay_groups, ibot_lr, linear_epochs

GLOBAL_CROPS = 2


class IBot(SelfSupervised):
    """Student and teacher ViT with a shared head; the teacher is the student's moving average.

    A step (released code): teacher on unmasked global crops, student on masked global and unmasked local ones, loss
    with the previous centres, centres, backward, clipping per tensor, optimiser, and then the EMA (unlike MoBy).
    """

    views: MultiCrop
    cls_center: Tensor
    patch_center: Tensor

    def __init__(self, recipe: IBotRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        super().__init__(seed=seed, steps=length.steps)
        self.recipe, self.length = recipe, length
        args = {**backbone.args, "dynamic_img_size": True}
        with seeded_weights(seed, "ibot"):
            encoder = build(backbone.name, args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            head = IBotHead(width(encoder), recipe.head_hidden_dim, recipe.head_bottleneck_dim, recipe.out_dim)
            teacher = build(backbone.name, args, side=recipe.side)
        self.student = nn.ModuleDict({"backbone": share_drop_path(encoder), "head": head})
        self.mask_token = nn.Parameter(torch.zeros(1, width(encoder)))
        teacher.load_state_dict(encoder.state_dict())
        self.teacher = nn.ModuleDict({"backbone": teacher, "head": momentum_copy(head)}).requires_grad_(False)
        self.register_buffer("cls_center", torch.zeros(1, recipe.out_dim))
        self.register_buffer("patch_center", torch.zeros(1, 1, recipe.out_dim))
        self.views = MultiCrop(recipe, seed, grid=encoder.patch_embed.dynamic_feat_size((recipe.side, recipe.side)))  # type: ignore

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is saved: the teacher."""
        return self.teacher["backbone"]  # type: ignore[index]

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.student["backbone"], self.teacher["backbone"]]  # type: ignore[index,list-item]

    @property
    def epoch(self) -> int:
        return self.step // self.length.per_epoch

    def lr(self, step: int, scale: float = 1.0) -> float:
        r = self.recipe
        peak = r.lr * r.batch_size / LR_BATCH * scale
        return ibot_lr(step, self.steps, self.length.warmup(r.warmup_epochs), peak, r.min_lr)

    def weight_decay(self, step: int) -> float:
        return cosine(step, self.steps, self.recipe.weight_decay, self.recipe.weight_decay_end)

    def momentum(self, step: int) -> float:
        """From recipe.momentum at step 0 to 1, half a cosine."""
        return cosine(step, self.steps, self.recipe.momentum, 1.0)

    def temperature(self) -> float:
        """The teacher's temperature, the same for [CLS] and patches."""
        r = self.recipe
        return linear_epochs(self.epoch, r.warmup_teacher_temp_epochs, r.warmup_teacher_temp, r.teacher_temp)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        crops, masks = self.views(batch, self.step)
        globals_ = interleave_views(crops[:GLOBAL_CROPS])
        with torch.no_grad():
            features, teacher_cls, teacher_patch = self._forward(self.teacher, globals_, GLOBAL_CROPS)
        _, student_cls, student_patch = self._forward(self.student, globals_, GLOBAL_CROPS, interleave_views(masks))
        all_cls = split_views(student_cls, GLOBAL_CROPS)
        if locals_ := crops[GLOBAL_CROPS:]:
            _, local_cls, _ = self._forward(self.student, interleave_views(locals_), len(locals_), patches=False)
            all_cls += split_views(local_cls, len(locals_))
        temperature, t = self.temperature(), self.recipe.student_temp
        target_cls = sharpen(teacher_cls, self.cls_center, temperature)
        target_patch = sharpen(teacher_patch, self.patch_center, temperature)
        loss_cls = cls_loss(all_cls, split_views(target_cls, GLOBAL_CROPS), t)
        loss_patch = patch_loss(
            split_views(student_patch, GLOBAL_CROPS), split_views(target_patch, GLOBAL_CROPS), masks, t
        )
        self._update_centers(teacher_cls, teacher_patch)
        self._log_health(loss_cls, loss_patch, masks, features)
        if self.recording:
            entropy = torch.special.entr(target_cls).sum(dim=-1).mean()
            self.record(
                {
                    "teacher_entropy_over_uniform": entropy / math.log(self.recipe.out_dim),
                    "teacher_temp": temperature,
                    "momentum": self.momentum(self.step),
                    "weight_decay": self.weight_decay(self.step),
                }
            )
        return self.finite(loss_cls + loss_patch)

    def _log_health(self, loss_cls: Tensor, loss_patch: Tensor, masks: list[Tensor], features: Tensor) -> None:
        """A crop without a mask contributes neither to the patch loss nor to its chance level."""
        masked = torch.cat(masks).any(dim=1).float().mean()
        cls, patch, masked = self.averaged(torch.stack([loss_cls, loss_patch, masked])).unbind()
        self.log_health(cls + patch, math.log(self.recipe.out_dim) * (1 + masked), self.gathered(features.detach()))
        self.record({"loss_cls": cls, "loss_patch": patch})

    def _forward(
        self, net: Any, images: Tensor, crops: int, mask: Tensor | None = None, patches: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Feature of [CLS] (n, D), head outputs of [CLS] (n, C) and of patches (n, L, C), for images (n, 3, H, W).

        crops: number of images per sample. mask (n, L): patches that enter as the mask token.
        """
        cls, patch = self.encode(self._tokens, net["backbone"], [images, mask], crops)
        head = net["head"]
        return cls, head(cls), head(patch) if patches else cls

    def _tokens(self, vit: Any, images: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """[CLS] (n, D) and patches (n, L, D) of images (n, 3, H, W)."""
        x = vit.patch_embed(images)  # (n, H, W, D): dynamic image size keeps the grid
        if mask is not None:
            x = torch.where(mask.unflatten(1, x.shape[1:3]).unsqueeze(-1), self.mask_token.to(x.dtype), x)
        x = vit.norm(vit.blocks(vit.norm_pre(vit._pos_embed(x))))
        return x[:, 0], x[:, vit.num_prefix_tokens :]

    def encode_blank(self, images: int) -> Any:
        """Global and local crops."""
        r = self.recipe
        return [
            self.encode(
                self._tokens,
                self.student["backbone"],
                [torch.zeros(crops * images, 3, side, side, device=self.device), None],
                crops,
            )
            for crops, side in ((GLOBAL_CROPS, r.side), (r.local_crops, r.local_side))
            if crops
        ]

    def bytes_beside(self, images: int) -> int:
        r, (height, width_) = self.recipe, self.views.grid
        logits = GLOBAL_CROPS * (1 + height * width_) + r.local_crops  # these, their logarithms, the teacher's shares
        heads = FLOAT_BYTES * logits * (3 * r.out_dim + 2 * r.head_hidden_dim)
        return images * (heads + PIXEL_BYTES * 3 * (GLOBAL_CROPS * r.side**2 + r.local_crops * r.local_side**2))

    @torch.no_grad()
    def _update_centers(self, cls: Tensor, patch: Tensor) -> None:
        """Moves the centres to the means over all ranks; used from the next step on."""
        m = self.recipe.center_momentum
        means = [
            cls.float().mean(dim=0, keepdim=True),
            patch.float().mean(dim=1, keepdim=True).mean(dim=0, keepdim=True),
        ]
        for center, mean in zip((self.cls_center, self.patch_center), means, strict=True):
            if self.trainer.world_size > 1:
                mean = self.all_gather(mean).mean(dim=0)  # type: ignore[union-attr]
            center.lerp_(mean, 1 - m)  # type: ignore[operator]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        named = [*self.student.named_parameters(), ("mask_token", self.mask_token)]
        return self.adamw(decay_groups(named, self.recipe.weight_decay))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        clip_each(list(self.parameters()), self.recipe.clip)
        if self.epoch < self.recipe.freeze_last_layer_epochs:
            for parameter in self.student["head"].last_layer.parameters():  # type: ignore
                parameter.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The student's step, then the teacher's, so that a callback that saves runs after both."""
        super().optimizer_step(*args, **kwargs)
        ema_update(self.student, self.teacher, self.momentum(self.step))
