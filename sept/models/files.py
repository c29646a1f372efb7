"""Where a `weights` setting points; without torch, for plans."""

from pathlib import Path

from sept.errors import ConfigError

SHIPPED = Path(__file__).resolve().parent.parent / "assets"


def resolve(weights: str) -> Path:
    """The file behind a `weights` setting: a path, or "sept:NAME", one shipped with the package."""
    path = SHIPPED / f"{weights.removeprefix('sept:')}.safetensors" if weights.startswith("sept:") else Path(weights)
    if not path.is_file():
        raise ConfigError(f"weights={weights}: there is no file {path}")
    return path
