"""What learners of pre-training share: views, a head, the momentum copy of a network, and measures of collapse."""

import copy
import logging
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sept.backbones import Backbone
from sept.backbones.networks import build, drop_path_factors, has_batch_norm, set_factors, share_drop_path, width
from sept.backbones.weights import load_backbone
from sept.methods.recipe import VIEWS, Length, OneViewRecipe, PlainRecipe, TwoViewRecipe
from sept.methods.views import OneView, TwoViews, Views
from sept.training.learner import Chunk, Learner, fitting, in_chunks, kept_bytes, seeded_weights
from sept.training.optim import SCHEDULES, Lars, decay_groups, undecayed

FLOAT_BYTES = 4
PIXEL_BYTES = 1 + 2 * FLOAT_BYTES  # of a view as loaded, as augmented, and as part of its batch
MOMENTUM = 0.9  # of SGD
GRADIENTS, ADAM = 1, 2  # times the weights: memory of a step besides activations
log = logging.getLogger(__name__)


class PretrainingLearner(Learner):
    """A learner whose backbone is handed on. Its loss relative to chance level and the spread of its features are
    logged; the values of the last step are part of its state."""

    views: Views
    loss_over_chance: Tensor
    feature_std: Tensor
    effective_rank: Tensor

    def __init__(self, *, seed: int, steps: int) -> None:
        super().__init__(seed=seed, steps=steps)
        for name in ("loss_over_chance", "feature_std", "effective_rank"):
            self.register_buffer(name, torch.zeros(()))

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is saved."""
        raise NotImplementedError

    @property
    def encoders(self) -> list[nn.Module]:
        """Every copy of the backbone, including moving averages."""
        return [self.encoder]

    def start_from(self, weights: Path) -> None:
        """Loads every copy of the backbone from a file before the first step; heads stay random. ConfigError if the
        weights do not fit."""
        for network in self.encoders:
            load_backbone(network, weights)

    def encode(self, forward: Callable, network: nn.Module, inputs: Sequence[Tensor | None], views: int) -> Any:
        """forward(network, *inputs) for inputs (n, ...), with this many views per sample: in chunks if the batch does
        not fit, and with drop path drawn for the whole batch. A network with batch norm gets the batch as a whole."""
        images = next(each for each in inputs if each is not None)
        forward = self.compiled(forward)
        if has_batch_norm(network):
            set_factors(network, drop_path_factors(network, images))
            return forward(network, *inputs)

        def run(factors: Tensor | None, *part: Tensor | None) -> Any:
            set_factors(network, factors)
            return forward(network, *part)

        return in_chunks(run, [drop_path_factors(network, images), *inputs], self.chunk and self.chunk * views)

    def encode_blank(self, images: int) -> Any:
        """Encodes blank images with gradients, to measure the memory per image."""
        raise NotImplementedError

    def bytes_beside(self, images: int) -> int:
        """Approximate bytes of a batch outside the encoder: its views, and what heads and losses keep."""
        raise NotImplementedError

    def log_health(self, loss: Tensor, chance: float | Tensor, features: Tensor) -> None:
        """Logs measures of collapse over the whole batch, whatever share of it this process holds.

        chance: the loss at chance level. features (B, D).
        """
        self.loss_over_chance.copy_(loss.detach() / chance)
        self.record({"loss": loss.detach(), "loss_over_chance": self.loss_over_chance})
        if not self.recording and self.step + 1 != self.steps:
            return  # save the eigenvalues
        self.feature_std.copy_(feature_std(features))
        self.effective_rank.copy_(effective_rank(features))
        self.record({"feature_std": self.feature_std, "effective_rank": self.effective_rank})

    def gathered(self, share: Tensor) -> Tensor:
        """(B, ...) of the whole batch, in the order of the processes' shares; gradients flow to each share."""
        if self.trainer.world_size == 1:
            return share
        of_each: Any = self.all_gather(share, sync_grads=torch.is_grad_enabled())
        return of_each.flatten(0, 1)  # type: ignore[no-any-return]

    def averaged(self, value: Tensor) -> Tensor:
        """Mean over the processes, without gradient."""
        return self.trainer.strategy.reduce(value.detach().clone(), reduce_op="mean")  # type: ignore[return-value]

    def use_compile(self, on: bool) -> None:
        super().use_compile(on)
        self.views.compile = on

    def chunk_that_fits(self, images: int) -> Chunk | None:
        """None also on devices other than a GPU and with batch norm. Raises ConfigError if not even one image fits."""
        if self.device.type != "cuda" or not torch.cuda.is_available() or has_batch_norm(self.encoder):
            return None
        free, _ = torch.cuda.mem_get_info(self.device)
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        weights = sum(each.nbytes for each in self.parameters() if each.requires_grad)
        free -= (GRADIENTS + ADAM) * weights + self.bytes_beside(images)
        with self.trainer.precision_plugin.train_step_context():
            each = kept_bytes(self.encode_blank)
        chunk = fitting(images, each, free)
        if chunk is not None:
            log.info("%d of %d images keep their activations, the others are recomputed", chunk.kept, images)
        return chunk

    def health(self) -> dict[str, float]:
        """The measures of the last step."""
        names = ("loss_over_chance", "feature_std", "effective_rank")
        return {name: float(getattr(self, name)) for name in names}


