"""An approximate index over the features of the pool, or their int8 copy, and how the selection opens it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sept.retrieval.features import Features
from sept.retrieval.settings import EXACT
from sept.runtime.hardware import Runtime
from sept.runtime.progress import from_totals, progress
from sept.stages import VERSIONS
from sept.stages.inputs import in_order, number_inputs
from sept.store.step import Artefact, Step

if TYPE_CHECKING:
    from sept.config import Experiment
    from sept.retrieval.approximate import Index as OpenIndex


@dataclass(frozen=True)
class IndexSpec:
    """nlist and seed: for an approximate index."""

    name: str
    nlist: int | None
    seed: int | None


def step(e: "Experiment", features: Sequence[Step], runtime: Runtime) -> Step:
    index, approximate = e.index, e.index.name not in EXACT
    spec = IndexSpec(index.name, index.nlist if approximate else None, e.retriever.seed if approximate else None)
    return Step(
        "index",
        VERSIONS["index"],
        spec,
        number_inputs("features", features),
        partial(build, spec=spec, runtime=runtime, uri=index.uri),
        slug=f"{e.pool.name}-{e.retriever.name}-{index.name}",
        estimate={"images": sum(each.estimate["images"] for each in features)},
        by_part=("shard-*.int8", "shard-*.scales"),
    )


def build(
    folder: Path, inputs: Mapping[str, Artefact], *, spec: IndexSpec, runtime: Runtime, uri: str | None
) -> dict[str, Any]:
    features = join_features(inputs)
    with progress("build the index", features.rows) as advance:
        if spec.name == "int8":
            from sept.retrieval import compact

            return compact.build(folder, features, progress=from_totals(advance))
        assert spec.nlist is not None
        if spec.name == "ivf_sq8":
            from sept.retrieval.approximate import ivf

            assert spec.seed is not None
            device = runtime.accelerator
            return ivf.build(folder, features, spec.nlist, spec.seed, device, progress=from_totals(advance))
        from sept.retrieval.approximate import milvus

        return milvus.build(folder, features, spec.nlist, uri, _collection(inputs), progress=from_totals(advance))


@contextmanager
def open_index(
    artefact: Artefact, inputs: Mapping[str, Artefact], nprobe: int, uri: str | None, device: str
) -> Iterator["OpenIndex"]:
    """The index, ready to be searched."""
    features = join_features(inputs)
    if artefact.manifest["spec"]["name"] == "ivf_sq8":
        from sept.retrieval.approximate import ivf

        yield ivf.open_ivf(artefact.path, features, nprobe, device)
        return
    from sept.retrieval.approximate import milvus

    with milvus.open_milvus(artefact.path, features, nprobe, uri) as index:
        yield index


def join_features(inputs: Mapping[str, Artefact]) -> Features:
    """The features of the whole pool."""
    return Features.concatenate([Features.open(part.path) for part in in_order(inputs, "features")])


def _collection(inputs: Mapping[str, Artefact]) -> str:
    """A name in a shared database that is unique to these features."""
    return "sept_" + "_".join(part.key[:16] for part in in_order(inputs, "features"))
