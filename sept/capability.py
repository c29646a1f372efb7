"""Checks, before any work, that data and networks can do what an experiment asks of them.

Data: what is known without reading an image, of the embedded world and of the names of a pool's sources. Networks whose
shapes are known (`sept.backbones.flops`) are checked without torch if their arguments are unproblematic, so that a plan
stays quick. Any other network is built and tested on meta tensors.
"""

import json
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import Any

from safetensors import safe_open

from sept.backbones import Backbone
from sept.backbones.files import resolve
from sept.backbones.flops import FREE, is_plain, shape_of
from sept.backbones.hub import HUB
from sept.config import Experiment
from sept.data import locate
from sept.data.patterns.domains import classes
from sept.data.patterns.drawing import MIXTURES, check_pool, check_target, pool_items
from sept.data.settings import SYNTHETIC_POOLS, SYNTHETIC_TASKS, Pool
from sept.data.sources.layouts import parts as parts_of
from sept.errors import ConfigError, DataError
from sept.methods.recipe import POOL_FEATURES, Recipe
from sept.ranges import require_one_of
from sept.retrievers import FEATURES, LIBRARIES, settings
from sept.retrievers.settings import Retriever
from sept.selectors import RandomSubset
from sept.transfer.recipes import Classify, Detect, Finetune, Probe, Segment, SegmentLinear

PYRAMID = 5  # levels of the detector's pyramid: maps that it takes at most
MAPS = {Detect: (1, "deep"), Segment: (2, "spread"), SegmentLinear: (1, "last")}  # minimum number of maps, and which
OF_VITS = {"pooled", "tokens", "cls", "positions", "plain_vit", "normed_tokens"}  # what every ViT of known shape offers
LAST_CELL = 32  # pixels of the coarsest cell of a convolutional network of known shape
SHIPPED = "sept:"  # in front of the names of weights that come with the package
EXTRAS = {  # package and extra that a choice needs
    ("engine", "ray"): ("ray", "ray"),
    ("index", "milvus"): ("pymilvus", "milvus"),
    ("finetune", "detect"): ("faster_coco_eval", "detect"),
    ("finetune", "segment"): ("segmentation_models_pytorch", "segment"),
}


def require(e: Experiment, selection_only: bool = False) -> None:
    """ConfigError for an impossible embedded world, a source that the pool does not have, and a network that cannot be
    built, cannot take the image settings, or does not offer what is asked of it.

    selection_only: for `search.py`, which trains no backbone.
    """
    _require_task(e)
    if e.selects or e.query.looks_up:
        _require_pool(e)
    if e.selects and e.pretrain.reads not in (None, POOL_FEATURES) and not selection_only:
        _require_annotations("pretrain", e.pretrain, e.pool)
    if (e.embeds or e.query.looks_up) and not e.of_vectors:
        _require_retriever(e)
        _require_published("retriever.weights", e.retriever.weights, "retriever.backbone", e.retriever)
    if selection_only:
        return
    sides = e.pretrain.sides() if e.pretrains else []
    if e.pretrains:
        drop = e.pretrain.drop_path_rate
        _try("backbone", "pretrain", e.backbone, sides, e.pretrain.needs, drop_path_rate=drop, **_shares(e))
        e.pretrain.check_network("pretrain", e.backbone)
    sides = sides[:1]  # that of its weights
    match e.finetune:
        case Classify():
            drop, batch = e.finetune.drop_path_rate, e.finetune.batch_size
            _try("backbone", "classify", e.backbone, [e.finetune.side, *sides], drop_path_rate=drop, batch=batch)
        case Probe():
            feature = FEATURES["pooled"]
            how: dict[str, Any] = {"function": feature.function, "times": feature.times}
            _try("backbone", "embed", e.backbone, [e.finetune.side, *sides], feature.needs, **how)
        case Detect() | Segment() | SegmentLinear():
            least, maps = MAPS[type(e.finetune)]
            frozen = isinstance(e.finetune, SegmentLinear) and e.finetune.frozen
            drop = 0.0 if frozen else e.finetune.drop_path_rate
            _try("backbone", "trunk", e.backbone, sides, least=least, most=PYRAMID, maps=maps, drop_path_rate=drop)
    option = ("pretrain.from", e.pretrain.start) if e.pretrains else ("init.weights", e.init.weights)
    _require_published(*option, "backbone", e)


