"""What encoding a batch in chunks costs: CPU seconds of a MoBy step of Swin-T at 224 px, as a whole and with a share of
the images encoded a second time.

    OMP_NUM_THREADS=1 python -m benchmarks.chunks [--rounds 5] [--images 16]

Float32, one thread, by its processor time; the ways take turns and medians count. A GPU spends its time elsewhere, but
on the same operators. Which share fits into how much memory: python -m benchmarks.memory.
"""

import argparse
import time
from statistics import median
from types import SimpleNamespace

import torch

from sept.backbones import Backbone
from sept.methods.moby.learner import MoBy
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.recipe import Length
from sept.training.learner import Chunk

KEPT = {"whole": None, "7 of 8 kept": 7 / 8, "1 of 8 kept": 1 / 8}


def step_seconds(learner: MoBy, batch: dict) -> float:
    start = time.process_time()
    learner.training_step(batch, 0).backward()
    learner.zero_grad()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = MoByRecipe(queue=4096)
    learner = MoBy(recipe, Backbone("swin_tiny_patch4_window7_224"), seed=0, length=Length(100, 100))
    learner._trainer = SimpleNamespace(world_size=1, global_step=0, log_every_n_steps=10)  # type: ignore[assignment]
    crops = [torch.randint(0, 256, (options.images, 3, recipe.side, recipe.side), dtype=torch.uint8) for _ in range(2)]
    seconds: dict[str, list[float]] = {name: [] for name in KEPT}
    for _ in range(options.rounds + 1):
        for name, share in KEPT.items():
            size = max(1, options.images // 8)
            learner.chunk = None if share is None else Chunk(size, round(share * options.images))
            seconds[name].append(step_seconds(learner, {"crops": crops}))
    for name, each in seconds.items():  # the first round warms up
        ratios = [one / other for one, other in zip(each[1:], seconds["whole"][1:], strict=True)]
        print(
            f"{name:12} {median(each[1:]):6.2f} CPU s a step of {options.images} images, {median(ratios):.3f} of whole"
        )


if __name__ == "__main__":
    main()
