"""Whether the networks of an experiment can do what is asked of them, told before any work.

Without torch for the networks whose shapes are known (`sept.cost`), as long as their arguments are beyond doubt: a plan
stays quick. Any other network is built and tried, on tensors without data.
"""

import json
from functools import cache
from typing import Any

from sept.config import SIMILAR, Classify, Detect, Experiment, Model, Segment
from sept.cost import KNOWN, is_plain

PYRAMID = 5  # levels of the detector's, at most as many maps
SEGMENTED = 2  # maps that a segmenter needs at least


def require(e: Experiment, selection_only: bool = False) -> None:
    """ConfigError for a network that cannot be built, cannot take the sides, or is of another kind than it must be.

    selection_only: what `search.py` makes, which trains no backbone.
    """
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


def _require_retriever(e: Experiment) -> None:
    r = e.retriever
    sides = [r.preprocess.crop]
    if r.weights is None:
        crops = [r.train.side, *([r.train.local_side] if r.train.local_crops else [])]
        _try("retriever", "ibot", r.model, crops, drop_path_rate=r.train.drop_path_rate)
        sides.append(r.train.side)
    _try("retriever", "embed", r.model, sides)


def _try(group: str, role: str, model: Model, sides: list[int], **how: Any) -> None:
    if _is_sure(role, model, sides, how.get("least", 1)):
        return
    _tried(group, role, model.name, json.dumps(model.args, sort_keys=True, default=str), tuple(sides), **how)


@cache  # a sweep asks for it with every cell
def _tried(group: str, role: str, name: str, args: str, sides: tuple[int, ...], **how: Any) -> None:
    from sept.models import trial

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
