"""What a small run of every stage leaves, in numbers that hold on any machine; `python tests/golden.py` renews them.

An artefact's key stands for its content: `VERSIONS` in sept/stages/__init__.py must move when the content does, or old
artefacts are used in its place. tests/test_golden.py compares each stage's content with golden.json, where the key is
the same. What is made of whole numbers is compared exactly. What is computed in floating point is compared by the root
mean square of each array and two projections of it, within what processors and threads differ by (TOLERANCE).
"""

import csv
import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import TINY, run
from PIL import Image
from safetensors.numpy import load_file

from sept.compose import experiment
from sept.pipeline import Pipeline
from sept.runtime.hardware import resolve
from sept.store import Artefact, Step, Store

GOLDEN = Path(__file__).with_name("golden.json")
COMMAND = "python tests/golden.py"
TOLERANCE = 0.005  # of the root mean square of an array; 0.0005 with AVX-512 or without any vector instructions
OF_CURVES = 0.001  # the same for curves, which are off by less, and tell of the first step of a training
ROUNDED = {"norm.bias"}  # in front of a batch norm its gradient is nought, and Adam takes roundings for a direction
SHARE = 0.9  # of the rows of a selection by likeness, whose order hangs on roundings
BY_BYTES = {"offset", "size"}  # of an image in its archive: an encoder may differ
LIKENESS = {"row", "score", "rank"}  # what is compared of a selection by likeness
CURVES = {"loss", "train_loss", "lr", "knn_top1"}
DIGITS = 5

BOXES = ["task=patterns_boxes", "finetune=detect_micro", "finetune.milestones=[1]"]
MASKS = ["task=patterns_masks", "finetune=segment_micro"]
FEW = ["task.images=8", "task.train_per_class=1", "task.test_per_class=1", "finetune.epochs=1", "finetune.batch_size=8"]
KEPT = [setting for setting in TINY if not setting.startswith(("finetune.", "task."))]


@cache  # promises: nothing runs here
def wanted() -> dict[str, Step]:
    """One step of every stage, inputs before what reads them. All but the last five are in the tests' common store."""
    sept, random = (_pipeline(*TINY, f"init={name}") for name in ("sept", "random"))
    similar, drawn = sept.selection, random.run
    other = _pipeline(*TINY, "init=in1k_sup", "init.weights=sept:ibot_micro", "retriever=ibot_micro")
    other.e.backbone = other.e.retriever.backbone
    return {
        "pool": sept.pools[0],
        "task": sept.task,
        "selection, a source": sept.retriever.inputs["subset"].inputs["selection"],
        "subset": sept.retriever.inputs["subset"],
        "retriever": sept.retriever,
        "features": sept.features[0],
        "queries": sept.queries,
        "fingerprints": sept.run.inputs["backbone"].aids["copies"].inputs["fingerprints"],
        "copies": sept.run.inputs["backbone"].aids["copies"],
        "selection, by likeness": similar,
        "selection, at random": random.selection,
        "pretrain": drawn.inputs["backbone"],
        "finetune": drawn,
        "subset, the task's own": _pipeline(*TINY, "init=target_only").run.inputs["backbone"].inputs["subset"],
        "index": _pipeline(*TINY, "index=int8").index,
        "weights": other.initial_weights,
        "detect": _pipeline(*KEPT, *BOXES, *FEW, "init=rand_init").run,
        "segment": _pipeline(*KEPT, *MASKS, *FEW, "init=rand_init").run,
    }


def _pipeline(*overrides: str) -> Pipeline:
    e = experiment([*dict.fromkeys(overrides)])
    return Pipeline(e, resolve(e.hardware))


def found(root: Path) -> dict[str, dict[str, Any]]:
    """The entry of each step, from a store that holds the tests' common run, where what else is wanted is made."""
    store = Store(root)
    return {name: entry(store.make(step), name) for name, step in wanted().items()}


def entry(artefact: Artefact, name: str) -> dict[str, Any]:
    """exact: digests and whole numbers; near: root mean square and projections; rows: of a selection by likeness."""
    manifest, exact, near, rows = artefact.manifest, {}, {}, None
    for path, value in _contents(artefact.path):
        column = path.rpartition(":")[2]
        if name == "selection, by likeness":
            if column == "row":
                rows = value.tolist()
            if column not in LIKENESS or value.dtype.kind in "iu":
                continue
        if column in ROUNDED:
            continue
        if value.dtype.kind == "f" or column in BY_BYTES or value.dtype == np.uint8 or value.dtype == np.int8:
            near[path] = _numbers(value.astype(np.float64))
        else:
            exact[path] = hashlib.sha256(f"{value.dtype.kind} {value.shape} {value.tolist()}".encode()).hexdigest()[:16]
    counted = {key: value for key, value in artefact.facts.items() if type(value) is int and key != "depth"}
    identity = {"stage": manifest["stage"], "version": manifest["version"], "key": manifest["key"]}
    if rows is not None:
        return {**identity, "exact": {}, "near": near, "rows": rows}
    return {**identity, "exact": exact | ({} if manifest["stage"] == "detect" else counted), "near": near}