def require_packages(e: Experiment, selection_only: bool = False) -> None:
    """ConfigError for an extra that a run needs and that is not installed; not checked by a plan."""
    chosen = {"engine": e.engine.name} if e.embeds or e.query.looks_up else {}
    chosen |= {"index": e.index.name} if e.searches or e.query.looks_up else {}
    if not selection_only:
        chosen["finetune"] = type(e.finetune).__name__.lower()
    for key, name in chosen.items():
        package, extra = EXTRAS.get((key, name), ("", ""))
        _require_package(f"{key}={name}", package, extra)
    trained = [("pretrain", e.pretrain)] if e.pretrains and not selection_only else []
    trained += [("retriever.train", e.retriever.train)] if e.embeds and e.retriever.weights is None else []
    for key, recipe in trained:
        if recipe.package is not None:
            _require_package(f"{key}={recipe.name}", *recipe.package)


def _require_package(what: str, package: str, extra: str) -> None:
    if package and find_spec(package) is None:
        raise ConfigError(f"{what} needs {package}, which is not installed: pip install 'sept[{extra}]'")


def _require_task(e: Experiment) -> None:
    t = e.task
    if t.kind not in SYNTHETIC_TASKS:
        return
    assert t.domain is not None
    assert t.train_per_class is not None
    check_target(t.domain)
    scenes = classes(t.domain) * t.train_per_class
    if t.images is not None and t.images > scenes and e.finetune.fits != "classify":
        raise ConfigError(
            f"task.images={t.images} but task.train_per_class={t.train_per_class} draws only {scenes} scenes"
        )


def _require_pool(e: Experiment) -> None:
    p = e.pool
    selector = e.selector if e.pretrains and isinstance(e.selector, RandomSubset) else RandomSubset()
    if p.kind in SYNTHETIC_POOLS:
        assert p.images is not None
        assert p.side is not None
        check_pool(p.kind, p.images, p.side)
    trains = e.retriever.weights is None and (e.embeds or e.query.looks_up)
    for key, name in (("selector.source", selector.source), ("pool.curated", p.curated if trains else None)):
        if name is not None:
            _require_source(key, name, p)
    if selector.source is not None and p.kind in SYNTHETIC_POOLS and not e.include_task:  # how many are left to it?
        _require_share(e, selector)


def _require_source(key: str, name: str, pool: Pool) -> None:
    """Archive names are checked only if nothing else can be meant; missing files are reported when they are listed."""
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


def _require_share(e: Experiment, selector: RandomSubset) -> None:
    """The embedded world's pool must hold enough images of the source, and of the others."""
    assert e.pool.images is not None
    assert selector.source is not None
    assert selector.share is not None
    assert e.budget.images is not None
    held = {name: len(items) for name, items in pool_items(MIXTURES[e.pool.kind], e.pool.images, e.pool.seed).items()}
    inside = round(selector.share * e.budget.images)
    there = held[selector.source]
    for wanted, count, what in (
        (inside, there, selector.source),
        (e.budget.images - inside, sum(held.values()) - there, "others"),
    ):
        if wanted > count:
            raise ConfigError(
                f"selector.share={selector.share} of budget.images={e.budget.images:,} takes {wanted:,} images of "
                f"{what}, and the pool holds only {count:,}"
            )


def _require_annotations(group: str, recipe: Recipe, pool: Pool) -> None:
    """ConfigError for a pool that is known to lack the labels or captions that the recipe reads; what is missing on
    this machine is reported when it is listed."""
    from sept.stages.annotations import annotation_of, lacks

    assert recipe.reads is not None
    wanted = annotation_of(pool, recipe.reads)
    with suppress(DataError):
        if why := lacks(pool, wanted):
            made = ", or to from_labels, which makes them of labels" if wanted.of == "captions" else ""
            raise ConfigError(
                f"{group}={recipe.name or recipe.method} learns from {recipe.reads}, and pool={pool.name} has no "
                f"{wanted.of}: {why}; set pool.{wanted.of} to where they are{made}, or use a method of images alone"
            )


def _require_retriever(e: Experiment) -> None:
    r = e.retriever
    crop = r.resolved_preprocess().crop
    key = "retriever.backbone"
    if r.library != "timm":
        LIBRARIES[r.library].load().attempt(r.backbone, crop, e.query.text is not None)
        return
    sides = [crop]
    if r.weights is None:
        if r.train.reads == POOL_FEATURES:
            raise ConfigError(f"retriever.train={r.train.name} learns from a retriever: choose another for pretrain")
        if r.train.reads is not None:
            _require_annotations("retriever.train", r.train, e.pool)
        how = {"drop_path_rate": r.train.drop_path_rate, **_shares(e)}
        _try(key, "pretrain", r.backbone, r.train.sides(), r.train.needs, **how)
        r.train.check_network("retriever.train", r.backbone)
        sides.append(r.train.side)
    feature = FEATURES[r.feature]
    if r.weights is None or not settings.is_known(r.backbone, crop, r.feature):
        how = {"function": feature.function, "times": feature.times}
        _try(key, "embed", r.backbone, sides, feature.needs, **how)
    if r.weights is None:
        _require_published("retriever.train.from", r.train.start, key, r)
    elif r.weights.startswith(SHIPPED) and is_plain(r.backbone):
        _require_shipped(r.weights, shape_of(r.backbone))


