"""User-supplied paths: in settings, in the environment, and as text for Hydra."""

import os
import re
from pathlib import Path

from sept.errors import ConfigError

PLACES = ("SEPT_STORE", "SEPT_DATA", "SEPT_WEIGHTS")
"""Environment variables that paths in conf/ begin with."""
SUFFIX = re.compile(r"(?i)(?:\.tar)?\.(?:tar|tgz|gz|bz2|xz|zip|parquet|csv|txt|npy)$")
PATTERN = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]|[*?]")


def settled(key: str, path: str) -> str:
    """`path`, with a leading `~` expanded to the home folder.

    Raises ConfigError if it is blank, as an unset variable leaves it: it would be the current folder.
    """
    if not path.strip():
        raise ConfigError(f"{key}={path}: the path is empty; name a file or folder, . for this one")
    return os.path.expanduser(path)


def path(text: str) -> Path:
    """The same for a command-line argument. Raises ValueError, which argparse reports."""
    if not text.strip():
        raise ValueError("the path is empty")
    return Path(os.path.expanduser(text))


def check_environment() -> None:
    """Raises ConfigError for a variable that is set but blank: paths that begin with it would begin at the root."""
    for name in PLACES:
        if name in os.environ:
            settled(name, os.environ[name])


def called(path: str, pattern: bool = False) -> str:
    """What is at `path` is called: its last part, without the suffix of an archive or a table; `flowers` of
    `data/flowers/` and of `flowers.zip`. Of a URL without its query. What cannot be printed becomes `_`.

    pattern: braces and globs stand for what differs between shards and are left out, `web` of `web-{000..009}.tar`; of
    a last part of nothing else, as in `web/*.tar`, the one before counts. Empty if nothing is left.
    """
    place = re.sub(r"[?#].*", "", path) if "://" in path else os.path.abspath(path)
    for part in reversed(place.split("/")):
        part = SUFFIX.sub("", part)
        name = PATTERN.sub("", part).strip("-_. ") if pattern else part
        if name:
            return "".join(letter if letter.isprintable() else "_" for letter in name)
    return ""


def quoted(text: str) -> str:
    """`text` in quotes, so that Hydra's grammar and OmegaConf's interpolation return it unchanged."""
    plain = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", text)  # else an interpolation
    # a backslash is special only before a quote, so those before one or before the closing one are doubled
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), plain) + "'"
