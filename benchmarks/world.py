"""Is the embedded world neither too hard nor too easy? Three figures for each target task, with the micro Swin.

`python benchmarks/world.py` prints a markdown table: top-1 with many labels and with 5 shots, both from scratch, and
how well a linear probe on a network trained to tell a task's classes names an image's domain.
About three minutes on one core.
"""

import argparse
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sept.data.patterns import DOMAINS, TARGETS, classes, draw

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
SHOTS = 5
FULL_EPOCHS, FEW_EPOCHS = 16, 60


class Images(NamedTuple):
    pixels: Tensor  # (N, 3, side, side) normalised
    labels: Tensor  # (N,) int64

    def first(self, count: int) -> "Images":
        return Images(self.pixels[:count], self.labels[:count])


def normalised(images: list[np.ndarray]) -> Tensor:
    return (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def task(domain: str, per_class: int, side: int, seed: int) -> Images:
    """`per_class` images of each class, one of each class after another."""
    places = [(label, index) for index in range(per_class) for label in range(classes(domain))]
    pixels = normalised([draw(domain, label, side, seed, index) for label, index in places])
    return Images(pixels, torch.tensor([label for label, _ in places]))


def domain_set(per_domain: int, side: int, seed: int) -> Images:
    """Images labelled with their domain, classes in turn."""
    places = [(place, index) for index in range(per_domain) for place in range(len(DOMAINS))]
    pixels = [draw(DOMAINS[p], i % classes(DOMAINS[p]), side, seed, i) for p, i in places]
    return Images(normalised(pixels), torch.tensor([p for p, _ in places]))


def micro_swin(num_classes: int, side: int) -> nn.Module:
    """The quickstart's backbone: two stages of one block, (N, 96) features."""
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=side, patch_size=side // 8, window_size=4, embed_dim=48,
        depths=(1, 1), num_heads=(3, 6), num_classes=num_classes,
    )  # fmt: skip


def cropped(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of each image, (.4, 1) of its area, resized back, half of them mirrored."""
    B = len(pixels)
    span = torch.empty(B).uniform_(0.4, 1.0, generator=generator).sqrt()
    flip = torch.randint(0, 2, (B,), generator=generator) * 2 - 1
    theta = torch.zeros(B, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = span * flip, span
    theta[:, :, 2] = (torch.rand(B, 2, generator=generator) * 2 - 1) * (1 - span[:, None])
    return F.grid_sample(pixels, F.affine_grid(theta, list(pixels.shape), align_corners=False), align_corners=False)


def trained(images: Images, epochs: int, batch: int, seed: int) -> Any:
    """A micro Swin taught from scratch: AdamW, warm-up and cosine, with crops, flips and light changes."""
    torch.manual_seed(seed)
    model = micro_swin(int(images.labels.max()) + 1, images.pixels.shape[-1])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(images.labels) // batch)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: (t + 1) / warm if t < warm else 0.5 * (1 + math.cos(math.pi * t / steps))
    )
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images.labels), generator=generator).split(batch):
            if len(chosen) < batch:
                continue
            light = torch.empty(2, batch, 1, 1, 1).uniform_(-0.4, 0.4, generator=generator)
            pixels = cropped(images.pixels[chosen], generator) * (1 + light[0]) + light[1]
            loss = F.cross_entropy(model(pixels), images.labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def answers(model: nn.Module, pixels: Tensor) -> Tensor:
    return torch.cat([model(block) for block in pixels.split(512)])


def top1(model: nn.Module, test: Images) -> float:
    return 100 * (answers(model, test.pixels).argmax(1) == test.labels).float().mean().item()


def domain_probe(features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor) -> float:
    """Top-1 of a ridge regression on features (N, D) that names the domain."""
    centre, scale = features.mean(0), features.std(0) + 1e-5
    known, asked = (F.pad((f - centre) / scale, (0, 1), value=1.0) for f in (features, test_features))
    weights = torch.linalg.solve(known.T @ known + torch.eye(known.shape[1]), known.T @ F.one_hot(labels).float())
    return 100 * ((asked @ weights).argmax(1) == test_labels).float().mean().item()


def rows(targets: tuple[str, ...], per_class: int, side: int, seeds: int) -> Iterator[str]:
    """The lines of the table, each as soon as it is known."""
    yield f"| task | {per_class} a class | {SHOTS} shots | chance | domain probe |"
    yield "|---|---|---|---|---|"
    known, asked = domain_set(100, side, 21), domain_set(60, side, 22)
    for domain in targets:
        train_set, test_set = task(domain, per_class, side, 11), task(domain, 60, side, 12)
        few = [
            top1(trained(train_set.first(SHOTS * classes(domain)), FEW_EPOCHS, 40, s), test_set) for s in range(seeds)
        ]
        model = trained(train_set, FULL_EPOCHS, 64, 0)
        full = top1(model, test_set)
        model.reset_classifier(0)
        probe = domain_probe(answers(model, known.pixels), known.labels, answers(model, asked.pixels), asked.labels)
        yield f"| {domain} | {full:.1f} | {np.mean(few):.1f} | {100 / classes(domain):.1f} | {probe:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--per-class", type=int, default=150)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    for line in rows(tuple(asked.targets), asked.per_class, asked.side, asked.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
