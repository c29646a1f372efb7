"""Backbones, heads, the key queue and the momentum copy against what the published code does."""

import math
from collections import deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from micro import MACHINE, SIDE, SWIN, VIT, images
from timm.models import group_parameters
from torch import nn

from sept.backbones.networks import build, layer_ids, swin_layer_id, tokens
from sept.backbones.saved import WEIGHTS
from sept.backbones.weights import save_backbone
from sept.data.rng import generator
from sept.data.transforms import embed_view, normalise
from sept.errors import ConfigError
from sept.methods.learner import ema_update, mlp, momentum_copy
from sept.methods.moby.learner import KeyQueue
from sept.methods.selfdistillation import PrototypeHead
from sept.retrievers.encoder import Encoder, cls_mean
from sept.retrievers.settings import Preprocess

PRECISION = pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])


def pixels(count=3, side=SIDE, seed=0):
    return torch.randn(count, 3, side, side, generator=generator(seed))


# Backbones


def test_an_unknown_name_is_refused_naming_near_ones():
    with pytest.raises(ConfigError, match=r"^backbone\.name=swin_tinny: timm .* has no such model; near it: swin_t"):
        build("swin_tinny", {})


def test_arguments_that_timm_does_not_take_are_refused():
    with pytest.raises(ConfigError, match=r"^backbone\.args=\{'depht': 3\} do not fit vit_small_patch16_224"):
        build("vit_small_patch16_224", {"depht": 3})


@pytest.mark.parametrize("model", [SWIN, VIT])
def test_a_backbone_without_head_gives_the_pooled_feature(model):
    net = build(model.name, model.args).eval()
    assert net(pixels()).shape == (3, net.num_features)


def test_swin_linears_and_bias_tables_start_as_published():
    net = build(SWIN.name, SWIN.args | {"embed_dim": 32})
    for name, parameter in net.named_parameters():
        if name.startswith("patch_embed.proj"):
            continue
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif parameter.ndim == 1:
            assert (parameter == 1).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.25), name


def test_retrieval_feature_is_cls_beside_the_mean_patch_normalised_as_a_whole(tmp_path):
    vit = build(VIT.name, VIT.args).eval()
    nn.init.normal_(vit.norm.weight)  # so that the final norm matters
    nn.init.normal_(vit.norm.bias)
    drawn = images(3)
    views = normalise(torch.stack([embed_view(image, SIDE, SIDE, True) for image in drawn]))
    x = vit.patch_embed(views)
    x = torch.cat([vit.cls_token.expand(3, -1, -1), x], dim=1) + vit.pos_embed
    for block in vit.blocks:
        x = block(x)
    x = F.layer_norm(x, x.shape[-1:], vit.norm.weight, vit.norm.bias, eps=1e-6)
    expected = torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=1).double()
    torch.testing.assert_close(cls_mean(vit, views).double(), expected, atol=1e-6, rtol=0)
    expected = expected / expected.square().sum(dim=1, keepdim=True).sqrt()
    save_backbone(vit, tmp_path, VIT.name, VIT.args, {})
    encode = Encoder(tmp_path / WEIGHTS, VIT, "cls_mean", Preprocess(SIDE, SIDE, True), MACHINE, 2)
    vectors, failures = encode(drawn.__getitem__, range(3))
    feature = torch.from_numpy(vectors)
    assert not failures
    assert feature.shape == (3, 2 * VIT.args["embed_dim"])
    torch.testing.assert_close(feature.double(), expected, atol=1e-6, rtol=0)
    halves = feature[:, :32].norm(dim=1)
    assert not torch.allclose(halves, torch.full((3,), math.sqrt(0.5)), atol=1e-3)


def test_tokens_of_the_published_vit_are_197_of_384():
    with torch.device("meta"):
        vit = build("vit_small_patch16_224", {})
        prefix, patches = tokens(vit, torch.empty(2, 3, 224, 224))
        assert cls_mean(vit, torch.empty(2, 3, 224, 224)).shape == (2, 768)
    assert (prefix.shape, patches.shape) == ((2, 1, 384), (2, 196, 384))
    assert sum(p.numel() for p in vit.parameters()) == 21_665_664
    assert vit.norm.eps == 1e-6


def full_swin():
    with torch.device("meta"):
        return build("swin_tiny_patch4_window7_224", {}, num_classes=10)


def test_swin_tiny_has_the_published_number_of_parameters():
    with torch.device("meta"):
        encoder = build("swin_tiny_patch4_window7_224", {})
        trained = nn.ModuleList([encoder, mlp([768, 4096, 256]), mlp([256, 4096, 256])])
    assert sum(p.numel() for p in encoder.parameters()) == 27_519_354
    assert sum(p.numel() for p in trained.parameters()) == 33_835_898