class PlainLearner(PretrainingLearner):
    """A learner of a `PlainRecipe`: its learning rate, optimiser and clipping."""

    shown = 1  # views of a sample that its encoder is shown

    def __init__(self, recipe: PlainRecipe, *, seed: int, length: Length) -> None:
        super().__init__(seed=seed, steps=length.steps)
        self.recipe: Any = recipe
        self.warmup = length.warmup(recipe.warmup_epochs)

    def lr(self, step: int, scale: float = 1.0) -> float:
        r = self.recipe
        rate = SCHEDULES[r.schedule](step, self.steps, self.warmup, r.lr, r.warmup_lr, r.min_lr)
        return rate * r.rate_factor * scale

    def encode_blank(self, images: int) -> Any:
        side = self.recipe.side
        blank = torch.zeros(self.shown * images, 3, side, side, device=self.device)
        return self.encode(pooled, self.encoder, [blank], self.shown)

    def bytes_beside(self, images: int) -> int:
        return self.shown * images * (self.head_bytes() + PIXEL_BYTES * 3 * self.recipe.side**2)

    def head_bytes(self) -> int:
        """Approximate bytes that heads and loss keep per view."""
        raise NotImplementedError

    def is_undecayed(self, name: str, parameter: Tensor) -> bool:
        """Whether a parameter is exempt from weight decay."""
        return undecayed(name, parameter)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        r = self.recipe
        groups = decay_groups(self.named_parameters(), r.weight_decay, self.is_undecayed)
        if r.optimiser == "lars":
            return Lars(groups, lr=self.lr(0))
        if r.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=self.lr(0), momentum=MOMENTUM)
        return self.adamw(groups, betas=tuple(r.betas), eps=r.eps)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.recipe.clip)


