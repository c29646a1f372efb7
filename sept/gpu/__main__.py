"""Checks a GPU with one command: are results correct, do training steps fit, how fast is it.

    python -m sept.gpu [--out FOLDER] [--only SECTION ..] [--minutes 10]

Without a card it runs on a simulated device at micro size, and says so. Exit code: the number of failed checks.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from sept.errors import Interrupted
from sept.gpu import copies, equality, fits, scans, speed, stages, surroundings, two
from sept.gpu.card import Card, found
from sept.gpu.report import Report, Result
from sept.gpu.runner import Budget, Sections, run
from sept.paths import path
from sept.runtime import command
from sept.runtime.hardware import cuda_devices

SECTIONS: Sections = {
    "surroundings": surroundings.CHECKS,
    "equality": equality.CHECKS,
    "stages": stages.CHECKS,
    "memory": fits.CHECKS,
    "speed": speed.CHECKS,
    "copies": copies.CHECKS,
    "scans": scans.CHECKS,
    "two": two.CHECKS,
}
MINUTES, OUT = 10.0, "gpu-report"
MOST_FAILED = 100  # as an exit code
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None, sections: Sections = SECTIONS) -> int:
    options = _parser(sections).parse_args(arguments)
    budget = Budget(time.monotonic(), 60 * options.minutes)
    chosen = {name: checks for name, checks in sections.items() if name in (options.only or sections)}
    results: list[Result] = []
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="sept-gpu-") as folder:
        card = found(Path(folder))
        title = _title(card)
        print(title, flush=True)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"lightning\.|torch\.")
                results.extend(run(chosen, card, budget))
        except (KeyboardInterrupt, Interrupted):
            interrupted = True
    report = Report(title, _facts(chosen, options, budget, card), results)
    paths = report.write(options.out)
    print("", *report.failures(), report.summary(), " and ".join(map(str, paths)), sep="\n", flush=True)
    return INTERRUPTED if interrupted else min(report.failed, MOST_FAILED)


def _parser(sections: Sections) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sept.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=path, default=OUT, metavar="FOLDER", help=f"for gpu.json and gpu.md (default: {OUT}/)"
    )
    parser.add_argument("--only", nargs="+", choices=list(sections), metavar="SECTION", help=", ".join(sections))
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="time limit, after which remaining checks are skipped"
    )
    return parser


def _title(card: Card) -> str:
    if card.real:
        return f"{card.count} x {card.name}" if card.count > 1 else card.name
    reported = cuda_devices()
    why = f"TORCH CANNOT USE the {reported} CUDA devices that the driver reports" if reported else "NO CUDA DEVICE HERE"
    return (
        f"{why}: what follows ran on a SIMULATED device, on the CPU and at micro size. Equality is "
        "checked; times, rates and memory are a CPU's at micro size and say nothing about a GPU."
    )


def _facts(chosen: Sections, options: argparse.Namespace, budget: Budget, card: Card) -> dict[str, object]:
    only = f" --only {' '.join(options.only)}" if options.only else ""
    times = os.times()
    return {
        "command": f"python -m sept.gpu{only}",
        "pretended": not card.real,
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "sections": list(chosen),
        "minutes": options.minutes,
        "wall_s": round(budget.elapsed, 1),
        "cpu_s": round(times.user + times.system + times.children_user + times.children_system, 1),
    }


if __name__ == "__main__":
    command.run(main)
