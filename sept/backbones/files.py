"""Files of weights: where a `weights` setting points, what goes with the weights that we save. No torch, for plans."""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sept.backbones import IMAGENET, Statistics
from sept.errors import ConfigError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
SHIPPED = "sept:"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")  # of files to be named for a folder
ALIKE = ("model", "pytorch_model")  # names of every file of weights that tools write
NAMED = 5  # files of a folder in a message
HEAD_BYTES = 512
LENGTH_BYTES = 8  # of a safetensors file: the length of its header, little-endian
LONGEST_HEADER = 100_000_000  # bytes: safetensors' own limit


def resolve(weights: str, option: str) -> Path:
    """The file behind the setting `option`: a path, or "sept:NAME", one shipped with the package.

    Raises ConfigError naming option and file where there is none, or where its first bytes tell that it holds none.
    """
    if not weights:
        raise ConfigError(f"{option} is empty: give a file of weights")
    path = _shipped(weights, option) if weights.startswith(SHIPPED) else Path(weights)
    try:
        head_of(path)
    except ConfigError as error:
        raise ConfigError(f"{option}={weights}: {error}") from None
    return path


def origin(weights: str) -> str:
    """The name of what a `weights` setting points to: `hub`, or the file's without folder and suffix; where all are
    called alike, the folder's."""
    path = Path(weights.removeprefix(SHIPPED))
    if path.stem in ALIKE:
        path = path.parent.parent if path.parent.name == "backbone" else path.parent
        return path.name or "model"
    return path.stem


