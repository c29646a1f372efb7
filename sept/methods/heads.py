"""Projection heads that methods share."""

from torch import nn


def moby_mlp(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """Linear, BatchNorm, ReLU, Linear: MoBy's projector and predictor (no BatchNorm after the last)."""
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, out_dim)
    )