def simmim_id(official):
    """Layer id of an official Swin-T name, as SimMIM numbers them."""
    depths = [2, 2, 6, 2]
    if official.startswith("patch_embed"):
        return 0
    if official.startswith("layers"):
        stage, rest = int(official.split(".")[1]), official.split(".")[2:]
        block = int(rest[1]) if rest[0] == "blocks" else depths[stage] - 1
        return sum(depths[:stage]) + block + 1
    return 13


def official_name(name):
    parts = name.split(".")
    if parts[0] == "layers" and parts[2] == "downsample":
        parts[1] = str(int(parts[1]) - 1)
    return ".".join(parts).replace("head.fc.", "head.")


def test_swin_tiny_has_simmims_14_layer_ids():
    ids, layers = layer_ids(full_swin())
    assert layers == 14
    assert sorted(set(ids.values())) == list(range(14))
    assert ids == {name: simmim_id(official_name(name)) for name in ids}
    assert swin_layer_id("layers.3.downsample.norm.weight", (2, 2, 6, 2)) == 10


def test_swin_tiny_differs_from_timms_layer_decay_on_exactly_11_tensors():
    model = full_swin()
    ids, _ = layer_ids(model)
    theirs = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    downsamples = {
        f"layers.{s}.downsample.{p}" for s in (1, 2, 3) for p in ("norm.weight", "norm.bias", "reduction.weight")
    }
    differing = {name for name in ids if ids[name] != theirs[name]}
    assert differing == downsamples | {"norm.weight", "norm.bias"}
    assert all(theirs[name] == ids[name] + 1 for name in downsamples)
    assert theirs["norm.weight"] == 12


def test_other_models_keep_timms_layer_ids():
    vit = build(VIT.name, VIT.args, num_classes=3)
    ids, layers = layer_ids(vit)
    assert layers == 4  # stem, two blocks, head
    assert ids["patch_embed.proj.weight"] == ids["cls_token"] == 0
    assert (ids["blocks.0.norm1.weight"], ids["blocks.1.mlp.fc2.bias"]) == (1, 2)
    assert ids["head.weight"] == 3
    assert ids.keys() == {name for name, _ in vit.named_parameters()}


# Heads


