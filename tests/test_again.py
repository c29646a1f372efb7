"""The command that makes a run again is as short as its options allow, and composes to the same experiment."""

import shlex

import pytest

from sept.compose import experiment
from sept.overrides import command


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", ""),
        ("init=pretrain selector=random", "init=random"),
        ("init=curated", "init=curated"),
        ("init=random selector.source=curated selector.share=0.5", None),
        ("init=rand_init budget.images=1000", "init=rand_init budget=1k"),
        ("shot.per_class=10 compute=300epochs", "compute=300epochs shot=10shot"),
        ("backbone=vit_micro_wide", "backbone=vit_micro_wide"),
        ("backbone.args.depths=[2,2]", "backbone.args.depths=[2,2]"),
        ("backbone.name=resnet18 backbone.args.layers=[1,1]", None),
        ("~backbone.args.depths", None),
        ("retriever=ibot_micro retriever.backbone.name=resnet18", None),
        ("compute.epochs=null compute.flops=1e15", "compute.epochs=null compute.flops=1000000000000000.0"),
    ],
)
def test_the_command_of_a_run_names_its_options(given: str, said: str | None) -> None:
    e = experiment(given.split())
    overrides = shlex.split(command(e))[2:]
    assert experiment(overrides) == e
    assert sorted(overrides) == sorted((given if said is None else said).split()) or given.startswith("~")


OWN_IMAGES = "pool=folder pool.path=/photos task=imagefolder task.path=/flowers"


@pytest.mark.parametrize(
    "chosen", ["", "retriever=ibot_micro", "backbone=swin_micro pretrain=moby_micro", "finetune=classify_micro"]
)
def test_the_command_of_own_images_says_what_they_chose_and_what_was_chosen_instead(chosen: str) -> None:
    e = experiment([*OWN_IMAGES.split(), *chosen.split()])
    said = shlex.split(command(e))[2:]
    assert {*chosen.split()} <= {*said}
    assert experiment(said) == e
