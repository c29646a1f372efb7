"""Begins a project: a folder with an experiment and a task of one's own, as commented YAML."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import sept
from sept.errors import ConfigError
from sept.paths import path

TEMPLATES = Path(sept.__file__).parent / "assets" / "project"
PLACES = ("task", "pool")  # paths in the templates that options replace


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the files and says how to go on. Raises ConfigError for a folder that holds one of them."""
    parser = argparse.ArgumentParser(prog="sept init", description=__doc__)
    parser.add_argument("folder", type=path, help="of the project; made if it is not there")
    parser.add_argument("--task", type=path, help="the labelled images (default: FOLDER/task)")
    parser.add_argument("--pool", type=path, help="the unlabelled images (default: FOLDER/pool)")
    given = parser.parse_args(arguments)
    files = {
        given.folder / _name(template): template for template in sorted(TEMPLATES.rglob("*")) if template.is_file()
    }
    for file in files:
        if file.exists():
            raise ConfigError(f"sept init: {file} is there already; name another folder, or remove it")
    for file, template in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        text = template.read_text(encoding="utf-8")
        for place in PLACES:
            if getattr(given, place) is not None:
                text = text.replace(f"path: {place}", f"path: {_quoted(getattr(given, place))}")
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file}")
    print(f"next: cd {shlex.quote(str(given.folder))} && sept train +experiment=mine plan=true")
    return 0


def _name(template: Path) -> str:
    inside = template.relative_to(TEMPLATES).as_posix()
    return ".gitignore" if inside == "gitignore" else inside


def _quoted(place: Path) -> str:
    """As YAML text, that means the same from every folder."""
    return "'" + str(place.absolute()).replace("'", "''") + "'"
