"""Each method's published recipes at full size on a CPU: two steps, the loss at initialisation, memory and FLOPs.

    python -m benchmarks.full_size [OPTION ..] [--batch 4]

OPTION: of `pretrain`; without any, every recipe of full size. Each runs in a process of its own, whose memory is its
peak. The loss at chance level is the learner's own. Images are blurred noise; four labels; captions of a few
words; vectors of any directions.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import interpolate

from sept.compose import CONF, experiment
from sept.data.rng import generator
from sept.methods.recipe import Length
from sept.runtime.named import load

BACKBONES = ("vit_b16", "vit_s16", "swin_t", "resnet50")  # ends of the options' names
LENGTH = Length(10_000, 100)
COARSE = 14  # cells of the noise, blurred to the views
CAPTIONS = ("a red kite over a field", "two dogs", "a harbour at night, seen from the sea", "bread")
CLASSES = 4
WIDTH = 384  # of the vectors of a retriever: ViT-S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("options", nargs="*", metavar="OPTION")
    parser.add_argument("--batch", type=int, default=4, help="images; the published batch is scaled down to it")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(measured(given.options[0], given.batch))
        return
    print("| recipe | loss at step 0 | chance | at step 1 | s a step | peak MB | GFLOPs an image |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for option in given.options or full_size():
        own = [sys.executable, "-m", "benchmarks.full_size", option, "--batch", str(given.batch), "--alone"]
        done = subprocess.run(own, capture_output=True, text=True, check=False)
        last = (done.stderr.strip().splitlines() or [""])[-1]
        print(done.stdout.strip() if done.returncode == 0 else f"| {option} | failed: {last} |", flush=True)


def full_size() -> list[str]:
    return [path.stem for path in sorted((Path(CONF) / "pretrain").glob("*.yaml")) if path.stem.endswith(BACKBONES)]


def measured(option: str, batch: int) -> str:
    """A row: two steps of a learner with fresh weights."""
    backbone = next(name for name in BACKBONES if option.endswith(name))
    backbone = "swin_t_192" if option == "simmim_swin_t" else backbone
    e = experiment([f"pretrain={option}", f"backbone={backbone}", f"pretrain.batch_size={batch}"])
    recipe: Any = e.pretrain.fitted(1000, LENGTH.steps)
    for name, found in (("classes", CLASSES), ("out_dim", WIDTH)):  # what a run counts or reads in its images
        if getattr(recipe, name, 0) is None:
            setattr(recipe, name, found)
    learner: Any = load(recipe.learner)(recipe, e.backbone, seed=0, length=LENGTH).train()
    trainer: Any = SimpleNamespace(world_size=1, global_step=0, log_every_n_steps=1, is_global_zero=True, loggers=[])
    trainer.strategy = SimpleNamespace(reduce=lambda value, **_: value)
    learner._trainer = trainer
    optimizer = learner.configure_optimizers()
    trainer.optimizers = [optimizer]
    data, losses, chances, seconds = images(learner, batch), [], [], []
    for _ in range(2):
        began = time.perf_counter()
        losses.append(step(learner, optimizer, data))
        seconds.append(time.perf_counter() - began)
        chances.append(losses[-1] / float(learner.loss_over_chance))
        trainer.global_step += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    flops = recipe.flops(e.backbone) / 1e9
    told = [
        f"{losses[0]:.3f}",
        f"{chances[0]:.3f}",
        f"{losses[1]:.3f}",
        f"{seconds[1]:.1f}",
        f"{peak:,.0f}",
        f"{flops:.1f}",
    ]
    return f"| {option} | {' | '.join(told)} |"


def step(learner: Any, optimizer: torch.optim.Optimizer, data: dict[str, Any]) -> float:
    """One step as Lightning takes it; its loss."""
    found: list[float] = []

    def closure() -> torch.Tensor:
        loss: torch.Tensor = learner.training_step(data, 0)
        found.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        learner.on_before_optimizer_step(optimizer)
        return loss

    learner.on_train_batch_start(data, 0)
    learner.optimizer_step(0, 0, optimizer, closure)
    learner.take_recorded()
    return found[0]


def images(learner: Any, batch: int) -> dict[str, Any]:
    """A batch as data workers hand it over."""
    coarse = torch.rand(batch, 3, COARSE, COARSE, generator=generator(0, "full size"))
    data: dict[str, Any] = {
        "crops": [
            interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1).mul(255).byte()
            for side, _ in learner.views.crops
        ],
        "label": torch.arange(batch) % CLASSES,
        "vector": torch.randn(batch, WIDTH, generator=generator(0, "full size vectors")),
        "caption": [CAPTIONS[image % len(CAPTIONS)] for image in range(batch)],
    }
    if hasattr(learner.views, "masks"):
        masks = [learner.views.masks(0, image) for image in range(batch)]
        data["masks"] = [torch.stack(view) for view in zip(*masks, strict=True)]
    return data


if __name__ == "__main__":
    main()
