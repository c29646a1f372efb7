"""Features of ViT and Swin from a state dict under the published names, written from the papers: no timm, no nn.

Slow and plain: every sum is spelled out, and shifted windows are rectangles that partition the plane, without rolling
and without masks. Any dtype; pass float64 tensors for a reference. B images, N tokens, D channels, h heads.
"""

import itertools
import math
import re

import torch


def linear(state, name, x):
    out = x @ state[f"{name}.weight"].T
    return out + state[f"{name}.bias"] if f"{name}.bias" in state else out


def layer_norm(state, name, x, eps):
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def mlp(state, name, x):
    hidden = linear(state, f"{name}.fc1", x)
    return linear(state, f"{name}.fc2", hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))


def patches(state, pixels):
    """The patch convolution as a product: (B, 3, H, W) to (B, H / p, W / p, D)."""
    weight = state["patch_embed.proj.weight"]
    dim, channels, p, _ = weight.shape
    batch, _, height, width = pixels.shape
    cut = pixels.reshape(batch, channels, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3)
    return cut @ weight.reshape(dim, -1).T + state["patch_embed.proj.bias"]


def attention(state, name, x, heads, bias=0.0):
    """Softmax attention among all N tokens of x (B, N, D), with a bias (h, N, N) on the logits."""
    batch, count, dim = x.shape
    query, key, value = linear(state, f"{name}.qkv", x).reshape(batch, count, 3, heads, dim // heads).unbind(2)
    logits = torch.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(dim // heads) + bias
    weights = (logits - logits.amax(dim=-1, keepdim=True)).exp()
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return linear(state, f"{name}.proj", torch.einsum("bhnm,bmhd->bnhd", weights, value).reshape(batch, count, dim))


def blocks_of(state, prefix):
    return 1 + max(
        int(re.match(rf"{prefix}blocks\.(\d+)", key)[1]) for key in state if key.startswith(f"{prefix}blocks")
    )


def vit_tokens(state, pixels, heads):
    """Tokens after the final norm, (B, 1 + N, D), [CLS] first; DINO's and iBOT's LayerNorm has an epsilon of 1e-6."""
    eps = 1e-6
    x = patches(state, pixels).flatten(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    for i in range(blocks_of(state, "")):
        x = x + attention(state, f"blocks.{i}.attn", layer_norm(state, f"blocks.{i}.norm1", x, eps), heads)
        x = x + mlp(state, f"blocks.{i}.mlp", layer_norm(state, f"blocks.{i}.norm2", x, eps))
    return layer_norm(state, "norm", x, eps)


def intervals(side, window, shift):
    """Where shifted windows cut an axis. What a rolled window joins across the border, its mask keeps apart."""
    lines = [0, *range(shift or window, side, window), side]
    return list(itertools.pairwise(lines))


def relative_bias(table, height, width, window):
    """Bias (h, N, N) among the tokens of a rectangle no larger than a window, from the table of their offsets."""
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    rows = (y[:, None] - y[None, :] + window - 1) * (2 * window - 1) + x[:, None] - x[None, :] + window - 1
    return table[rows].permute(2, 0, 1)


def window_attention(state, name, x, heads, window, shift):
    """Attention within each shifted window of x (B, H, W, D); H and W multiples of the window."""
    out = torch.empty_like(x)
    for top, bottom in intervals(x.shape[1], window, shift):
        for left, right in intervals(x.shape[2], window, shift):
            part = x[:, top:bottom, left:right]
            table = state[f"{name}.relative_position_bias_table"]
            bias = relative_bias(table, bottom - top, right - left, window)
            out[:, top:bottom, left:right] = attention(state, name, part.flatten(1, 2), heads, bias).reshape(part.shape)
    return out


def swin_block(state, name, x, heads, window, shift):
    """A block on x (B, H, W, D). Windows that stick out see zeros there: the detection trunk pads before it shifts."""
    height, width = x.shape[1:3]
    normed = layer_norm(state, f"{name}.norm1", x, 1e-5)
    padded = torch.nn.functional.pad(normed, (0, 0, 0, -width % window, 0, -height % window))
    x = x + window_attention(state, f"{name}.attn", padded, heads, window, shift)[:, :height, :width]
    return x + mlp(state, f"{name}.mlp", layer_norm(state, f"{name}.norm2", x, 1e-5))


def merged(state, name, x):
    """The official downsample: 2 x 2 neighbours concatenated column by column, normed, halved in width; zeros beyond
    an odd edge."""
    x = torch.nn.functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
    corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return linear(state, f"{name}.reduction", layer_norm(state, f"{name}.norm", torch.cat(corners, dim=-1), 1e-5))


def swin_feature(state, pixels, heads, window, *, trunk=False):
    """Mean of the normed last map, (B, D), from official names, heads by stage.

    As a classifier a stage that one window covers has windows of its own size, unshifted. As a detection `trunk`
    every stage keeps the window and shifts, and the last stage's own norm is the final one.
    """
    x = layer_norm(state, "patch_embed.norm", patches(state, pixels), 1e-5)
    for stage, h in enumerate(heads):
        size = window if trunk else min(window, x.shape[1])
        shift = size // 2 if trunk or x.shape[1] > size else 0
        for i in range(blocks_of(state, f"layers.{stage}.")):
            x = swin_block(state, f"layers.{stage}.blocks.{i}", x, h, size, shift if i % 2 else 0)
        if stage < len(heads) - 1:
            x = merged(state, f"layers.{stage}.downsample", x)
    norm = f"norm{len(heads) - 1}" if trunk else "norm"
    return layer_norm(state, norm, x, 1e-5).mean(dim=(1, 2))


def trunk_maps(state, pixels, heads, window):
    """Maps (B, H_i, W_i, D_i) of the detection trunk, of images of any size, each after its own norm."""
    p = state["patch_embed.proj.weight"].shape[-1]
    padded = torch.nn.functional.pad(pixels, (0, -pixels.shape[3] % p, 0, -pixels.shape[2] % p))
    x, maps = layer_norm(state, "patch_embed.norm", patches(state, padded), 1e-5), []
    for stage, h in enumerate(heads):
        x = merged(state, f"layers.{stage - 1}.downsample", x) if stage else x
        for i in range(blocks_of(state, f"layers.{stage}.")):
            x = swin_block(state, f"layers.{stage}.blocks.{i}", x, h, window, window // 2 if i % 2 else 0)
        maps.append(layer_norm(state, f"norm{stage}", x, 1e-5))
    return maps
