"""How an official data set lies on disk once its archives are unpacked: where to look, and what to tell people."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sept.errors import DataError

INDENT = "  "
MISSING = "  <- missing"
SAMPLE_IMAGE = ".jpg"
"""Images of a layout stand for many others; they alone are not looked for."""


@dataclass(frozen=True)
class Layout:
    """`folder` is what the official archive unpacks to ("" where it has none); `files` are samples below it."""

    folder: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"expected: {', '.join(self.files)}" + (f" in {self.folder}/" if self.folder else "")

    def find(self, root: Path) -> Path:
        """The folder of the data, when `root` is that folder or holds it: ids are the same either way."""
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; {self}")
        below = root / self.folder
        return below if below.is_dir() else root

    def tree(self, root: Path) -> str:
        """The samples below `root` as an indented tree, a name a line; says which files and folders are missing."""
        inside = root if not self.folder or root.name == self.folder else root / self.folder
        lines = {".": f"{inside}/"}
        for file in self.files:
            for path in (*reversed(PurePosixPath(file).parents[:-1]), PurePosixPath(file)):
                name = f"{path.name}/" if str(path) != file else path.name
                missing = path.suffix != SAMPLE_IMAGE and not (inside / path).exists()
                lines[str(path)] = INDENT * len(path.parts) + name + (MISSING if missing else "")
        return "\n".join(lines.values())