class OneViewLearner(PlainLearner):
    """A learner of one augmented view of an image."""

    views: OneView

    def __init__(self, recipe: OneViewRecipe, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        self.views = OneView(recipe, seed)

    def view(self, batch: Any) -> Tensor:
        """(B, 3, H, W) normalised, for this step."""
        return self.views(batch, self.step)

    def features(self, encoder: nn.Module, images: Tensor) -> Tensor:
        """Encoder features (B, D) of the whole batch. images: from `view`."""
        return self.gathered(self.encode(pooled, encoder, [images], self.shown))


class OneHeadLearner(OneViewLearner):
    """A backbone, which is handed on, and a linear layer of so many outputs on its pooled feature."""

    def __init__(self, recipe: OneViewRecipe, backbone: Backbone, outputs: int, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        with seeded_weights(seed, recipe.method):
            network = build(backbone.name, backbone.args, drop_path_rate=recipe.drop_path_rate, side=recipe.side)
            head = nn.Linear(width(network), outputs)
        self.backbone, self.head = share_drop_path(network), head

    @property
    def encoder(self) -> nn.Module:
        return self.backbone


class TwoViewLearner(PlainLearner):
    """A learner of two augmented views: features of both views together.

    apart: whether a network with batch norm sees each view as a batch of its own (BYOL), or both as one (SimCLR).
    """

    views: TwoViews
    shown = VIEWS
    apart = False

    def __init__(self, recipe: TwoViewRecipe, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        self.views = TwoViews(recipe, seed)

    def both_views(self, batch: Any) -> Tensor:
        """(2B, 3, H, W): the views of a sample adjacent, augmented for this step."""
        return interleave_views(self.views(batch, self.step))

    def features(self, encoder: nn.Module, images: Tensor) -> list[Tensor]:
        """Encoder features (B, D) of each view, for the whole batch. images: from `both_views`."""
        if self.apart and has_batch_norm(encoder):
            return [self.gathered(self.encode(pooled, encoder, [view], 1)) for view in split_views(images, VIEWS)]
        return split_views(self.gathered(self.encode(pooled, encoder, [images], VIEWS)), VIEWS)


def pooled(encoder: nn.Module, images: Tensor) -> Tensor:
    """Features (n, D) of images (n, 3, H, W)."""
    return encoder(images)  # type: ignore[no-any-return]


def interleave_views(views: list[Tensor]) -> Tensor:
    """Views (B, ...) of one batch as one batch (B * V, ...), the views of a sample adjacent.

    In this order the concatenated shares of several processes equal the batch of one process.
    """
    return torch.stack(views, dim=1).flatten(0, 1)


def split_views(batch: Tensor, views: int) -> list[Tensor]:
    """The reverse of `interleave_views`."""
    return list(batch.unflatten(0, (-1, views)).unbind(1))


def mlp(widths: Sequence[int], *, bias: bool = True, last_norm: str = "none") -> nn.Sequential:
    """Linear layers between these widths, BatchNorm and ReLU after all but the last: a projector or a predictor.

    last_norm, BatchNorm after the last: none (BYOL, MoBy), scale (SimCLR: no shift) or plain (MoCo v3: neither).
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=bias), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    del layers[-2:]
    if last_norm != "none":
        norm = nn.BatchNorm1d(widths[-1], affine=last_norm == "scale")
        if norm.affine:
            norm.bias.requires_grad_(False)  # stays at nought
        layers.append(norm)
    return nn.Sequential(*layers)


@torch.no_grad()
def feature_std(features: Tensor) -> Tensor:
    """Scalar: deviation over the batch of L2-normalised features (B, D), mean over D, times sqrt(D).

    About 1 for directions spread uniformly, 0 if all are equal (SimSiam, Fig. 2).
    """
    unit = F.normalize(features.float(), dim=1)
    return unit.std(dim=0, correction=0).mean() * unit.shape[1] ** 0.5


@torch.no_grad()
def effective_rank(features: Tensor) -> Tensor:
    """Scalar: exp of the entropy of the normalised singular values of features (B, D): between 1 and min(B, D).

    Roy and Vetterli 2007; as a measure of pre-training, RankMe (Garrido et al. 2023).
    """
    x = features.double()
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum().exp()


def momentum_copy(online: nn.Module) -> nn.Module:
    """A copy without gradients. Its buffers (BatchNorm statistics) evolve independently."""
    target = copy.deepcopy(online)
    return target.requires_grad_(False)


@torch.no_grad()
def ema_update(online: nn.Module, target: nn.Module, momentum: float) -> None:
    """target = momentum * target + (1 - momentum) * online, parameters only, by name.

    Parameters that only one of the two has (iBOT's mask embedding, say) are left alone.
    """
    source = dict(online.named_parameters())
    names = [name for name, _ in target.named_parameters() if name in source]
    own = dict(target.named_parameters())
    torch._foreach_lerp_([own[name] for name in names], [source[name] for name in names], 1 - momentum)
