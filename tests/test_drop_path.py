"""Drop path as timm's, but drawn for the whole batch."""

import pytest
import timm
import torch
from timm.layers import DropPath

from sept.models.drop_path import SharedDropPath, share_drop_path


def test_every_drop_path_of_a_backbone_is_replaced_with_its_rate():
    plain = timm.create_model("vit_small_patch16_224", drop_path_rate=0.2, depth=3, embed_dim=12, num_heads=2)
    rates = [module.drop_prob for module in plain.modules() if isinstance(module, DropPath)]
    shared = [module for module in share_drop_path(plain).modules() if isinstance(module, DropPath)]
    assert all(type(module) is SharedDropPath for module in shared)
    assert [module.drop_prob for module in shared] == rates
    assert rates[-1] == pytest.approx(0.2)


def test_alone_it_drops_what_timms_drops():
    x = torch.randn(64, 5, 3)
    torch.manual_seed(1)
    expected = DropPath(0.3)(x)
    torch.manual_seed(1)
    torch.testing.assert_close(SharedDropPath(0.3)(x), expected)
    assert (expected == 0).all(dim=(1, 2)).any()


def test_in_evaluation_and_at_rate_zero_nothing_is_dropped():
    x = torch.randn(8, 3)
    assert torch.equal(SharedDropPath(0.9).eval()(x), x)
    assert torch.equal(SharedDropPath(0.0)(x), x)
