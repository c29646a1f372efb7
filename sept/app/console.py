"""Console output of a run: the plan before it, the row and the paths after it."""

import sys
from collections.abc import Iterable
from typing import Any

from sept.backbones import OWN
from sept.config import Experiment
from sept.results import MEANING, MEASURES, METRICS, PRINTED
from sept.store import Store
from sept.store.step import Step


def print_plan(step: Step, store: Store) -> None:
    """Describes task and pool, and prints a line per step: cached, to be resumed or to do, with images and FLOPs."""
    for line in about([step]):
        _print_line(line)
    missing = {each.key for each in store.missing(step)}
    if not missing:
        _print_line(f"plan: everything is in {store.root}")
        return
    _print_line("plan:")
    for each in step.walk():
        state = store.status(each) if each.key in missing else "cached"
        _print_line(f"  {each.stage:<12} {state:<11} {_amount(each):<34} {each.slug}")


def about(finals: Iterable[Step]) -> list[str]:
    """A line for each task and for each pool source that the steps read."""
    return list(dict.fromkeys(each.about for final in finals for each in final.walk() if each.about))


def print_row(e: Experiment, done: dict[str, Any], step: Step, store: Store) -> None:
    """Prints the row, the command that reproduces it, and the line that loads the backbone in timm."""
    from sept.overrides import command

    named = ", ".join(f"{name}={done[name]}" for name in (*PRINTED, "seed", "finetune_seed") if done[name] is not None)
    if done["images"] not in (None, done["budget"]):
        named += f", {done['images']:,} images"
    beside = [name for name in MEASURES if done[name] is not None and name != done["metric"]]
    others = [f"{METRICS[name]} {done[name]:.2f}" for name in beside]
    told = f" ({', '.join(others)})" if others else ""
    print(
        f"{METRICS[done['metric']]} {done['score']:.2f} %{told}  {named}  "
        f"{done['flops']:.2e} FLOPs, {done['wall_s']:.0f} s",
        flush=True,
    )
    compared = {"chance": done["chance"], "floor": done["floor"], "rand_init": done["untrained"]}
    against = ", ".join(f"{name} {value:.2f}" for name, value in compared.items() if value is not None)
    for remark in done["remarks"]:
        print(f"  {remark} ({against}): {MEANING[remark]}", flush=True)
    _print_line(f"  reproduce: {command(e)}")
    _print_line(f"  files of this run: {store.find(step).path}")  # type: ignore[union-attr]
    backbone = step.inputs.get("backbone")
    artefact = store.find(backbone) if backbone is not None else None
    if artefact is not None:
        registered = f"import {OWN[e.backbone.name]}; " if e.backbone.name in OWN else ""
        _print_line(
            f'  backbone: {registered}timm.create_model("local-dir:{artefact.path}/backbone", pretrained=True, '
            "num_classes=10)"
        )


def _amount(step: Step) -> str:
    images, flops = step.estimate.get("images"), step.estimate.get("flops")
    parts = [f"{int(images):,} images"] if images else []
    return ", ".join(parts + ([f"{flops:.2e} FLOPs"] if flops else []))


def _print_line(text: str) -> None:
    print(text, file=sys.stderr)
