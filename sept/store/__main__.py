"""`python -m sept.store`: list, verify, repair or prune the artefacts of a store."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sept.errors import ConfigError, DataError, SeptError
from sept.paths import check_environment, path
from sept.runtime import command
from sept.store.maintenance import prune, repair, verify
from sept.store.step import KEY_CHARS, load_artefact, parse_folder
from sept.store.store import FORMAT_FILE, Store

HEADER = ("stage", "key", "slug", "MB", "wall_s", "created")
BYTES_PER_MB = 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 65 when `verify` finds something, or that of the error."""
    try:
        check_environment()
        options = _parser().parse_args(arguments)
        if not (options.root / FORMAT_FILE).exists():
            raise ConfigError(f"{options.root} is not a store; name one with --root or SEPT_STORE")
        if options.command == "prune":
            return _print_fates(
                prune(Store(options.root), options.stage, options.key, options.unfinished, options.dry_run)
            )
        if options.command == "repair":
            return _print_fates(repair(Store(options.root)))
        store = Store(options.root, mode="read-only")
        return _verify(store) if options.command == "verify" else _list(store)
    except SeptError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sept.store", description=__doc__)
    root = os.environ.get("SEPT_STORE", "store")
    parser.add_argument(
        "--root", type=path, default=root, help="the store's folder (default: SEPT_STORE, else ./store)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="one line per published artefact")
    commands.add_parser("verify", help="re-hash every file; exits 65 when one is missing, altered or extra")
    commands.add_parser("repair", help="drop damaged files; the original command computes them again")
    pruning = commands.add_parser("prune", help="remove the named artefacts; work of a running process is left alone")
    pruning.add_argument("--stage", action="append", default=[], help="may be repeated")
    pruning.add_argument("--key", action="append", default=[], help="as listed; may be repeated")
    pruning.add_argument("--unfinished", action="store_true", help="unfinished work instead of published artefacts")
    pruning.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    return parser


def _list(store: Store) -> int:
    rows = [HEADER, *(_row(folder) for folder in store.artefact_folders())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(folder: Path) -> tuple[str, ...]:
    name = parse_folder(folder.name)
    assert name is not None
    try:
        manifest = load_artefact(folder).manifest
    except DataError:
        return folder.parent.name, name.key, name.slug, "damaged", "-", "-"
    size_mb = sum(file["size"] for file in manifest["files"].values()) / BYTES_PER_MB
    key = manifest["key"][:KEY_CHARS]
    return manifest["stage"], key, name.slug, f"{size_mb:.3f}", f"{manifest['wall_s']:.1f}", manifest["created"]


def _verify(store: Store) -> int:
    problems = verify(store)
    for problem in problems:
        print(problem)
    print(f"{sum(1 for _ in store.artefact_folders())} artefacts, {len(problems)} problems", file=sys.stderr)
    return DataError.exit_code if problems else 0


def _print_fates(fate: dict[Path, str]) -> int:
    for folder, what in fate.items():
        print(f"{what}: {folder}")
    return 0


if __name__ == "__main__":
    command.run(main)