def test_moby_head_is_linear_batchnorm_relu_linear():
    head = mlp([5, 7, 3]).double()
    assert [type(module) for module in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    x = torch.randn(6, 5, generator=generator(0), dtype=torch.float64)
    hidden = x.numpy() @ head[0].weight.detach().numpy().T + head[0].bias.detach().numpy()
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    expected = np.maximum(hidden, 0) @ head[3].weight.detach().numpy().T + head[3].bias.detach().numpy()
    np.testing.assert_allclose(head(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def ibot_head():
    torch.manual_seed(0)
    return PrototypeHead(12, 40, 8, 30)


def test_ibot_head_starts_as_published():
    head = ibot_head()
    linears = [module for module in head.mlp if isinstance(module, nn.Linear)]
    assert [tuple(linear.weight.shape) for linear in linears] == [(40, 12), (40, 40), (8, 40)]
    assert all((linear.bias == 0).all() for linear in linears)
    assert all(linear.weight.std().item() == pytest.approx(0.02, rel=0.15) for linear in linears)
    names = dict(head.last_layer.named_parameters())
    assert {name: tuple(p.shape) for name, p in names.items()} == {
        "parametrizations.weight.original0": (30, 1),
        "parametrizations.weight.original1": (30, 8),
    }
    assert (names["parametrizations.weight.original0"] == 1).all()
    assert all(p.requires_grad for p in names.values())


@PRECISION
def test_ibot_head_gives_cosines_of_prototypes_at_the_start(dtype, within):
    head = ibot_head().to(dtype)
    x = torch.randn(4, 6, 12, generator=generator(0)).to(dtype)
    bottleneck = head.mlp(x)
    bottleneck = bottleneck / bottleneck.norm(dim=-1, keepdim=True)
    prototypes = head.last_layer.parametrizations.weight.original1
    expected = bottleneck @ (prototypes / prototypes.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(head(x), expected, atol=within, rtol=0)
    assert head(x).shape == (4, 6, 30)
    assert head(x).abs().max() <= 1 + 1e-5


def test_ibot_head_has_a_trainable_length_of_each_prototype():
    head = ibot_head()
    x = torch.randn(4, 12, generator=generator(0))
    before = head(x)
    head.last_layer.parametrizations.weight.original0.data[3] = 2.0
    ratio = head(x) / before
    assert ratio[:, 3].tolist() == pytest.approx([2.0] * 4)
    assert ratio[:, [0, 29]].flatten().tolist() == pytest.approx([1.0] * 8)


# Momentum


@PRECISION
def test_moby_and_ibot_momentum_follow_the_closed_form(dtype, within):
    online = mlp([4, 5, 3]).to(dtype)
    target = momentum_copy(online)
    momenta = [0.9, 0.5, 0.99, 1.0]
    expected = {name: p.detach().double().clone() for name, p in target.named_parameters()}
    for step, momentum in enumerate(momenta):
        for parameter in online.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator(step)).to(dtype))
        ema_update(online, target, momentum)
        for name, parameter in online.named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * parameter.detach().double()
    for name, parameter in target.named_parameters():
        torch.testing.assert_close(parameter.double(), expected[name], rtol=within, atol=within)


def test_momentum_copy_takes_no_gradient_and_shares_nothing():
    online = mlp([4, 5, 3])
    target = momentum_copy(online)
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in online.parameters())
    online[0].weight.data.zero_()
    assert (target[0].weight != 0).any()


def test_batchnorm_statistics_of_the_target_live_their_own_life():
    online = mlp([4, 5, 3]).train()
    target = momentum_copy(online)
    online(torch.randn(8, 4, generator=generator(0)))
    seen = online[1].running_mean.clone()
    ema_update(online, target, 0.5)
    assert (target[1].running_mean == 0).all()
    assert target[1].num_batches_tracked == 0
    target(torch.randn(8, 4, generator=generator(1)))
    assert (target[1].running_mean != 0).any()
    assert torch.equal(online[1].running_mean, seen)


def test_parameters_of_one_side_alone_are_left_as_they_are():
    online = nn.ModuleDict({"head": nn.Linear(2, 2), "mask": nn.Linear(2, 2)})
    target = nn.ModuleDict({"head": nn.Linear(2, 2), "other": nn.Linear(2, 2)})
    other = target["other"].weight.detach().clone()
    ema_update(online, target, 0.0)
    assert torch.equal(target["head"].weight, online["head"].weight)
    assert torch.equal(target["other"].weight, other)


# Queue


def test_moby_queue_starts_with_unit_keys_that_the_seed_determines():
    queue = KeyQueue(16, 64, generator(0, "queue"))
    assert queue.keys.shape == (2, 16, 64)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(2, 64), rtol=0, atol=1e-6)
    assert torch.equal(queue.keys, KeyQueue(16, 64, generator(0, "queue")).keys)
    assert not torch.equal(queue.keys[0], queue.keys[1])
    assert set(queue.state_dict()) == {"keys", "position"}
    assert list(queue.parameters()) == []


@given(st.integers(1, 12), st.lists(st.integers(1, 12), max_size=8))
def test_moby_queue_holds_the_last_keys_of_each_view(size, batches):
    queue = KeyQueue(2, size, generator(0))
    rings = [deque(queue.keys[view].T.tolist(), maxlen=size) for view in range(2)]
    for step, batch in enumerate(min(b, size) for b in batches):
        views = [torch.randn(batch, 2, generator=generator(step, view)) for view in range(2)]
        queue.enqueue(*views)
        for ring, keys in zip(rings, views, strict=True):
            ring.extend(keys.tolist())
    start = int(queue.position)
    for view, ring in enumerate(rings):
        columns = queue.keys[view].T.tolist()
        assert columns[start:] + columns[:start] == list(ring)


def test_moby_queue_writes_where_the_published_code_does():
    queue = KeyQueue(3, 8, generator(0))
    before = queue.keys.clone()
    for step in range(3):  # once around
        keys = [torch.full((4, 3), 10.0 * step + view) for view in range(2)]
        queue.enqueue(*keys)
        start = step * 4 % 8
        assert (queue.keys[0, :, start : start + 4] == 10 * step).all()
        assert (queue.keys[1, :, start : start + 4] == 10 * step + 1).all()
        if step == 0:
            assert torch.equal(queue.keys[:, :, 4:], before[:, :, 4:])
    assert int(queue.position) == 4


def test_moby_queue_goes_on_from_a_checkpoint():
    first, second = KeyQueue(2, 6, generator(0)), KeyQueue(2, 6, generator(1))
    keys = torch.randn(2, 4, 2, generator=generator(2))
    first.enqueue(*keys)
    second.load_state_dict(first.state_dict())
    for queue in (first, second):
        queue.enqueue(*keys)
    assert torch.equal(first.keys, second.keys)
    assert int(first.position) == int(second.position) == 2
