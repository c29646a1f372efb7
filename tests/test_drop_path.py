"""Drop path as timm's, but drawn for the whole batch."""

import pytest
import timm
import torch
from timm.layers import DropPath

from sept.backbones.networks import SharedDropPath, drop_path_factors, set_factors, share_drop_path


def test_every_drop_path_of_a_backbone_is_replaced_with_its_rate():
    plain = timm.create_model("vit_small_patch16_224", drop_path_rate=0.2, depth=3, embed_dim=12, num_heads=2)
    rates = [module.drop_prob for module in plain.modules() if isinstance(module, DropPath)]
    shared = [module for module in share_drop_path(plain).modules() if isinstance(module, DropPath)]
    assert all(type(module) is SharedDropPath for module in shared)
    assert [module.drop_prob for module in shared] == rates
    assert rates[-1] == pytest.approx(0.2)


class Blocks(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.never, self.last = DropPath(0.3), DropPath(0.0), DropPath(0.5)

    def forward(self, x):
        return self.last(self.never(self.first(x)) + 1)


def test_alone_it_drops_what_timms_drops():
    x, plain = torch.randn(64, 5, 3), Blocks()
    torch.manual_seed(1)
    expected = plain(x)
    torch.manual_seed(1)
    shared = share_drop_path(plain)
    set_factors(shared, drop_path_factors(shared, x))
    assert torch.equal(shared(x), expected)
    assert (expected == 0).all(dim=(1, 2)).any()


def test_rows_of_the_factors_drop_as_the_whole_batch_does():
    x, shared = torch.randn(6, 2), share_drop_path(Blocks())
    factors = drop_path_factors(shared, x)
    assert factors.shape == (6, 2)
    set_factors(shared, factors)
    whole = shared(x)
    set_factors(shared, factors[2:4])
    assert torch.equal(shared(x[2:4]), whole[2:4])


def test_a_forward_pass_without_factors_is_refused():
    with pytest.raises(AssertionError, match="drop_path_factors come before"):
        share_drop_path(Blocks())(torch.randn(2, 3))


def test_in_evaluation_and_at_rate_zero_nothing_is_dropped():
    x = torch.randn(8, 3)
    assert torch.equal(SharedDropPath(0.9).eval()(x), x)
    assert torch.equal(SharedDropPath(0.0)(x), x)
    assert drop_path_factors(share_drop_path(Blocks()).eval(), x) is None
