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
