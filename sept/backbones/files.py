"""Where a `weights` setting points, and whether that can hold weights at all; without torch, for plans."""

import re
import stat
from collections.abc import Callable
from pathlib import Path

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
