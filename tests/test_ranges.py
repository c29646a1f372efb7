"""The range of every setting: declared where the setting is, and what is outside refused in a line."""

import copy
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
import yaml
from omegaconf import OmegaConf
from test_compose import composed

from sept import config, ranges
from sept.compose import load, one_line
from sept.config import SETTINGS, Experiment
from sept.data.settings import Source
from sept.errors import ConfigError
from sept.ranges import RULE, Number, Several, Text, check_ranges
from sept.runtime.settings import Hardware
from sept.stages import VERSIONS

FREE = {"retriever.backbone.args", "backbone.args", "pool.sources"}  # tried or checked by rules of their own


def schema(cls: type, prefix: str = "") -> list[tuple[str, Any]]:
    """Every field that is no group, with its name."""
    found = []
    for item in fields(cls):
        if is_dataclass(item.type):
            found += schema(item.type, f"{prefix}{item.name}.")
        else:
            found.append((prefix + item.name, item))
    return found


FIELDS = [*schema(Experiment), *((f"pool.sources.x.{item.name}", item) for item in fields(Source))]
FIELDS += [(f"{recipe.__name__}.{item.name}", item) for recipe in SETTINGS.values() for item in fields(recipe)]


@pytest.mark.parametrize(("name", "item"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_setting_says_its_range(name, item):
    if name in FREE or item.type in (bool, bool | None):
        assert RULE not in item.metadata
        return
    rule, kinds = item.metadata[RULE], get_args(item.type) if isinstance(item.type, UnionType) else (item.type,)
    if isinstance(rule, Several):
        assert any(get_origin(kind) is list for kind in kinds)
        rule = rule.each
    if isinstance(rule, Number) and not rule.words:
        assert rule.whole == (not any("float" in str(kind) for kind in kinds))
        assert rule.least is not None or rule.above is not None
        assert rule.most is not None or rule.below is not None


def test_every_default_of_a_range_is_in_it():
    for each in (*SETTINGS.values(), Hardware, config.Logger, config.Storage):
        made = each()
        for item in fields(made):
            value = getattr(made, item.name)
            if RULE in item.metadata and value not in (None, ""):
                assert item.metadata[RULE].refusal(value) is None, item.name


def test_the_stages_that_can_be_forced_are_those_that_have_a_version():
    assert list(config.STAGES) == [*dict.fromkeys((*config.STAGES, *VERSIONS))]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretrain.lr=-1", "pretrain.lr=-1.0: must be above 0"),
        ("pretrain.lr=0", "pretrain.lr=0.0: must be above 0"),
        ("pretrain.temperature=0", "must be at least 0.001"),
        ("retriever.train.student_temp=-0.1", "must be at least 0.001"),
        ("pretrain.momentum=1.1", "is a share: it must be at least 0 and at most 1"),
        ("pretrain.momentum=.nan", "is a share"),
        ("pretrain.crop_scale=[1,0]", "pretrain.crop_scale=[1.0,0.0]: each must be above 0"),
        ("pretrain.crop_scale=[1,0.5]", "pretrain.crop_scale=[1.0,0.5]: must ascend"),
        ("pretrain.crop_scale=[1]", "must be 2 values"),
        ("finetune.crop_scale=[]", "must be 2 values"),
        ("finetune.layer_decay=-1", "is a share"),
        ("hardware.checkpoint_every_s=.nan", "must be at least 0 and at most 10,000,000"),
        ("hardware.checkpoint_every_s=.inf", "hardware.checkpoint_every_s=inf: must be"),
        ("finetune.mixup=7", "is a share"),
        ("finetune.smoothing=1", "at least 0 and below 1"),
        ("finetune.rand_augment=rand-m9-x", "must be like rand-m9-mstd0.5-inc1"),
        ("hardware.workers=-1", "hardware.workers=-1: must be auto or at least 0"),
        ("hardware.workers=2.5", "auto or a whole number at least 0"),
        ("hardware.chunk=true", "hardware.chunk=true: must be auto or a whole number"),
        ("hardware.workers={}", "auto or a whole number at least 0"),
        ("++retriever.backbone.args.patch_size=null", "patch_size=null would have no effect"),
        ("query.top=0", "query.top=0: must be at least 1"),
        ("compute.epochs=null compute.flops=.nan", "compute.flops=nan: must be"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("seed=99999999999", "must be at most 4,294,967,295"),
        ("store.force=[finetun]", "did you mean finetune?"),
        ("store.root=", "store.root=: the path is empty"),
        ("retriever.train.pred_ratio=[]", "must be 1 or more values"),
        ("retriever.train.pred_ratio=[0.3]", "one of each, in pairs"),
        ("retriever.train.pred_ratio_var=[0,0.4]", "leaves [0, 1]"),
        ("retriever.train.out_dim=1", "must be at least 2"),
        ("pretrain.lr_batch=1 pretrain.lr=0.5", "a step would be larger than weights"),
        ("pretrain.min_lr=0.5", "pretrain.min_lr=0.5 is more than pretrain.lr=0.001"),
        ("pretrain.batch_size=1", "must be at least 2"),
        ("init.weights=x.pth", "init.weights=x.pth would have no effect"),
        ("pool.path=x", "pool.path=x would have no effect"),
        ("pool.without=[intern]", "pool.without=[intern] would have no effect"),
        ("task.images=5", "task.images=5 would have no effect"),
        ("task.subset=plants", "did you mean plantae?"),
        ("index.nprobe=8", "index.nprobe=8 would have no effect"),
        ("engine.workers=3", "engine.workers=3 would have no effect"),
        ("task=patterns_boxes finetune=detect_micro logger.knn_every=1", "needs a task of classes"),
        ("task=patterns_boxes finetune=detect_micro finetune.milestones=[7,3]", "must ascend"),
        ("task=patterns_boxes finetune=detect_micro finetune.short_sides=[65]", "more than finetune.long_side=64"),
        ("task=patterns_masks finetune=segment_micro finetune.scale=[2,1]", "finetune.scale=[2.0,1.0]: must ascend"),
    ],
)
def test_what_has_no_meaning_is_refused_in_a_line(override, message):
    with pytest.raises(ConfigError) as refused:
        load(written(override.split()), expanded=False)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_in_a_sweep_a_setting_may_be_of_use_to_another_cell():
    load(composed("init=rand_init", "init.weights=x.pth"), expanded=True)


def test_a_value_at_a_bound_is_taken():
    ends = "finetune.smoothing=0 pretrain.momentum=1 finetune.layer_decay=1 hardware.workers=0 hardware.chunk=null"
    load(composed(*ends.split(), "store.force=[pretrain,finetune]", "finetune.rand_augment=rand-m9-n3-p0.5-tweights"))


@cache
def chosen(*options: str) -> Any:
    """Composing takes longer than all the rest."""
    return composed(*options)


def written(overrides: list[str]) -> Any:
    """What a command line composes to, without composing for every value."""
    options = [text for text in overrides if text.startswith(("task=", "finetune="))]
    cfg = copy.deepcopy(chosen(*options))
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if text not in options:
            with one_line():
                OmegaConf.update(cfg, key, yaml.safe_load(value) if value else "", merge=False, force_add=True)
    return cfg


@dataclass
class Group:
    share: float = ranges.share(0.5)
    several: list[int] = ranges.several([1], Number(whole=True, least=1), fewest=1, strictly=True)  # noqa: RUF009
    parts: dict[str, Any] = field(default_factory=dict)


def test_what_a_mapping_holds_is_checked_too():
    check_ranges(Group(parts={"a": Group()}), "g.")
    with pytest.raises(ConfigError, match=r"^g\.parts\.a\.several=\[2,2\]: must ascend without repetition$"):
        check_ranges(Group(parts={"a": Group(several=[2, 2])}), "g.")


def test_a_name_is_some_text_that_can_be_printed():
    assert Text().refusal(" ") == "must not be empty"
    assert Text().refusal("a\nb") == "has characters that cannot be printed"
    assert Text().refusal("a b") is None
