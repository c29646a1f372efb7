"""What methods with a momentum encoder and a predictor share: BYOL and MoBy."""

from typing import Any

from timm.layers import DropPath
from torch import Tensor, nn

from sept.backbones.networks import share_drop_path, width
from sept.methods.learner import FLOAT_BYTES, TwoViewLearner, momentum_copy
from sept.methods.recipe import Length, MomentumRecipe
from sept.training.optim import cosine


class MomentumLearner(TwoViewLearner):
    """Online encoder, projector and predictor; target encoder and projector, the moving average of the online ones.

    The target runs in train mode, with its own BatchNorm statistics and without drop path. Processes sharing a batch
    gather its features before the heads: BatchNorm and loss are as in one process.
    """

    online: Any
    target: Any
    predictor: nn.Module

    def __init__(self, recipe: MomentumRecipe, *, seed: int, length: Length) -> None:
        super().__init__(recipe, seed=seed, length=length)
        assert recipe.momentum is not None, "fitted"
        self.first_momentum = recipe.momentum

    def add_networks(self, encoder: nn.Module, projector: nn.Module, predictor: nn.Module) -> None:
        """The online networks; the target starts as their copy."""
        self.online = nn.ModuleDict({"encoder": share_drop_path(encoder), "projector": projector})
        self.predictor = predictor
        self.target = momentum_copy(self.online)
        for module in self.target.modules():
            if isinstance(module, DropPath):
                module.drop_prob = 0.0

    @property
    def encoder(self) -> nn.Module:
        """The backbone that is saved: the online one."""
        return self.online["encoder"]  # type: ignore[no-any-return]

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.online["encoder"], self.target["encoder"]]

    def momentum(self, step: int) -> float:
        """From recipe.momentum at step 0 to 1, half a cosine."""
        return cosine(step, self.steps, self.first_momentum, 1.0)

    def targets(self, images: Tensor) -> list[Tensor]:
        """Projections (B, D) of each view by the target. images: from `both_views`."""
        return _project(self.target, self.features(self.target["encoder"], images))

    def predictions(self, features: list[Tensor]) -> list[Tensor]:
        """Predictions (B, D) from the online encoder's features of each view."""
        return [self.predictor(z) for z in _project(self.online, features)]

    def head_bytes(self) -> int:
        r = self.recipe  # hidden layers before and after BatchNorm and ReLU
        hidden = [*r.projector(width(self.encoder))[1:-1], *r.predictor()[1:-1]]
        return int(FLOAT_BYTES * 3 * sum(hidden))


def _project(branch: Any, features: list[Tensor]) -> list[Tensor]:
    """Projections of each view separately, because of the projector's batch statistics."""
    return [branch["projector"](x) for x in features]
