"""Measures of feature collapse."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