def head_of(path: Path) -> bytes:
    """The first HEAD_BYTES of a file that may hold weights. ConfigError naming the file, and what it is instead."""
    try:
        mode, head = path.stat().st_mode, b""
        if stat.S_ISREG(mode):  # a pipe would be waited for
            with path.open("rb") as file:
                head = file.read(HEAD_BYTES)
    except PermissionError:
        raise ConfigError(f"{path} is not readable (permission): ask its owner, or copy it") from None
    except (FileNotFoundError, NotADirectoryError):
        link = f"; it is a link to {path.readlink()}" if path.is_symlink() else ""
        raise ConfigError(f"there is no file {path}{link}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path!s} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(mode):
        raise ConfigError(_folder(path) if stat.S_ISDIR(mode) else f"{path} is not a file")
    wrong = next((what for what, told in INSTEAD.items() if told(head)), None)
    if wrong is not None:
        raise ConfigError(f"{path} {wrong}")
    return head


def is_safetensors(head: bytes) -> bool:
    """By the content, whatever the file is called: the length of a header, and the header, which is JSON."""
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    return 2 <= length <= LONGEST_HEADER and head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"


def is_torch(head: bytes) -> bool:
    """A zip archive, or a pickle as torch wrote before 1.6."""
    return head.startswith((b"PK\x03\x04", b"\x80"))


def _is_json(head: bytes) -> bool:
    return head.lstrip()[:1] in (b"{", b"[") and not is_safetensors(head)


def _begins(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(starts)


INSTEAD: dict[str, Callable[[bytes], bool]] = {
    "is empty": lambda head: not head,
    "is a pointer of git-lfs, not the weights: run `git lfs pull` where it is from": _begins(
        b"version https://git-lfs"
    ),
    "is a web page, not the weights: the download was refused or needs a login": _begins(b"<"),
    "is an index or a configuration in JSON: weights in several parts are not read, save them as one file": _is_json,
    "is compressed: unpack it": lambda head: head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")),
    "is a file of HDF5 (Keras): save the weights with torch or safetensors": lambda head: head.startswith(b"\x89HDF"),
    "is a file of NumPy: save the weights with torch or safetensors": lambda head: head.startswith(b"\x93NUMPY"),
    "is a file of GGUF: save the weights with torch or safetensors": lambda head: head.startswith(b"GGUF"),
    "holds nothing but zeros: a broken copy": lambda head: not any(head),
}
"""What stands in the place of weights, each known by its first bytes."""


def part_of_several(path: Path) -> str:
    """What to say of a file whose name says that it is a part; else nothing."""
    part = re.search(r"-(\d{5})-of-(\d{5})", path.name)
    return f"; the file is part {int(part[1])} of {int(part[2])}: save them as one" if part else ""


def _shipped(weights: str, option: str) -> Path:
    name, known = weights.removeprefix(SHIPPED), sorted(path.stem for path in ASSETS.glob("*.safetensors"))
    if name not in known:
        raise ConfigError(
            f"{option}={weights}: shipped with the package are {', '.join(SHIPPED + one for one in known)}"
        )
    return ASSETS / f"{name}.safetensors"


def _folder(path: Path) -> str:
    try:
        held = sorted(each.name for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
    except OSError:
        held = []
    more = f", such as {', '.join(held[:NAMED])}" if held else ""
    return f"{path} is a folder: give the file in it{more}"


BACKBONE = "backbone"  # folder of every artefact that holds weights
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FORMAT = {"format": "pt"}  # of a header: what loaders of safetensors ask for
TASK = "image-feature-extraction"
TAGS = (TASK, "timm", "sept")
IMPLIED = ("num_classes", "pretrained")  # arguments that the lines of the card give themselves


def header_of(facts: dict[str, Any]) -> dict[str, str]:
    """The header of a weights file: text as it is, unless it would be read as a value of another kind, else JSON."""
    assert not facts.keys() & FORMAT.keys()
    plain = {key: value for key, value in facts.items() if isinstance(value, str) and _decoded(value) == value}
    return {key: plain.get(key, json.dumps(value)) for key, value in facts.items()} | FORMAT


def facts_of(path: Path) -> dict[str, Any]:
    """The facts in the header of a weights file that `save_backbone` wrote. ConfigError where they cannot be read."""
    head_of(path)
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} is not a readable safetensors file: {error}") from None
    return {key: _decoded(text) for key, text in header.items() if key not in FORMAT}


def card(name: str, args: dict[str, Any], facts: dict[str, Any], statistics: Statistics) -> str:
    """Markdown with the header that the Hugging Face Hub reads: how to load, what from, and the figures.

    name and args rebuild the model in timm. The header names no licence: who publishes the weights chooses it.
    """
    words = {key: value for key, value in facts.items() if isinstance(value, str)}
    figures = {key: value for key, value in facts.items() if isinstance(value, int | float)}
    settings = {key: value for key, value in facts.items() if key not in words | figures}
    lines = ["---", "library_name: timm", f"pipeline_tag: {TASK}", "tags:", *(f"- {tag}" for tag in TAGS), "---", ""]
    lines += [f"# {name}, trained by sept", ""]
    lines += [f"A backbone without a head, for images normalised by {_statistics(statistics)}.", ""]
    lines += _loading(name, args)
    lines += _section("Trained from", [f"- {key}: {value}" for key, value in words.items()])
    lines += _section("Figures", [f"- {key}: {_number(value)}" for key, value in figures.items()])
    lines += _section("Settings", ["```json", json.dumps(settings, indent=2), "```"] if settings else [])
    return "\n".join(lines)


def _statistics(statistics: Statistics) -> str:
    if statistics == IMAGENET:
        return "the mean and standard deviation of ImageNet"
    return f"the mean {statistics[0]} and the standard deviation {statistics[1]}"


def _loading(name: str, args: dict[str, Any]) -> list[str]:
    given = "".join(f", {key}={value!r}" for key, value in args.items() if key not in IMPLIED)
    return [
        "`FOLDER` is where this file lies; `hf-hub:OWNER/NAME` in place of `local-dir:FOLDER` takes it from the Hub.",
        "",
        "```python",
        "import timm",
        "",
        'model = timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=10)  # with a fresh head',
        f'model = timm.create_model("{name}", checkpoint_path="FOLDER/{WEIGHTS}", num_classes=0{given})',
        "```",
        "",
    ]


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _number(value: float) -> str:
    """Counts in full, measures to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
