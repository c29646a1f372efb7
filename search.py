"""Stops at the selection: `python search.py budget=1k` says what was selected and draws the gallery of SEPT Fig. 5.

`python search.py query=PHOTO_OR_FOLDER top=20` looks up any images in the embedded pool instead.
"""

import os

from sept.runtime import signals

if __name__ == "__main__":  # not where a data worker imports this file
    signals.end_program()

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands on what it refuses, and it is told in one line

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sept import capability, compose, config, paths
from sept.app import command, console, shared_memory
from sept.errors import Interrupted
from sept.pipeline import Pipeline
from sept.runtime import out_of_memory
from sept.runtime.hardware import resolve
from sept.store import Store


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def cell(cfg: DictConfig) -> None:
    try:
        search(compose.load(cfg))
    except (Interrupted, Exception) as error:  # here: Hydra would print a line of its own before it hands it on
        sys.exit(command.told(error))


def search(e: config.Experiment) -> None:
    """Make the selection, or embed the pool and look the query up; write what was found below `outputs`."""
    with signals.raising():
        capability.require(e, selection_only=True)
        capability.require_packages(e, selection_only=True)
        pipeline = Pipeline(e, resolve(e.hardware))
        store = Store(e.store.root, e.store.mode, e.store.force)
        for step in pipeline.features if e.query.looks_up else [pipeline.selection]:
            console.print_plan(step, store)
            shared_memory.require(e, pipeline.runtime, store.missing(step))
            store.make(step)
        from sept.app import search_report  # brings torch

        tell = search_report.show_matches if e.query.looks_up else search_report.show_selection
        with out_of_memory.translated("search", capability.remedy("selection", e)):
            print(tell(e, pipeline, store, Path("outputs")))


def rewritten(arguments: list[str]) -> list[str]:
    """`query=PATH` and `top=N` as what they stand for; a name in conf/query stays the choice it is."""
    known = {path.stem for path in (compose.CONF / "query").glob("*.yaml")}
    result = []
    for text in arguments:
        key, _, value = text.partition("=")
        value = "./???" if value == "???" else value  # which alone is a setting without a value
        if key == "query" and value not in known:
            text = f"query.path={paths.quoted(value)}"
        elif key == "top":
            text = f"query.top={value}"
        result.append(text)
    return result


def main() -> None:
    if {"-h", "--help"} & {*sys.argv}:
        print(compose.usage("search.py", __doc__.strip()))
        return
    if not compose.COMPLETION & {*sys.argv}:
        sys.argv[1:] = compose.renamed(rewritten(sys.argv[1:]))
    compose.check_overrides(sys.argv[1:])
    compose.register()
    compose.check_hydra(sys.argv[1:])
    with compose.one_line():
        cell()


if __name__ == "__main__":
    command.run(main)
