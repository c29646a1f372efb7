"""Settings of the search: exact, or by an approximate index."""

from dataclasses import dataclass

from sept import ranges
from sept.errors import ConfigError
from sept.ranges import require_unset

EXACT = ("exact", "int8")  # ways to search that give the same lists


@dataclass
class Index:
    """How the pool's features are searched. exact: a streamed scan of every vector; int8: of an int8 copy, with the
    same result; ivf_sq8 and milvus: approximate."""

    name: str = ranges.choice("exact", (*EXACT, "ivf_sq8", "milvus"))
    nlist: int | None = ranges.whole(None, least=1)  # approximate: cells of the paper's index, fewer for a small pool
    nprobe: int | None = ranges.whole(None, least=1)  # approximate: cells searched per query, out of nlist
    uri: str | None = ranges.text(None)  # milvus: of a cluster; null: Milvus Lite, in a file
    sample: int | None = ranges.whole(
        None
    )  # approximate: queries whose lists are compared with the exact scan's; 0: none

    def check(self) -> None:
        if self.name in EXACT:
            return
        if self.nlist is None or self.nprobe is None or self.sample is None:
            raise ConfigError(f"index={self.name} needs index.nlist, index.nprobe and index.sample")
        if self.nprobe > self.nlist:
            raise ConfigError(f"index.nprobe={self.nprobe} must lie between 1 and index.nlist={self.nlist}")

    def check_unused(self) -> None:
        if self.name in EXACT:
            require_unset(
                self, "index", ("nlist", "nprobe", "uri", "sample"), f"index={self.name} compares every image"
            )
        elif self.name != "milvus":
            require_unset(self, "index", ("uri",), f"index={self.name} is a file in the store")
