"""The command `sept`: `sept train`, `sept search` and the modules with a command of their own, from any folder."""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from sept.errors import ConfigError
from sept.runtime import command, signals

PARTS = {  # module, and what it is for
    "init": ("sept.commands.init", "begin a project: a folder with an experiment and a task of one's own"),
    "train": ("sept.commands.train", "run an experiment, or a named table of them"),
    "search": ("sept.commands.search", "stop at the selection; look up images or words in a pool"),
    "tables": ("sept.tables.__main__", "print tables from the store; reports"),
    "ledger": ("sept.ledger", "what all of it has cost"),
    "store": ("sept.store.__main__", "list, verify, repair or prune the store"),
    "check": ("sept.data.check", "whether an official data set is complete and in its place"),
    "doctor": ("sept.commands.doctor", "what a run finds here: versions, devices, disk, data, weights"),
    "gpu": ("sept.gpu.__main__", "check and time this machine's GPU"),
}
USAGE = """usage: sept PART ...

{parts}

--version: print the version. `sept PART --help` says more. A folder `conf` where it is started holds options of one's
own: conf/task/mine.yaml is task=mine."""


def main() -> NoReturn:
    command.run(part)


def start(name: str) -> NoReturn:
    """As the script of that name in the clone."""
    signals.end_program()
    command.run(lambda: _code_of(name))


def part() -> int | None:
    """Runs the part that the command line names, as if it had been started by itself; returns its exit code."""
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        print(USAGE.format(parts="\n".join(f"{name:8}{purpose}" for name, (_, purpose) in PARTS.items())))
        return 0
    if given[0] == "--version":
        print(f"sept {version('sept')}")
        return 0
    if given[0] not in PARTS:
        from sept.compose.names import nearest

        raise ConfigError(f"sept {given[0]}: no such part; {nearest(given[0], [*PARTS])}")
    signals.end_program()
    sys.argv = [f"sept {given[0]}", *given[1:]]
    return _code_of(given[0])


def _code_of(name: str) -> int | None:
    code: int | None = import_module(PARTS[name][0]).main()
    return code


if __name__ == "__main__":
    main()