def _contents(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays in an artefact by file and name, of every kind of file that later stages or people read."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        name = path.relative_to(folder).as_posix()
        match path.suffix:
            case ".safetensors":
                tensors = load_file(path)
                yield f"{name}:shapes", np.array([f"{key} {tensors[key].shape}" for key in sorted(tensors)])
                yield from ((f"{name}:{key}", tensors[key]) for key in sorted(tensors))
            case ".npy":
                yield name, np.load(path)
            case ".bin" | ".int8":
                yield name, np.fromfile(path, np.uint8 if path.suffix == ".bin" else np.int8)
            case ".scales":
                yield name, np.fromfile(path, np.float16)
            case ".parquet":
                yield from ((f"{name}:{column}", _column(values)) for column, values in _columns(path))
            case ".csv":
                yield from _curves(name, path)
            case ".tar":
                with tarfile.open(path) as tar:
                    yield name, _pixels([tar.extractfile(member) for member in tar])
    pictures = sorted(each for suffix in ("jpg", "png") for each in (folder / "images").rglob(f"*.{suffix}"))
    if pictures:
        yield "images:names", np.array([each.relative_to(folder).as_posix() for each in pictures])
        yield "images", _pixels(pictures)


def _columns(path: Path) -> Iterator[tuple[str, pa.ChunkedArray]]:
    table = pq.read_table(path)
    return zip(table.column_names, table.columns, strict=True)


def _column(values: pa.ChunkedArray) -> np.ndarray:
    if values.null_count == 0 and (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return values.to_numpy()
    return np.array([str(value) for value in values.to_pylist()])


def _curves(name: str, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    yield f"{name}:names", np.array(sorted(rows[0]))
    for column in sorted(CURVES & rows[0].keys()):
        yield f"{name}:{column}", np.array([float(row[column]) for row in rows if row[column]])


def _pixels(files: list) -> np.ndarray:
    """Of all pictures, one after the other."""
    return np.concatenate([np.asarray(Image.open(file).convert("RGB")).ravel() for file in files])


def _numbers(values: np.ndarray) -> list[float]:
    """Root mean square, and two projections on waves of no common period, which scramble no two places into one."""
    flat, places = values.ravel(), np.arange(values.size)
    found = [np.sqrt((flat**2).mean())] + [
        float(flat @ np.cos(step * places + step)) / np.sqrt(max(1, flat.size)) for step in (1.6180339, 2.7182818)
    ]
    return [float(f"{number:.{DIGITS}g}") for number in found]


def moved(known: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[str]]:
    """What differs in the content of each entry that has the key it had."""
    same = [name for name in now if name in known and known[name]["key"] == now[name]["key"]]
    apart = {name: _apart(known[name], now[name]) for name in same}
    return {name: lines for name, lines in apart.items() if lines}


def outdated(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Entries of other keys than they were written for."""
    names = [*now, *(name for name in known if name not in now)]
    return [name for name in names if known.get(name, {}).get("key") != now.get(name, {}).get("key")]


def _apart(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{part}: {known['exact'].get(part)} is {now['exact'].get(part)}"
        for part in sorted(known["exact"].keys() | now["exact"].keys())
        if known["exact"].get(part) != now["exact"].get(part)
    ]
    for part in sorted(known["near"].keys() | now["near"].keys()):
        was, is_ = known["near"].get(part), now["near"].get(part)
        if was is None or is_ is None or off(was, is_) > (OF_CURVES if ".csv:" in part else TOLERANCE):
            lines.append(f"{part}: {was} is {is_}")
    if "rows" in known:
        shared = len({*known["rows"]} & {*now["rows"]}) / max(len(known["rows"]), len(now["rows"]))
        lines += [f"rows: {shared:.0%} are the same"] if shared < SHARE else []
    return lines


def off(was: list[float], now: list[float]) -> float:
    """The largest difference of two arrays' numbers, in root mean squares of the array."""
    size = max(was[0], now[0])
    return max(abs(a - b) for a, b in zip(was, now, strict=True)) / size if size else 0.0


def told(apart: Mapping[str, list[str]], now: Mapping[str, Any]) -> str:
    """What to do about stages whose content moved under its key: the causes, not what is built on them."""
    steps = wanted()
    keys = {steps[name].key for name in apart}
    causes = [name for name in apart if not keys & {each.key for each in steps[name].walk()} - {steps[name].key}]
    lines = ["The content of a stage moved and its key did not: stores would go on with the old one."]
    for name in causes:
        lines += [
            f"  {name}: raise VERSIONS[{now[name]['stage']!r}] in sept/stages/__init__.py and name it in CHANGELOG.md"
        ]
        lines += [f"    {line}" for line in apart[name][:5]]
    return "\n".join([*lines, f"Then `{COMMAND}` renews tests/golden.json. If the move is not meant, mend the code."])


def fresh() -> dict[str, dict[str, Any]]:
    """Every entry, made now in a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        done = run("+table=quickstart", "finetune.seed=0", store=store)
        assert done.returncode == 0, done.stderr
        return found(store)


def main() -> int:
    """Make everything and write golden.json; refuses another content of a key that is there."""
    known, now = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}, fresh()
    if apart := moved(known, now):
        print(told(apart, now), file=sys.stderr)
        return 1
    old = outdated(known, now)
    kept = {name: now[name] if name in old else known[name] for name in now}
    GOLDEN.write_text(json.dumps(kept, indent=1, ensure_ascii=False).replace(",\n    ", ", ") + "\n")
    print(f"{len(old)} of {len(now)} renewed in {os.path.relpath(GOLDEN)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
