"""A path is taken as it is written, whatever signs it holds, and an empty one is never the current folder."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sept.commands.search import rewritten
from sept.compose import experiment
from sept.compose.names import leaves
from sept.errors import ConfigError
from sept.overrides import command
from sept.paths import PLACES, quoted, settled
from sept.store.__main__ import main as store_command

ODD = ["Bob's photo.png", "a\\\\${b}\\${c", "$'\"[{a: b}, c=d \\", "null"]
SIGNS = st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])


@given(st.one_of(st.text(SIGNS, min_size=1), st.text("a'\"\\${} ~/", min_size=1)).filter(lambda text: text != "???"))
@example("it's")
@example("\\${a}")
def test_quoted_text_comes_through_hydra_and_omegaconf_sign_by_sign(text):
    override = OverridesParser.create().parse_override(f"query.path={quoted(text)}")
    assert not override.is_sweep_override()
    assert OmegaConf.create({"path": override.value()}).path == text


@pytest.mark.parametrize("name", [*ODD, "./a.png", "~/a.png", "~no-such-user.png", "./???"])
def test_a_looked_up_path_is_what_was_typed(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    found = experiment(rewritten([f"query={name}", "top=3"])).query
    assert (found.path, found.top) == (name.replace("~/", "/home/ada/"), 3)


def test_a_choice_of_conf_query_stays_one():
    assert rewritten(["query=image", "query=./image", "seed=1"]) == ["query=image", "query.path='./image'", "seed=1"]


@pytest.mark.parametrize("name", ODD)
def test_variables_of_the_environment_hold_any_path(name, monkeypatch):
    for place in PLACES:
        monkeypatch.setenv(place, f"/x/{name}")
    e = experiment(["task=places365", "retriever=ibot_vit_s16"])
    assert e.store.root == f"/x/{name}"
    assert e.task.path == f"/x/{name}/places365"
    assert e.retriever.weights == f"/x/{name}/ibot_vit_s16.pth"


def test_the_command_that_makes_a_run_again_holds_its_paths_as_they_are():
    e = experiment(["pool=folder", f"pool.path={quoted(''.join(ODD))}", "budget.images=64"])
    import shlex

    again = experiment(shlex.split(command(e))[2:])
    assert leaves(again) == leaves(e)


URL = "https://example.org/a-{000..001}.tar"


def test_a_url_keeps_its_slashes():
    assert experiment(["pool=webdataset", f"pool.path='{URL}'"]).pool.path == URL


@pytest.mark.parametrize(
    "setting",
    [
        *("pool.path=", "task.path=''", "task.class_list=' '", "query.path='\t'", "store.root=", "init.weights="),
        *("retriever.weights=", "index.uri=", "+pool.sources.more.path="),
    ],
)
def test_a_setting_that_is_a_path_is_never_blank(setting):
    with pytest.raises(ConfigError, match=f"{setting.lstrip('+').split('=')[0]}=.*the path is empty") as told:
        experiment([setting])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("place", PLACES)
def test_a_variable_that_is_set_and_blank_is_refused(place, monkeypatch, capsys):
    monkeypatch.setenv(place, " ")
    with pytest.raises(ConfigError, match=f"{place}= : the path is empty"):
        experiment([])
    assert store_command(["list"]) == 78


def test_a_home_folder_is_expanded_and_a_name_that_begins_so_is_none(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert [settled("x", name) for name in ("~", "~/a", "~no-such-user", "a~")] == [
        "/home/ada",
        "/home/ada/a",
        "~no-such-user",
        "a~",
    ]
