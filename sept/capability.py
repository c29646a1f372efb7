"""Whether data and networks can do what an experiment asks of them, told before any work.

Of data, what is known without reading an image: of the drawn world, and of the names of a pool's sources. Of networks
without torch for the networks whose shapes are known (`sept.cost`), as long as their arguments are beyond doubt: a plan
stays quick. Any other network is built and tried, on tensors without data.
"""

import json
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

from safetensors import safe_open

from sept.backbones.files import resolve
from sept.config import (
    SIMILAR,
    SYNTHETIC_POOLS,
    SYNTHETIC_TASKS,
    Classify,
    Detect,
    Experiment,
    Model,
    Pool,
    Segment,
    require_one_of,
)
from sept.cost import KNOWN, is_plain
from sept.data import locate
from sept.data.patterns import MIXTURES, check_pool, check_target, classes, pool_items
from sept.data.sources.layouts import parts as parts_of
from sept.errors import ConfigError, DataError

PYRAMID = 5  # levels of the detector's, at most as many maps
SEGMENTED = 2  # maps that a segmenter needs at least
SHIPPED = "sept:"  # in front of the names of weights that come with the package
EXTRAS = {  # package and extra that a choice needs
    ("engine", "ray"): ("ray", "ray"),
    ("index", "milvus"): ("pymilvus", "milvus"),
    ("finetune", "detect"): ("faster_coco_eval", "detect"),
    ("finetune", "segment"): ("segmentation_models_pytorch", "segment"),
}


def require(e: Experiment, selection_only: bool = False) -> None:
    """ConfigError for a drawn world that cannot be, a source that the pool does not have, and a network that cannot be
    built, cannot take the sides, or is of another kind than it must be.

    selection_only: what `search.py` makes, which trains no backbone.
    """
    _require_task(e)
    if e.init.name in ("random", *SIMILAR) or e.query.path is not None:
        _require_pool(e)
    if e.init.name in SIMILAR or e.query.path is not None:
        _require_retriever(e)
    if selection_only:
        return
    model, sides = e.pretrain.model, []
    if e.init.name in ("random", *SIMILAR):
        sides = [e.pretrain.side]
        _try("pretrain", "moby", model, sides, drop_path_rate=e.pretrain.drop_path_rate)
    drop, batch = e.finetune.drop_path_rate, e.finetune.batch_size
    match e.finetune:
        case Classify():
            _try("pretrain", "classify", model, [e.finetune.side, *sides], drop_path_rate=drop, batch=batch)
        case Detect():
            _try("pretrain", "trunk", model, sides, least=1, most=PYRAMID)
        case Segment():
            _try("pretrain", "trunk", model, sides, least=SEGMENTED, most=PYRAMID)


def require_packages(e: Experiment, selection_only: bool = False) -> None:
    """ConfigError for an extra that a run needs and this machine does not have; a plan does not ask."""
    chosen = {"engine": e.engine.name, "index": e.index.name} if e.init.name in SIMILAR or e.query.path else {}
    if not selection_only:
        chosen["finetune"] = type(e.finetune).__name__.lower()
    for key, name in chosen.items():
        package, extra = EXTRAS.get((key, name), ("", ""))
        if package and find_spec(package) is None:
            raise ConfigError(f"{key}={name} needs {package}, which is not installed: pip install 'sept[{extra}]'")


def _require_task(e: Experiment) -> None:
    t = e.task
    if t.kind not in SYNTHETIC_TASKS:
        return
    assert t.domain is not None
    assert t.train_per_class is not None
    check_target(t.domain)
    scenes = classes(t.domain) * t.train_per_class
    if t.images is not None and t.images > scenes and not isinstance(e.finetune, Classify):
        raise ConfigError(
            f"task.images={t.images} but task.train_per_class={t.train_per_class} draws only {scenes} scenes"
        )


def _require_pool(e: Experiment) -> None:
    p, init = e.pool, e.init
    if p.kind in SYNTHETIC_POOLS:
        assert p.images is not None
        assert p.side is not None
        check_pool(p.kind, p.images, p.side)
    trains = e.retriever.weights is None and (init.name in SIMILAR or e.query.path is not None)
    for key, name in (("init.source", init.source), ("pool.curated", p.curated if trains else None)):
        if name is not None:
            _require_source(key, name, p)
    if init.source is not None and p.kind in SYNTHETIC_POOLS:
        _require_share(e)


