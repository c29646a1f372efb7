"""iBOT: self-distillation with masked images, the paper's retriever (iBOT paper and released code)."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.networks import width
from sept.methods.ibot.loss import patch_loss
from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.ibot.views import MultiCrop
from sept.methods.learner import interleave_views, split_views
from sept.methods.recipe import GLOBAL_CROPS, Length
from sept.methods.selfdistillation import SelfDistillation, cls_loss, sharpen


class IBot(SelfDistillation):
    """Self-distillation of a ViT whose student sees masked global crops and has to give the teacher's patches, too.

    One head serves [CLS] and patches; each has a centre.
    """

    views: MultiCrop
    patch_center: Tensor

    def __init__(self, recipe: IBotRecipe, backbone: Backbone, *, seed: int, length: Length) -> None:
        dynamic = replace(backbone, args={**backbone.args, "dynamic_img_size": True})  # patches keep their grid
        super().__init__(recipe, dynamic, seed=seed, length=length)
        self.mask_token = nn.Parameter(torch.zeros(1, width(self.encoder)))
        self.register_buffer("patch_center", torch.zeros(1, 1, recipe.out_dim))
        grid = self.encoder.patch_embed.dynamic_feat_size((recipe.side, recipe.side))  # type: ignore
        self.views = MultiCrop(recipe, seed, grid=grid)

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
        temperature, t = self.temperature(), self.recipe.student_temp  # the teacher's is the same for [CLS] and patches
        target_cls = sharpen(teacher_cls, self.cls_center, temperature)
        target_patch = sharpen(teacher_patch, self.patch_center, temperature)
        loss_cls = cls_loss(all_cls, split_views(target_cls, GLOBAL_CROPS), t)
        loss_patch = patch_loss(
            split_views(student_patch, GLOBAL_CROPS), split_views(target_patch, GLOBAL_CROPS), masks, t
        )
        self.move_center(self.cls_center, teacher_cls.float().mean(dim=0, keepdim=True))
        of_images = teacher_patch.float().mean(dim=1, keepdim=True)
        self.move_center(self.patch_center, of_images.mean(dim=0, keepdim=True))
        self._log_health(loss_cls, loss_patch, masks, features)
        self.record_state(target_cls)
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
        cls, patch = self.encoded(net["backbone"], images, crops, mask)
        head = net["head"]
        return cls, head(cls), head(patch) if patches else cls

    def encoded(self, network: nn.Module, images: Tensor, crops: int, mask: Tensor | None = None) -> Any:
        """[CLS] (n, D) and patches (n, L, D), of which those in mask (n, L) enter as the mask token."""
        return self.encode(self._tokens, network, [images, mask], crops)

    def _tokens(self, vit: Any, images: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """[CLS] (n, D) and patches (n, L, D) of images (n, 3, H, W)."""
        x = vit.patch_embed(images)  # (n, H, W, D): dynamic image size keeps the grid
        if mask is not None:
            x = torch.where(mask.unflatten(1, x.shape[1:3]).unsqueeze(-1), self.mask_token.to(x.dtype), x)
        x = vit.norm(vit.blocks(vit.norm_pre(vit._pos_embed(x))))
        return x[:, 0], x[:, vit.num_prefix_tokens :]

    def tokens(self) -> int:
        height, width_ = self.views.grid
        return 1 + height * width_

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        return [*super().trained(), ("mask_token", self.mask_token)]
