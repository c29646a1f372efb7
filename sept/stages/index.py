"""An approximate index over the features of the pool, or their int8 copy, and how the selection opens it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sept.retrieval import compact
from sept.retrieval.approximate import Index
from sept.retrieval.features import Features
from sept.runtime.hardware import Runtime
from sept.runtime.progress import done, progress
from sept.store import Artefact


def build(
    folder: Path, inputs: Mapping[str, Artefact], spec: Mapping[str, Any], *, runtime: Runtime, uri: str | None
) -> dict[str, Any]:
    features = joined(inputs)
    with progress("build the index", features.rows) as advance:
        if spec["name"] == "int8":
            return compact.build(folder, features, progress=done(advance))
        if spec["name"] == "ivf_sq8":
            from sept.retrieval.approximate import ivf

            device = runtime.accelerator
            return ivf.build(folder, features, spec["nlist"], spec["seed"], device, progress=done(advance))
        from sept.retrieval.approximate import milvus

        return milvus.build(folder, features, spec["nlist"], uri, _collection(inputs), progress=done(advance))


@contextmanager
def opened(artefact: Artefact, inputs: Mapping[str, Artefact], how: Mapping[str, Any]) -> Iterator[Index]:
    """The index, ready to be searched. how: nprobe, uri and device."""
    features = joined(inputs)
    if artefact.manifest["spec"]["name"] == "ivf_sq8":
        from sept.retrieval.approximate import ivf

        yield ivf.open_ivf(artefact.path, features, how["nprobe"], how["device"])
        return
    from sept.retrieval.approximate import milvus

    with milvus.open_milvus(artefact.path, features, how["nprobe"], how["uri"]) as index:
        yield index


def numbered(inputs: Mapping[str, Artefact], name: str) -> list[Artefact]:
    """The inputs `name`0, `name`1, .. in this order: one for each source of the pool."""
    return [inputs[f"{name}{i}"] for i in range(sum(each.startswith(name) for each in inputs))]


def joined(inputs: Mapping[str, Artefact]) -> Features:
    """The features of the whole pool."""
    return Features.joined([Features.open(part.path) for part in numbered(inputs, "features")])


def _collection(inputs: Mapping[str, Artefact]) -> str:
    """A name in a shared database that no other pool's features have."""
    return "sept_" + "_".join(part.key[:16] for part in numbered(inputs, "features"))
