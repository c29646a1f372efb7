"""Builds one world: `python -m benchmarks.worlds NAME DIR`."""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.worlds import folders
from benchmarks.worlds.packages import fetched
from benchmarks.worlds.pictures import without_copies
from sept.errors import SeptError

NAMES = ("glyphs", "icons", "photos", "cliparts")
SEED = 0


def build(name: str, folder: Path) -> str:
    """Builds the named world in `folder` unless it is there; gives one line that says what is there."""
    module = importlib.import_module(f"benchmarks.worlds.{name}")
    packages = fetched(module.PACKAGES, folder.absolute().parent / "packages")
    versions = {package.name: package.version for package in packages.values()}
    recipe = {"world": name, "recipe": module.VERSION, "seed": SEED, "packages": versions}
    if folders.already(folder, recipe):
        return f"{folder} is there already"
    told = folders.write(without_copies(module.world(packages, SEED)), folder, recipe, SEED)
    sizes = ", ".join(f"{low} to {high} {split}" for split, (low, high) in told["images a class"].items())
    share = told["of the kind"] / told["pool"]
    return f"{folder}: {told['pool']:,} images, {share:.1%} {told['kind']}; {len(told['classes'])} classes of {sizes}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worlds", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    try:
        print(build(chosen.name, chosen.folder))
    except SeptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
