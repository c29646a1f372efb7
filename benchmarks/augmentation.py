"""Memory that colouring views moves on a device, the operators it launches, its copies; images a second on a CPU.

    OMP_NUM_THREADS=1 python -m benchmarks.augmentation [--images 512] [--rounds 15]

Counted on torch's device of shapes without numbers (`meta`), which takes the way of devices: an operator moves as many
bytes as its inputs and outputs hold (views move none; one put into place counts the whole it is put into). Before the
rows were sorted by their operations, at commit aca3ebc, for 512 images: MoBy's two views 193.9 MB an image, 476
operators and 33 copies that are waited for, a step; iBOT's twelve 366.5 MB, 2,826 operators and 193 copies.
"""

import argparse
import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sept.methods.ibot.recipe import IBotRecipe
from sept.methods.ibot.views import MultiCrop
from sept.methods.moby.recipe import MoByRecipe
from sept.methods.views import TwoViews, Views

ON_CPU = 16  # images a round
COPIES = {"aten::_to_copy", "aten::copy_"}


class Moved(TorchDispatchMode):
    """Counts what operators on one type of device move: bytes, operators, and copies to it, waited for or not."""

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device, self.bytes, self.operators, self.waits, self.sent = device, 0, 0, 0, 0
        self.by_operator: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors((args, {name: value for name, value in kwargs.items() if name != "out"}))
        result = func(*args, **kwargs)
        made = _tensors(result)
        kinds = {tensor.device.type for tensor in given + made}
        name = func._schema.name
        if self.device not in kinds or func.is_view or name == "aten::empty":
            return result
        if name in COPIES and len(kinds) > 1:
            self.sent += 1
            self.waits += not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            return result
        moved = sum(tensor.numel() * tensor.element_size() for tensor in given + made)
        self.bytes += moved
        self.operators += 1
        self.by_operator[name] += moved
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def moby() -> Views:
    return TwoViews(MoByRecipe(side=224, store_side=256), seed=0)


def ibot() -> Views:
    return MultiCrop(IBotRecipe(side=224, local_side=96, local_crops=10), seed=0, grid=(14, 14))


def crops(views: Views, images: int, device: str) -> list[Tensor]:
    shapes = [(images, 3, side, side) for side, _ in views.crops]
    return [torch.randint(0, 256, shape, dtype=torch.uint8, device=device) for shape in shapes]


def counted(views: Views, images: int, step: int = 3) -> Moved:
    batch = crops(views, images, "meta")
    with torch.no_grad(), Moved() as moved:
        views.colour(batch, step)
    return moved


def rate(views: Views, rounds: int) -> float:
    """Images per core-second on the CPU."""
    batch, seconds = crops(views, ON_CPU, "cpu"), []
    for step in range(rounds):
        start = time.process_time()
        views.colour(batch, step)
        seconds.append(time.process_time() - start)
    return ON_CPU / float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512, help="a batch, of what is counted")
    parser.add_argument("--rounds", type=int, default=15, help="of which the median counts, on the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| views | MB an image | operators a step | copies | waited for | CPU: images / core-second |")
    print("|---|---|---|---|---|---|")
    for name, views in {"MoBy, 2 of 224 px": moby(), "iBOT, 2 of 224 and 10 of 96 px": ibot()}.items():
        c = counted(views, arguments.images)
        megabytes = c.bytes / arguments.images / 1e6
        print(
            f"| {name} | {megabytes:.1f} | {c.operators} | {c.sent} | {c.waits} | {rate(views, arguments.rounds):.0f} |"
        )


if __name__ == "__main__":
    main()
