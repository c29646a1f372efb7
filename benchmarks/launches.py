"""What the host launches in a MoBy step of Swin-T at 224 px, as it is and with `hardware.compile=true`.

    OMP_NUM_THREADS=1 python -m benchmarks.launches

A launch is an operator that is no view, or one call of what torch.compile has made of many. In bf16, and without the
making of the views. The encoders are compiled by inductor for this CPU, which takes minutes; for a GPU it fuses by the
same rules, into kernels of its own.
"""

import re
from collections.abc import Callable
from functools import partial

import torch
from torch._inductor.utils import run_and_get_code

from sept.gpu.memory import build_learner, counting, recipe, step_memory, without_data
from sept.methods.learner import VIEWS, pooled
from sept.methods.moby.learner import MoBy

IMAGES = 2
AUTOCAST = torch.autocast("cpu", torch.bfloat16)
CALLED = r"cpp_fused\w*|extern_kernels\.\w+|torch\.ops\.[\w.]+|aten\.[\w.]+"
CALL = re.compile(rf"^ {{4,}}(?:\w+ = )?(?:{CALLED})\(", re.MULTILINE)


def launched(*runs: Callable[[MoBy], None]) -> int:
    """Of an encoder that is not compiled."""
    learner = moby()
    with counting() as live:
        without_data(learner)
        live.restart()
        for run in runs:
            run(learner)
        return live.restart()[1]


def moby() -> MoBy:
    learner = build_learner("moby", recipe("moby")).train()
    assert isinstance(learner, MoBy)
    return learner


def online(learner: MoBy) -> None:
    with AUTOCAST:
        features = learner.encode_blank(IMAGES)
    features.sum().backward()


def target(learner: MoBy) -> None:
    with torch.no_grad(), AUTOCAST:
        blank = torch.zeros(VIEWS * IMAGES, 3, learner.recipe.side, learner.recipe.side)
        learner.encode(pooled, learner.target["encoder"], [blank], VIEWS)


def main() -> None:
    torch.set_num_threads(1)
    whole, encoders = step_memory("moby", IMAGES).operators, launched(online, target)
    learner = moby()
    learner.compile_networks = True
    calls = 0
    for run in (online, target):
        _, codes = run_and_get_code(partial(run, learner))
        found = [len(CALL.findall(code)) for code in codes]
        print(f"{run.__name__}: compiled into {len(codes)} programs of {found} calls")
        calls += sum(found)
    print(f"as it is: {whole} launches a step, {encoders} of them of the encoders")
    print(f"compiled: {whole - encoders + calls} launches a step, {calls} of them of the encoders")
    print(f"share left: {(whole - encoders + calls) / whole:.2f}")


if __name__ == "__main__":
    main()