def _require_source(key: str, name: str, pool: Pool) -> None:
    """Names of archives are looked at only where no other is meant; what is missing is told by who lists it."""
    if pool.kind in SYNTHETIC_POOLS:
        require_one_of(key, name, ["curated", "wild"] if MIXTURES[pool.kind].curated else ["wild"])
        return
    parts = pool.kept() if pool.kind == "union" else {pool.kind: pool}
    known = [*parts] if pool.kind == "union" else []
    if name in known:
        return
    with suppress(DataError):
        for part in parts.values():
            assert part.path is not None
            archives = part.kind in locate.ARCHIVES
            known += map(locate.source_of, parts_of(part.kind, part.path)) if archives else [part.kind]
        require_one_of(key, name, [*dict.fromkeys(known)])


def _require_share(e: Experiment) -> None:
    """The drawn pool holds as many images of the source, and of the others, as are asked for."""
    assert e.pool.images is not None
    assert e.init.source is not None
    assert e.init.share is not None
    held = {name: len(items) for name, items in pool_items(MIXTURES[e.pool.kind], e.pool.images, e.pool.seed).items()}
    inside = round(e.init.share * e.budget.images)
    there = held[e.init.source]
    for wanted, count, what in (
        (inside, there, e.init.source),
        (e.budget.images - inside, sum(held.values()) - there, "others"),
    ):
        if wanted > count:
            raise ConfigError(
                f"init.share={e.init.share} of budget.images={e.budget.images:,} takes {wanted:,} images of {what}, "
                f"and the pool holds only {count:,}"
            )


def _require_retriever(e: Experiment) -> None:
    r = e.retriever
    sides = [r.preprocess.crop]
    if r.weights is None:
        crops = [r.train.side, *([r.train.local_side] if r.train.local_crops else [])]
        _try("retriever", "ibot", r.model, crops, drop_path_rate=r.train.drop_path_rate)
        sides.append(r.train.side)
    _try("retriever", "embed", r.model, sides)
    if r.weights is not None and r.weights.startswith(SHIPPED) and is_plain(r.model):
        _require_shipped(r.weights, KNOWN[r.model.name] | r.model.args)


def _require_shipped(weights: str, shape: dict[str, Any]) -> None:
    """The retriever of the package has these sizes; other files are compared key by key when they are read."""
    dim, patch = shape["embed_dim"], shape["patch_size"]
    wanted = {
        "patch_embed.proj.weight": [dim, 3, patch, patch],
        "pos_embed": [1, (shape["img_size"] // patch) ** 2 + 1, dim],
        f"blocks.{shape['depth'] - 1}.norm1.weight": [dim],
    }
    with safe_open(resolve(weights, "retriever.weights"), "np") as file:
        names = {*file.keys()}
        held = {name: file.get_slice(name).get_shape() for name in wanted if name in names}
    if held != wanted or f"blocks.{shape['depth']}.norm1.weight" in names:
        raise ConfigError(
            f"retriever.weights={weights} does not fit retriever.model.args; retriever.weights=null trains one"
        )


def _try(group: str, role: str, model: Model, sides: list[int], **how: Any) -> None:
    if _is_sure(role, model, sides, how.get("least", 1)):
        return
    _tried(group, role, model.name, json.dumps(model.args, sort_keys=True, default=str), tuple(sides), **how)


@cache  # a sweep asks for it with every cell
def _tried(group: str, role: str, name: str, args: str, sides: tuple[int, ...], **how: Any) -> None:
    from sept.backbones import trial

    trial.attempt(group, role, Model(name, json.loads(args)), sides, **how)


def _is_sure(role: str, model: Model, sides: list[int], stages: int) -> bool:
    """Whether nothing has to be tried: a ViT or Swin of known shape, in whole patches, heads and windows."""
    if not is_plain(model) or "dynamic_img_size" in model.args:
        return False
    shape = KNOWN[model.name] | model.args
    sides = [shape["img_size"], *sides]
    if "depths" not in shape:
        whole = all(side % shape["patch_size"] == 0 for side in sides)
        return role != "trunk" and whole and shape["embed_dim"] % shape["num_heads"] == 0
    depths, heads, dim = shape["depths"], shape["num_heads"], shape["embed_dim"]
    if role in ("embed", "ibot") or len(heads) != len(depths) or len(depths) < stages:
        return False
    cells = shape["patch_size"] * 2 ** (len(depths) - 1)  # pixels of a cell of the last map
    in_windows = all(side % cells == 0 and side // cells >= shape["window_size"] for side in sides)
    return in_windows and all(dim * 2**i % each == 0 for i, each in enumerate(heads))
