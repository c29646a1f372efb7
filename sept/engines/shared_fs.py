"""Checks that a folder is shared by two machines: each reads there what the other has written."""

import time
from pathlib import Path


def answer_probe(path: str, node: str, within_s: float) -> str | None:
    """Runs on a node: returns what is wrong with the folder of the probe file."""
    probe = Path(path)
    if not read_in_time(probe, probe.name, within_s):
        return f"does not see {probe.parent} as this machine does"
    try:
        answer_file(probe, node).write_text(node)
    except OSError as error:
        return f"cannot write in {probe.parent} ({error.strerror})"
    return None


def answer_file(probe: Path, node: str) -> Path:
    return probe.with_name(f"{probe.name}.{node}")


def read_in_time(file: Path, expected: str, within_s: float) -> bool:
    """Whether the file contains this text, now or before a timeout."""
    end = time.monotonic() + within_s
    while True:
        try:
            if file.read_text() == expected:
                return True
        except OSError:
            pass
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
