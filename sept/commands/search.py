"""Stops at the selection: `budget=1k` prints its statistics and draws the gallery of SEPT Fig. 5.

`query=PHOTO_OR_FOLDER top=20` looks up any images in the embedded pool instead, and `retriever=clip_b16_text
text="a red kite over a field"` looks up words.
"""

import os

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes its errors on, and we report them in one line

import logging
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sept import capability, compose, config, paths
from sept.app.making import advice, make
from sept.errors import ConfigError, Interrupted
from sept.runtime import command, failures, signals


@hydra.main(version_base="1.3", config_path=str(compose.CONF), config_name="config")
def launched(cfg: DictConfig) -> None:
    try:
        search(compose.load(cfg))
    except (Interrupted, Exception) as error:  # here: Hydra would print its own line before it passes it on
        sys.exit(command.report_error(error))


def search(e: config.Experiment) -> None:
    """Makes the selection, or embeds the pool and looks the query up; writes the results below `outputs`. With
    `advise=true` says whether a selection should pay."""
    with signals.raising():
        if e.advise:
            print(advice(e))
            return
        if e.export is not None:
            from sept.app.export import require_empty

            require_empty(Path(e.export))
        look_up = e.query.looks_up
        pipeline, store = make(e, lambda steps: steps.features if look_up else steps.chosen, selection_only=True)
        from sept.app import search_report  # brings torch

        tell = search_report.show_matches if look_up else search_report.show_selection
        with failures.translated("search", capability.remedy("selection", e)):
            print(tell(e, pipeline, store, Path("outputs")))


def rewritten(arguments: list[str]) -> list[str]:
    """Expands `query=PATH`, `text=WORDS` and `top=N`; `query=NAME` of an option in conf/query is left as it is."""
    known = compose.options("query")
    result = []
    for text in arguments:
        key, _, value = text.partition("=")
        value = "./???" if value == "???" else value  # `???` means a missing value to OmegaConf
        if key == "query" and value not in known:
            text = f"query.path={paths.quoted(value)}"
        elif key == "text":
            text = f"query.text={paths.quoted(value)}"
        elif key == "top":
            text = f"query.top={value}"
        result.append(text)
    return result


def main() -> None:
    if {"-h", "--help"} & {*sys.argv}:
        print(compose.usage("search", __doc__.strip()))
        return
    arguments = sys.argv[1:] if compose.COMPLETION & {*sys.argv} else rewritten(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    compose.check_overrides(arguments)
    compose.check_hydra(arguments)
    asked = compose.asked(arguments)
    if asked.table is not None:
        raise ConfigError(f"+table={asked.table}: search.py looks at one selection; tables are made by train.py")
    if asked.by_hydra:
        compose.hand_over(arguments)
        with compose.one_line():
            launched()
    for overrides in asked.cells if not asked.by_hydra else []:
        search(compose.experiment(overrides, expanded=True))
