"""Networks of stages, each coarser than the one before it, as trunks: ResNet, ConvNeXt, EfficientNet and the like."""

from typing import Any

from torch import Tensor, nn

from sept.backbones.trunk import Trunk

FINEST = 4  # pixels of a cell of the finest map, where there is a map of at least so many


class StagesTrunk(Trunk):
    """The last map of each size, from cells of `FINEST` pixels on: of four stages C2 to C5 of the field."""

    def __init__(self, network: Any, keeps_statistics: bool) -> None:
        """network: of timm, without a head; it is cut behind its last map."""
        super().__init__()
        self.places = places_of(network)
        described = [network.feature_info[place] for place in self.places]
        self.channels = [int(each["num_chs"]) for each in described]
        self.patch = [int(described[-1]["reduction"])] * 2
        self.keeps_statistics = keeps_statistics
        if hasattr(network, "prune_intermediate_layers"):
            network.prune_intermediate_layers(self.places, prune_norm=True, prune_head=True)
        self.network: Any = network

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network.forward_intermediates(  # type: ignore[no-any-return]
            self.filled(images), indices=self.places, intermediates_only=True
        )


def reductions(network: nn.Module) -> list[int]:
    """Pixels of a cell of each map that a network of timm can give, in its order; empty if it gives none."""
    info = getattr(network, "feature_info", None)
    if not isinstance(info, list) or not hasattr(network, "forward_intermediates"):
        return []
    return [int(each["reduction"]) for each in info]


def places_of(network: nn.Module) -> list[int]:
    """Of each size of maps the last, without those that are finer than is of use."""
    found = reductions(network)
    last = {reduction: place for place, reduction in enumerate(found)}
    coarse = [place for reduction, place in last.items() if reduction >= FINEST]
    return sorted(coarse or last.values())
