"""The content of every stage is that of its key: a change that moves it moves the stage's number in VERSIONS."""

import copy
import json
import shutil
from pathlib import Path

import golden
import pytest
from conftest import Tiny

from sept.stages import VERSIONS

KNOWN = json.loads(golden.GOLDEN.read_text())


def test_content_moves_only_with_the_number_of_its_stage(tiny: Tiny, tmp_path: Path):
    """Fails with what to do. The same code passes on any machine: see golden.TOLERANCE."""
    shutil.copytree(tiny.store, tmp_path / "store")  # other tests count what is in it
    now = golden.found(tmp_path / "store")
    apart = golden.moved(KNOWN, now)
    assert not apart, golden.told(apart, now)
    old = golden.outdated(KNOWN, now)
    assert not old, f"a number of VERSIONS or a setting moved: `{golden.COMMAND}` renews {', '.join(old)}"


def test_every_stage_has_a_golden_output():
    assert {each["stage"] for each in KNOWN.values()} == VERSIONS.keys()
    assert all(each["version"] == VERSIONS[each["stage"]] for each in KNOWN.values())


def changed(name: str, part: str, value: object) -> dict:
    now = copy.deepcopy(KNOWN)
    (now[name] if part == "rows" else now[name][part.partition("/")[0]])[part.partition("/")[2] or part] = value
    return now


@pytest.mark.parametrize(
    ("name", "part", "value"),
    [
        ("task", "exact/train", 81),
        ("selection, a source", "exact/selection.parquet:row", "0" * 16),
        ("subset", "near/pixels.bin", [144.69, 3.8, -7.5]),
        ("features", "near/shard-000000.npy", None),
        ("selection, by likeness", "rows", list(range(32))),
        ("pool", "exact/another", 1),
    ],
)
def test_another_content_of_the_same_key_is_told_with_the_number_to_raise(name, part, value):
    now = changed(name, part, value)
    if value is None:
        del now[name]["near"]["shard-000000.npy"]
    apart = golden.moved(KNOWN, now)
    assert list(apart) == [name]
    said = golden.told(apart, now)
    assert (
        f"{name}: raise VERSIONS[{KNOWN[name]['stage']!r}] in sept/stages/__init__.py and name it in CHANGELOG.md"
        in said
    )


def test_what_is_built_on_a_change_is_not_blamed():
    now = copy.deepcopy(KNOWN)
    for name in ("retriever", "features", "queries", "index"):
        now[name]["exact"]["images"] = -1
    said = golden.told(golden.moved(KNOWN, now), now)
    assert [line.split(":")[0].strip() for line in said.splitlines() if "raise VERSIONS" in line] == ["retriever"]


def test_content_of_another_key_is_to_be_renewed_and_no_fault():
    now = changed("finetune", "exact/steps", -1)
    now["finetune"] |= {"key": "0" * 64, "version": 99}
    assert golden.moved(KNOWN, now) == {}
    assert golden.outdated(KNOWN, now) == ["finetune"]


def test_renewing_refuses_other_content_of_the_same_key(tiny: Tiny, tmp_path, monkeypatch, capsys):
    written = tmp_path / "golden.json"
    monkeypatch.setattr(golden, "GOLDEN", written)
    monkeypatch.setattr(golden, "fresh", lambda: KNOWN)
    before = json.dumps(changed("pretrain", "exact/steps", -1))
    written.write_text(before)
    assert golden.main() == 1
    assert "raise VERSIONS['pretrain']" in capsys.readouterr().err
    assert written.read_text() == before
    moved = json.loads(before)
    moved["pretrain"]["key"] = "0" * 64
    written.write_text(json.dumps(moved))
    assert golden.main() == 0
    assert json.loads(written.read_text()) == KNOWN
