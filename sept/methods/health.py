"""Measures that tell whether features have collapsed, and what they are worth without any training."""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS, TEMPERATURE = 20, 0.07  # of the k-NN evaluation of DINO and iBOT


@torch.no_grad()
def feature_std(features: Tensor) -> Tensor:
    """Scalar: deviation over the batch of L2-normalised features (B, D), mean over D, times sqrt(D).

    About 1 where they point everywhere alike, 0 where all are the same (SimSiam, Fig. 2).
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


@torch.no_grad()
def knn_accuracy(features: Tensor, labels: Tensor) -> float:
    """Top-1 in percent of each image by the others: votes of its nearest ones, weighted by exp(cosine / temperature).

    features (N, D), labels (N,). The weighted k-NN of DINO and iBOT, leaving one out; at most N - 1 neighbours vote.
    """
    unit = F.normalize(features.float(), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest, places = similarity.topk(min(NEIGHBOURS, len(unit) - 1), dim=1)
    votes = F.one_hot(labels[places]) * (nearest / TEMPERATURE).exp().unsqueeze(-1)  # (N, k, classes)
    return 100 * float((votes.sum(dim=1).argmax(dim=1) == labels).float().mean())
