"""Reads the runs that wandb leaves on disk: wandb itself has no reader in Python.

A `.wandb` file is a header of 7 bytes and a LevelDB log: blocks of 32 KiB, in which a record is cut into pieces, each
behind 7 bytes of CRC-32, length and kind. A record is a protobuf message of wandb's.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IDENT, START = b":W&B", 7
BLOCK, HEAD = 2**15, struct.Struct("<IHB")
WHOLE, FIRST, LAST = 1, 2, 4


@dataclass
class Run:
    """What a file says of a run. files: paths below `folder`."""

    folder: Path
    id: str = ""
    begun: int = 0
    title: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    system: int = 0
    exit_code: int | None = None

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.history if name in row]


def offline_runs(folder: Path) -> list[Run]:
    """Of a working folder, in the order of their beginning."""
    return sorted(map(read, folder.glob("wandb/offline-run-*/run-*.wandb")), key=lambda run: run.begun)


def read(path: Path) -> Run:
    from wandb.proto import wandb_internal_pb2

    run = Run(path.parent / "files")
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run.id, run.title = record.run.run_id, record.run.display_name
                run.begun = record.run.start_time.ToNanoseconds()
                run.config |= _values(record.run.config.update)
            case "config":
                run.config |= _values(record.config.update)
            case "history":
                run.history.append(_values(record.history.item))
            case "summary":
                run.summary |= _values(record.summary.update)
            case "files":
                run.files += [each.path for each in record.files.files]
            case "stats":
                run.system += 1
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def records(data: bytes) -> Iterator[bytes]:
    assert data[: len(IDENT)] == IDENT
    place, whole = START, b""
    while place + HEAD.size <= len(data):
        room = BLOCK - place % BLOCK
        if room < HEAD.size:
            place += room
            continue
        crc, length, kind = HEAD.unpack_from(data, place)
        piece = data[place + HEAD.size : place + HEAD.size + length]
        assert zlib.crc32(bytes([kind]) + piece) == crc
        place += HEAD.size + length
        whole = piece if kind in (WHOLE, FIRST) else whole + piece
        if kind in (WHOLE, LAST):
            yield whole


def _values(items: Any) -> dict[str, Any]:
    """Nested ones by the outermost name: their own names and values."""
    found: dict[str, Any] = {}
    for item in items:
        outer, *inner = [item.key] if item.key else list(item.nested_key)
        value = json.loads(item.value_json)
        if inner:
            found.setdefault(outer, {})[".".join(inner)] = value
        else:
            found[outer] = value
    return found