def _shares(e: Experiment) -> dict[str, Any]:
    """How a self-supervised batch is split for encoding, as far as the user specifies it."""
    chunk = e.hardware.chunk
    return {"devices": e.hardware.devices, "chunk": chunk if isinstance(chunk, int) else None}


def _require_published(option: str, weights: str | None, key: str, holder: Experiment | Retriever) -> None:
    """Where the published weights are asked for, the network has their settings. key: the setting that names it."""
    if weights == HUB and holder.backbone.args:
        from sept.backbones import trial

        library = holder.library if isinstance(holder, Retriever) else "timm"
        trial.require_published(option, key, holder.backbone, LIBRARIES[library].load().build)


def _require_shipped(weights: str, shape: dict[str, Any]) -> None:
    """The included retriever has these sizes; other files are compared key by key when they are read."""
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
            f"retriever.weights={weights} does not fit retriever.backbone.args; retriever.weights=null trains one"
        )


def _try(key: str, role: str, backbone: Backbone, sides: list[int], needs: tuple[str, ...] = (), **how: Any) -> None:
    """key: the setting that names the network."""
    if not _is_sure(role, backbone, sides, needs, **how):
        args = json.dumps(backbone.args, sort_keys=True, default=str)
        _tried(key, role, backbone.name, args, tuple(sides), needs, **how)


@cache  # called for every cell of a sweep
def _tried(
    key: str, role: str, name: str, args: str, sides: tuple[int, ...], needs: tuple[str, ...], **how: Any
) -> None:
    from sept.backbones import trial

    trial.attempt(key, role, Backbone(name, json.loads(args)), sides, needs, **how)


def _is_sure(role: str, backbone: Backbone, sides: list[int], needs: tuple[str, ...], **how: Any) -> bool:
    """Whether no test is needed: networks of known shape, in whole patches, heads and windows."""
    if not is_plain(backbone) or backbone.args.keys() & FREE.keys():
        return False
    if backbone.name != backbone.architecture:  # timm knows which tags of weights there are
        return False
    shape = shape_of(backbone)
    if "output_stride" in shape:
        whole = how.get("devices", 1) == 1 and how.get("chunk") is None and how.get("batch", 2) > 1
        return whole and not {*needs} - {"pooled"} and all(side >= LAST_CELL for side in sides)
    sides = [shape["img_size"], *sides]
    if "depths" not in shape:
        whole = all(side % shape["patch_size"] == 0 for side in sides)
        return whole and shape["embed_dim"] % shape["num_heads"] == 0 and {*needs} <= OF_VITS
    depths, heads, dim = shape["depths"], shape["num_heads"], shape["embed_dim"]
    if {*needs} - {"pooled", "plain_swin"} or len(heads) != len(depths) or len(depths) < how.get("least", 1):
        return False
    cells = shape["patch_size"] * 2 ** (len(depths) - 1)  # pixels of a cell of the last map
    # A network that is pre-trained on views of several sizes pads the smaller ones to whole windows.
    windowed = sides[:2] if role == "pretrain" else sides
    fits = all(side % cells == 0 for side in sides) and all(side // cells >= shape["window_size"] for side in windowed)
    return fits and all(dim * 2**i % each == 0 for i, each in enumerate(heads))


def remedy(stage: str, e: Experiment) -> str:
    """The settings that reduce a stage's GPU memory, with their current values."""
    chunk = f"fewer images at a time with hardware.chunk (now {e.hardware.chunk}; same result)"
    search = f"a smaller hardware.search_mib (now {e.hardware.search_mib}; same result)"
    match stage:
        case "pretrain":
            batch = f"pretrain.batch_size (now {e.pretrain.batch_size}; changes the result)"
            return f"{chunk}, more hardware.devices (now {e.hardware.devices}), or a smaller {batch}"
        case "retriever":
            batch = f"retriever.train.batch_size (now {e.retriever.train.batch_size}; changes the result)"
            return f"{chunk}, more hardware.devices (now {e.hardware.devices}), or a smaller {batch}"
        case "features" | "queries":
            return f"a smaller retriever.batch_size (now {e.retriever.batch_size}; same result)"
        case "finetune" | "detect" | "segment" if isinstance(e.finetune, Finetune):
            return f"a smaller finetune.batch_size (now {e.finetune.batch_size}; changes the result)"
    return search
