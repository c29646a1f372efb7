"""The retrieval encoder: read from a file, or trained on the curated part of the pool."""

from sept.retrievers.settings import Retriever
from sept.runtime.hardware import Loggers, Runtime
from sept.stages import pretrain, weights
from sept.stages.presence import Presence
from sept.store.step import Step


def read(r: Retriever, presence: Presence) -> Step:
    assert r.weights is not None
    return weights.step(
        *("retriever", "retriever.weights", r.weights, r.backbone, r.name, presence, r.branch), library=r.library
    )


def trained(r: Retriever, subset: Step, runtime: Runtime, loggers: Loggers, presence: Presence) -> Step:
    return pretrain.step(
        "retriever",
        r.train,
        r.backbone,
        subset,
        epochs=r.epochs,
        seed=r.seed,
        slug=r.name,
        runtime=runtime,
        loggers=loggers,
        start=weights.start("retriever.train.from", r.train.start, r.backbone, presence),
    )
