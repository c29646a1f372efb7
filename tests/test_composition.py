"""Our composing gives what Hydra's own does, for every table, option and random choices, in a part of its time."""

import math
import random

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from sept.compose import CONF, asked, defaults, options, register
from sept.compose.composition import composed

GROUPS = sorted(defaults())
SETTINGS = [
    *("seed=3", "finetune.epochs=2", "finetune.drop_path_rate=0.3", "pretrain.batch_size=32", "pool.side=9"),
    *("retriever.preprocess.crop=30", "retriever.train.out_dim=64", "budget.images=500", "store.force=[finetune]"),
    *("~pool.sources", "task.path='~/a b'", "compute.flops=1e15", "compute.epochs=null", "init.weights=x.pth"),
    *("backbone.args.depth=2", "++backbone.args.depths=[2,2]", "retriever.backbone.args.patch_size=8", "plan=true"),
    *("+pool.sources.mine={kind: folder, path: x}", "backbone@retriever.backbone=vit_s16"),
    *("pretrain@retriever.train=ibot_vit_s16", "store.root=${oc.env:HOME}/s"),
]


def by_hydra(overrides: list[str]) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides)


def shape(config: DictConfig) -> dict:
    """Every value below a config, uninterpreted, and the type of every group."""
    kinds = {
        key: OmegaConf.get_type(OmegaConf.select(config, key))
        for key in ("", *config, "retriever.train", "retriever.backbone")
        if OmegaConf.is_config(OmegaConf.select(config, key) if key else config)
    }
    return {"values": OmegaConf.to_container(config), "kinds": kinds}


def assert_equal(overrides: list[str]) -> None:
    assert shape(composed(overrides).config) == shape(by_hydra(overrides)), overrides


def choice(rng: random.Random) -> list[str]:
    groups = [f"{group}={rng.choice(options(group))}" for group in rng.sample(GROUPS, rng.randint(0, 5))]
    named = [f"+experiment={rng.choice(options('experiment'))}"] if rng.random() < 0.3 else []
    changed = [text for text in rng.sample(SETTINGS, rng.randint(0, 4)) if text.partition("=")[0] not in groups]
    found = [*named, *groups, *changed]
    rng.shuffle(found)
    return found


@pytest.mark.parametrize("table", options("table"))
def test_cells_of_every_table_are_composed_as_hydra_composes_them(table: str) -> None:
    assert_equal(asked([f"+table={table}"]).cells[-1])


def test_every_option_is_composed_as_hydra_composes_it() -> None:
    of = {group: options(group) for group in GROUPS}
    train = of["pretrain"][::-1]  # the other half of the largest group stands elsewhere at the same time
    longest = max(len(names) for group, names in of.items() if group != "pretrain")
    for turn in range(max(longest, math.ceil(len(train) / 2))):  # one of each group at a time
        chosen = [f"{group}={names[turn % len(names)]}" for group, names in of.items()]
        assert_equal([*chosen, f"pretrain@retriever.train={train[turn % len(train)]}"])


@pytest.mark.parametrize("seed", range(8))
def test_random_choices_are_composed_or_refused_as_hydra_does(seed: int) -> None:
    overrides = choice(random.Random(seed))
    try:
        expected = shape(by_hydra(overrides))
    except Exception as error:
        with pytest.raises(type(error)):
            composed(overrides)
        return
    assert shape(composed(overrides).config) == expected, overrides


@pytest.mark.parametrize("wrong", ["seed=0,1", "poool=folder", "+pool=folder", "++pool=folder", "seed=", "a b", "~x"])
def test_what_hydra_refuses_is_refused_in_its_words(wrong: str) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        by_hydra([wrong])
    with pytest.raises(type(theirs.value)) as ours:
        composed([wrong])
    assert str(ours.value).splitlines()[0] == str(theirs.value).splitlines()[0]


def test_what_was_composed_before_is_not_changed_by_what_comes_after() -> None:
    first = composed(["backbone=vit_micro"]).config
    before = OmegaConf.to_yaml(first)
    composed(["backbone=vit_micro", "backbone.args.depth=9", "+backbone.args.more=1", "pool.images=7"])
    assert OmegaConf.to_yaml(first) == before == OmegaConf.to_yaml(composed(["backbone=vit_micro"]).config)
