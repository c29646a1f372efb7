"""Fixed position embeddings of a grid of patches."""

import torch
from torch import Tensor

LONGEST = 10_000.0  # the largest period of the waves is 2 pi times this, in patches (Transformer; MAE released code)


def sincos(width: int, rows: int, columns: int) -> Tensor:
    """(rows * columns, width) float32, patches row by row: sines and cosines of the column in the first half of the
    channels, of the row in the second (MAE released code; MoCo v3). width: a multiple of four."""
    quarter = width // 4
    rates = LONGEST ** (-torch.arange(quarter, dtype=torch.float64) / quarter)

    def waves(count: int) -> Tensor:
        angles = torch.arange(count, dtype=torch.float64).unsqueeze(1) * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (count, width / 2)

    across = waves(columns).expand(rows, columns, -1)
    down = waves(rows).unsqueeze(1).expand(rows, columns, -1)
    return torch.cat([across, down], dim=2).flatten(0, 1).float()
