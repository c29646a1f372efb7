"""The store: keys, building once, crashes at every file operation, races, and looking after what is there."""

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, make_dataclass, replace
from datetime import UTC, datetime
from enum import Enum, StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sept.errors import ConfigError, DataError, NonFiniteError, StorageError
from sept.store import CHECKPOINTS, Artefact, Step, Store, disk
from sept.store import store as store_module
from sept.store.__main__ import main
from sept.store.maintenance import prune, repair, verify
from sept.store.step import ASIDE, checksum

REPOSITORY = Path(__file__).resolve().parent.parent


def counted(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
    """A build of two files that notes each call in `builds` beside the store."""
    with open(folder.parent.parent.parent / "builds", "a") as log:
        log.write(f"{folder.name}\n")
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "deep" / "a.bin").write_bytes(bytes(range(256)) * 64)
    (folder / "read.txt").write_text(" ".join(inputs[name].path.name for name in sorted(inputs)))
    return {"images": 4, "top1": 0.5}


def step(
    spec: Mapping[str, Any] | None = None,
    stage: str = "embed",
    build: Callable[..., Mapping[str, Any]] = counted,
    **rest: Any,
) -> Step:
    return Step(stage, rest.pop("version", 1), spec or {}, rest.pop("inputs", {}), build, **rest)


def chain() -> Step:
    """finetune reads pretrain and embed; pretrain reads embed."""
    embed = step({"model": "vit"}, "embed", slug="vit on patterns")
    pretrain = step({"lr": 0.1}, "pretrain", inputs={"images": embed}, slug="moby")
    return step({"shot": 5}, "finetune", inputs={"weights": pretrain, "images": embed})


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares a thousand waits for the disk here, not in child processes: a kill, unlike a power cut, loses no write."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def builds(store: Store) -> list[str]:
    """Stages in the order they were built."""
    log = store.root.parent / "builds"
    return [line.split("-")[0] for line in log.read_text().splitlines()] if log.exists() else []


# Keys


class Precision(StrEnum):
    BF16 = "bf16"


class Order(Enum):
    ROUND_ROBIN = 1


@dataclass
class Crop:
    size: int = 224
    scale: tuple[float, float] = (0.2, 1.0)


@dataclass
class Recipe:
    name: str = "moby"
    lr: float = 1e-3
    epochs: float = 300
    precision: Precision = Precision.BF16
    crop: Crop = field(default_factory=Crop)
    clip: float | None = None
    nesterov: bool = False
    depths: tuple[int, ...] = (2, 2, 6, 2)


GOLDEN = {
    "plain": "3bcd5fcb88fa786e997c9ac0baf7b29d9ec5f5690f6e4caa79e7d41826905901",
    "dataclass": "51e451c1f8a191807b883a39c85fa53f3681cb271af096cd2b1cca78edaa5fd5",
    "chain": "8e819a92c4dbd576be9c932c54fa4e66018fbc5509f1f9116c38072d6ad2862c",
}


def test_golden_keys_do_not_move() -> None:
    steps = {
        "plain": Step("embed", 1, {"model": "vit_small", "crop": 224, "pools": ["a", "b"]}, {}, counted),
        "dataclass": Step("pretrain", 3, {"recipe": Recipe(), "seed": 0}, {}, counted),
        "chain": chain(),
    }
    assert {name: each.key for name, each in steps.items()} == GOLDEN


@pytest.mark.parametrize(
    "change",
    [
        {"name": "ibot"},
        {"lr": 2e-3},
        {"epochs": 300.5},
        {"precision": "fp32"},
        {"crop": Crop(size=96)},
        {"crop": Crop(scale=(0.2, 0.9))},
        {"clip": 3.0},
        {"nesterov": True},
        {"depths": (2, 2, 6)},
        {"depths": (2, 6, 2, 2)},
    ],
    ids=str,
)
def test_every_field_of_a_spec_counts_in_the_key(change: dict[str, Any]) -> None:
    assert step({"recipe": replace(Recipe(), **change)}).key != step({"recipe": Recipe()}).key


def test_a_new_field_with_a_default_and_a_class_variable_count_in_the_key() -> None:
    old = make_dataclass("Spec", [("lr", float, 0.1)])
    grown = make_dataclass("Spec", [("lr", float, 0.1), ("beta", float, 0.9)])
    ibot = make_dataclass("Spec", [("lr", float, 0.1), ("kind", ClassVar[str], "ibot")])
    moby = make_dataclass("Spec", [("lr", float, 0.1), ("kind", ClassVar[str], "moby")])
    assert len({step({"recipe": kind()}).key for kind in (old, grown, ibot, moby)}) == 4


def test_stage_version_and_inputs_count_in_the_key_but_slug_estimate_and_build_do_not() -> None:
    base = step({"lr": 1})
    upstream = step({"model": "vit"})
    others = [
        step({"lr": 1}, "other"),
        step({"lr": 1}, version=2),
        step({"lr": 1}, inputs={"a": upstream}),
        step({"lr": 1}, inputs={"b": upstream}),
        step({"lr": 1}, inputs={"a": step({"model": "swin"})}),
    ]
    assert len({each.key for each in [base, *others]}) == 6
    assert step({"lr": 1}, slug="x", estimate={"flops": 1.0}, build=lambda folder, inputs: {}).key == base.key


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def reworded(value: Any) -> Any:
    """The same meaning in other types and another order."""
    if isinstance(value, dict):
        return {name: reworded(value[name]) for name in reversed(value)}
    if isinstance(value, list):
        return tuple(reworded(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_order_tuples_and_number_form_do_not_change_a_key(spec: dict[str, Any]) -> None:
    assert step(spec).key == step(reworded(spec)).key


def test_enums_paths_and_dataclasses_count_as_their_plain_form() -> None:
    rich = {"p": Precision.BF16, "order": Order.ROUND_ROBIN, "path": PurePosixPath("a/b"), "crop": Crop()}
    plain = {"p": "bf16", "order": "Order.ROUND_ROBIN", "path": "a/b", "crop": {"size": 224, "scale": [0.2, 1]}}
    assert step(rich).key == step(plain).key
    assert step({"flag": True}).key != step({"flag": 1}).key


@pytest.mark.parametrize(
    "value",
    [{1, 2}, object(), b"x", Crop, {1: "a"}, len],
    ids=["set", "object", "bytes", "class", "number as name", "function"],
)
def test_anything_but_plain_data_is_refused_by_the_name_of_its_field(value: Any) -> None:
    with pytest.raises(TypeError, match=r"embed\.spec\.recipe\.crop\[1\]"):
        _ = step({"recipe": {"crop": [0, value]}}).key


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"embed\.spec\.lr is "):
        _ = step({"lr": value}).key


def test_walk_gives_each_step_once_and_inputs_first() -> None:
    assert [each.stage for each in chain().walk()] == ["embed", "pretrain", "finetune"]


# Building


def test_a_chain_is_built_inputs_first_and_asking_twice_builds_once(store: Store) -> None:
    made = store.make(chain())
    again = Store(store.root).make(chain())
    assert builds(store) == ["embed", "pretrain", "finetune"]
    assert (again.key, again.path) == (made.key, made.path)
    assert again.facts == {"images": 4, "top1": 0.5}
    assert verify(store) == []


def test_the_published_folder_holds_the_payload_and_a_manifest_that_tells_its_origin(store: Store) -> None:
    def build(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
        (folder / CHECKPOINTS).mkdir()
        (folder / CHECKPOINTS / "last.ckpt").write_text("big")
        return counted(folder, inputs)

    upstream = step({"model": "vit"})
    wanted = step({"lr": 0.1}, "pretrain", build, inputs={"images": upstream}, slug="../moby 5k: é/")
    made = store.make(wanted)
    assert made.path == store.root / "pretrain" / f"moby-5k-{wanted.key[:16]}"
    assert sorted(p.relative_to(made.path).as_posix() for p in made.path.rglob("*")) == [
        "deep", "deep/a.bin", "manifest.json", "read.txt",
    ]  # fmt: skip
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert manifest["inputs"] == {"images": {"stage": "embed", "key": upstream.key}}
    assert (manifest["stage"], manifest["version"], manifest["spec"]) == ("pretrain", 1, {"lr": 0.1})
    assert manifest["files"]["deep/a.bin"]["size"] == 256 * 64
    assert (manifest["attempts"], manifest["resumed"], manifest["key"]) == (1, False, wanted.key)
    assert manifest["versions"].keys() >= {"python", "platform", "torch", "timm", "numpy"}
    assert manifest["commit"] is None or set(manifest["commit"]) == {"sha", "dirty"}
    assert not store.work_folder(wanted).exists()


def test_a_published_artefact_needs_none_of_its_inputs(store: Store) -> None:
    store.make(chain())
    prune(store, stages=["embed", "pretrain"])
    assert store.missing(chain()) == []
    store.make(chain())
    assert builds(store) == ["embed", "pretrain", "finetune"]


def test_missing_and_status_tell_what_make_would_do(store: Store) -> None:
    embed, pretrain, finetune = chain().walk()
    store.make(embed)
    broken = Step("pretrain", 1, pretrain.spec, pretrain.inputs, fail_after("part"), slug="moby")
    with pytest.raises(ZeroDivisionError):
        store.make(broken)
    assert [store.status(each) for each in (embed, pretrain, finetune)] == ["cached", "unfinished", "to do"]
    assert [each.stage for each in store.missing(finetune)] == ["pretrain", "finetune"]


def fail_after(name: str) -> Callable[..., dict[str, Any]]:
    def build(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
        (folder / name).write_text("half")
        time.sleep(0.03)
        return {"ratio": 1 / 0}

    return build


def test_a_build_that_fails_is_resumed_in_the_same_folder_and_says_so(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        store.make(step(build=fail_after("part")))
    assert store.find(step()) is None
    seen = []

    def resume(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
        seen.append((folder / "part").read_text())
        return {}

    manifest = store.make(step(build=resume)).manifest
    assert seen == ["half"]
    assert (manifest["attempts"], manifest["resumed"], list(manifest["files"])) == (2, True, ["part"])
    assert manifest["wall_s"] >= 0.03  # the failed attempt counts


def test_facts_that_are_not_finite_or_not_plain_are_not_published(store: Store) -> None:
    with pytest.raises(NonFiniteError, match=r"embed\.facts\.top1 is nan"):
        store.make(step(build=lambda folder, inputs: {"top1": float("nan")}))
    with pytest.raises(TypeError, match=r"embed\.facts\.top1"):
        store.make(step(build=lambda folder, inputs: {"top1": {1}}))
    assert store.status(step()) == "unfinished"


def test_a_link_in_the_payload_is_refused(store: Store, tmp_path: Path) -> None:
    def build(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
        (folder / "weights").symlink_to(tmp_path / "elsewhere")
        return {}

    with pytest.raises(DataError, match="weights is a link"):
        store.make(step(build=build))


def test_an_input_that_changes_during_the_build_stops_it(store: Store) -> None:
    def build(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
        (inputs["images"].path / "read.txt").write_text("changed under our feet")
        return {}

    with pytest.raises(DataError, match="changed while pretrain"):
        store.make(step({}, "pretrain", build, inputs={"images": step()}))


def test_a_forced_stage_is_rebuilt_once_and_nothing_else(store: Store) -> None:
    store.make(chain())
    forced = Store(store.root, force=["pretrain"])
    assert [each.stage for each in forced.missing(chain())] == ["pretrain"]
    assert [forced.status(each) for each in chain().walk()].count("to do") == 1
    forced.make(chain())
    forced.make(chain())
    assert builds(store) == ["embed", "pretrain", "finetune", "pretrain"]
    assert verify(store) == []
    assert [folder.parent.name for folder in store.artefact_folders()] == ["embed", "finetune", "pretrain"]


def test_force_spares_what_was_published_since_a_moment(store: Store) -> None:
    made = store.make(chain())
    Store(store.root, force=["finetune"], since=made.created - 1).make(chain())
    assert builds(store) == ["embed", "pretrain", "finetune"]
    Store(store.root, force=["finetune"], since=made.created).make(chain())
    assert builds(store) == ["embed", "pretrain", "finetune", "finetune"]
    (made.path / "manifest.json").write_text("{}")
    Store(store.root, force=["finetune"], since=made.created - 1).make(chain())
    assert builds(store).count("finetune") == 3
    assert verify(store) == []


def test_a_forced_rebuild_resumes_a_forced_one_only(store: Store) -> None:
    found: list[list[str]] = []

    def build(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
        found.append(sorted(path.name for path in folder.iterdir()))
        return {}

    with pytest.raises(ZeroDivisionError):
        store.make(step(build=fail_after("unforced")))
    with pytest.raises(ZeroDivisionError):
        Store(store.root, force=["embed"]).make(step(build=fail_after("forced")))
    Store(store.root, force=["embed"]).make(step(build=build))
    assert found == [["forced", "used.json", "work.json"]]


# Read-only stores, other formats, disks that refuse


def snapshot(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}


def test_a_read_only_store_gives_what_it_has_and_writes_nothing(store: Store) -> None:
    store.make(chain().walk()[1])
    before = snapshot(store.root)
    reader = Store(store.root, mode="read-only")
    assert reader.make(chain().walk()[1]).facts["images"] == 4
    with pytest.raises(ConfigError, match=rf"read-only.*lacks finetune {chain().key[:16]}"):
        reader.make(chain())
    assert snapshot(store.root) == before


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot rebuild embed"):
        Store(tmp_path, mode="read-only", force=["embed"])
    with pytest.raises(ConfigError, match="'write' is not one of"):
        Store(tmp_path, mode="write")  # type: ignore[arg-type]


def test_looking_into_a_store_that_does_not_exist_creates_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert (store.status(step()), verify(store)) == ("to do", [])
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_another_format_is_refused(store: Store) -> None:
    store.make(step())
    (store.root / "store.json").write_text('{"format": 3}')
    with pytest.raises(ConfigError, match="has format 3, this sept reads 2"):
        Store(store.root)
    (store.root / "store.json").write_text("{")
    with pytest.raises(DataError, match=r"store\.json is damaged"):
        Store(store.root)


@pytest.mark.parametrize("below", ["", "x"])
def test_a_root_that_cannot_be_written_is_one_clear_line(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"^cannot write .*file.*choose another store root$"):
        Store(tmp_path / "file" / below).make(step())


@pytest.mark.parametrize(("number", "refused"), [(28, True), (2, False)])
def test_a_full_disk_inside_a_build_is_the_stores_and_other_errors_are_the_builds_own(
    number: int, refused: bool, store: Store
) -> None:
    def build(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        store.make(step(build=build))
    assert isinstance(caught.value, StorageError) == refused


# Damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "is not JSON"),
        (lambda text: "[]", "lacks attempts"),
        (lambda text: text.replace('"top1"', '"top9"'), "checksum does not fit"),
        (lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "facts"}), "lacks facts"),
    ],
)
def test_a_damaged_manifest_is_never_passed_over(
    store: Store, damage: Callable[[str], str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.make(step()).path / "manifest.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        store.make(step())
    assert str(path.parent) in str(caught.value)
    assert "sept.store verify" in str(caught.value)
    assert len(verify(store)) == 1
    assert main(["--root", str(store.root), "list"]) == 0
    assert "damaged" in capsys.readouterr().out


def test_a_published_folder_without_a_manifest_is_damage(store: Store) -> None:
    (store.make(step()).path / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"it has no manifest\.json"):
        store.find(step())


def test_verify_names_files_altered_missing_and_extra(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    embed, pretrain, finetune = (store.make(each).path for each in chain().walk())
    damaged = bytearray((embed / "deep" / "a.bin").read_bytes())
    damaged[1000] ^= 1
    (embed / "deep" / "a.bin").write_bytes(damaged)
    (pretrain / "read.txt").unlink()
    (finetune / "deep" / "notes").write_text("")
    expected = [
        f"{embed}: deep/a.bin was altered",
        f"{finetune}: deep/notes is extra",
        f"{pretrain}: read.txt is missing",
    ]
    assert verify(store) == expected
    assert main(["--root", str(store.root), "verify"]) == 65
    assert capsys.readouterr().out.splitlines() == expected


def test_verify_notices_a_manifest_rewritten_with_another_spec(store: Store) -> None:
    path = store.make(step({"lr": 1})).path / "manifest.json"
    manifest = json.loads(path.read_text()) | {"spec": {"lr": 2}}
    path.write_text(json.dumps(manifest | {"checksum": checksum(manifest)}))
    assert verify(store) == [f"{path.parent}: its key is not that of its spec and inputs"]


def test_an_artefact_moved_to_another_name_is_damage(store: Store) -> None:
    made = store.make(step({"lr": 1}))
    other = step({"lr": 2})
    made.path.rename(made.path.with_name(other.key[:16]))
    with pytest.raises(DataError, match="is that of"):
        store.find(other)


# Upkeep


def test_repair_keeps_what_is_whole_and_the_next_run_makes_the_rest(store: Store) -> None:
    finetune = store.make(chain())
    embed, pretrain = (next((store.root / stage).iterdir()) for stage in ("embed", "pretrain"))
    whole = (embed / "deep" / "a.bin").read_bytes()
    (embed / "read.txt").write_text("altered")
    (pretrain / "read.txt").unlink()
    (pretrain / "extra").write_text("")
    fate = repair(Store(store.root))
    assert fate == {
        embed: "unfinished: 1 of 2 files are intact",
        pretrain: "unfinished: 1 of 2 files are intact",
        finetune.path: "removed: built on damage",
    }
    left = {path.parent.name.rpartition("-")[0]: path for path in store.root.glob(".unfinished/*/deep")}
    assert (left["embed"] / "a.bin").read_bytes() == whole
    assert not list(store.root.glob(".unfinished/*/read.txt"))
    again = Store(store.root)
    again.make(chain())
    assert verify(again) == []
    assert finetune.path.exists()
    assert repair(again) == {}


def flip(path: Path) -> None:
    """Alters a byte, as a disk does: the time of the last write stays."""
    data, times = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("name", ["deep/a.bin", "read.txt"])
def test_a_build_refuses_an_input_that_is_not_what_was_published(store: Store, name: str) -> None:
    embed, pretrain, _ = chain().walk()
    made = store.make(embed)
    data = bytearray((made.path / name).read_bytes() or b"x")
    data[-1] ^= 1
    (made.path / name).write_bytes(data)
    again = "`python -m sept.store repair` drops it and what was built on it; then run the same command again"
    with pytest.raises(DataError, match=f"{name}.*published.*{re.escape(again)}"):
        Store(store.root).make(pretrain)
    with pytest.raises(DataError, match=f"{name}.*published"):
        Store(store.root).read(embed)
    assert list(repair(Store(store.root))) == [made.path]
    assert Store(store.root).make(pretrain)


def test_large_files_are_left_to_their_readers_except_for_their_size(store: Store) -> None:
    embed = step({"model": "vit"}, "embed", by_part=("deep/*.bin",))
    path = store.make(embed).path / "deep" / "a.bin"
    flip(path)
    store.make(step({"lr": 0.1}, "pretrain", inputs={"images": embed}))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a\.bin has 16,383 bytes, not the 16,384"):
        store.make(step({"lr": 0.2}, "pretrain", inputs={"images": embed}))


def test_inputs_are_hashed_once_a_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    embed, pretrain, finetune = chain().walk()
    store.make(pretrain)
    hashed: list[str] = []
    kept = store_module.fingerprint
    monkeypatch.setattr(
        store_module, "fingerprint", lambda path: hashed.append(path.relative_to(store.root).parts[0]) or kept(path)
    )
    Store(store.root).make(finetune)
    assert set(hashed) == {"pretrain"}
    os.utime(store.make(embed).path / "read.txt")  # written since
    Store(store.root).read(embed)
    assert hashed[-1] == "embed"


def test_repair_removes_what_was_built_after_a_file_was_altered_and_keeps_the_rest(store: Store) -> None:
    embed, before, _ = chain().walk()
    after = step({"lr": 0.2}, "pretrain", inputs={"images": embed})
    read_it = step({"shot": 1}, "finetune", inputs={"weights": after})
    made = {each: store.make(each).path for each in (embed, before, after, read_it)}
    published = os.stat(made[embed] / "read.txt").st_mtime
    for each, hours in ((embed, 0), (before, 1), (after, 3), (read_it, 4)):
        path = made[each] / "manifest.json"
        manifest = json.loads(path.read_text())
        created = datetime.fromtimestamp(published + 3600 * hours, UTC).isoformat(timespec="seconds")
        manifest |= {"created": created}
        path.write_text(json.dumps(manifest | {"checksum": checksum(manifest)}))
    (made[embed] / "read.txt").write_text("altered")
    os.utime(made[embed] / "read.txt", (published + 7200,) * 2)
    assert repair(Store(store.root)) == {
        made[embed]: "unfinished: 1 of 2 files are intact",
        made[after]: "removed: built on damage",
        made[read_it]: "removed: built on damage",
    }
    assert verify(Store(store.root)) == []


def test_repair_cannot_date_what_a_disk_lost_and_removes_all_that_was_built_on_it(store: Store) -> None:
    made = [store.make(each).path for each in chain().walk()]
    other = store.make(step({"model": "other"}, "embed")).path
    flip(made[0] / "deep" / "a.bin")
    assert set(repair(Store(store.root))) == set(made)
    assert list(Store(store.root).artefact_folders()) == [other]


def test_a_repair_that_is_stopped_does_not_forget_what_was_built_on_the_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [store.make(each).path for each in chain().walk()]
    flip(made[0] / "deep" / "a.bin")
    for moves in range(4):
        left = iter(range(moves))

        def rename(*paths: Any, left: Any = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            os.replace(*paths)

        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", rename)
            with suppress(KeyboardInterrupt):
                repair(Store(store.root))
    repair(Store(store.root))
    assert list(Store(store.root).artefact_folders()) == []


def test_repair_removes_what_has_no_readable_manifest(store: Store) -> None:
    made = store.make(step())
    (made.path / "manifest.json").write_text("{")
    assert list(repair(Store(store.root)).values()) == ["removed: its manifest is damaged"]
    assert not made.path.exists()


def test_prune_removes_what_is_named_and_refuses_what_is_not_there(store: Store) -> None:
    embed, pretrain, finetune = (store.make(each) for each in chain().walk())
    with pytest.raises(ConfigError, match="0123456789abcdef"):
        prune(store, stages=["embed"], keys=["0123456789abcdef"])
    with pytest.raises(ConfigError, match="pretrian"):
        prune(store, stages=["pretrian"])
    with pytest.raises(ConfigError, match="name what to remove"):
        prune(store)
    assert prune(store, stages=["embed"], dry_run=True) == {embed.path: "would be removed"}
    assert list(store.artefact_folders()) == sorted([embed.path, pretrain.path, finetune.path])
    assert prune(store, stages=["embed"], keys=[finetune.key]) == {embed.path: "removed", finetune.path: "removed"}
    assert list(store.artefact_folders()) == [pretrain.path]
    assert list((store.root / ".removed").iterdir()) == []


def test_prune_unfinished_spares_what_is_published_and_what_is_being_built(store: Store) -> None:
    store.make(step({"done": 1}))
    for lr in (1, 2):
        with pytest.raises(ZeroDivisionError):
            store.make(step({"lr": lr}, build=fail_after("part")))
    fates = {}

    def build(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
        fates.update(prune(Store(store.root), unfinished=True))
        return {}

    store.make(step({"lr": 1}, build=build))
    told = {folder.name.partition("@")[0]: fate for folder, fate in fates.items()}
    busy, idle = (store.work_folder(step({"lr": lr})).name for lr in (1, 2))
    assert told == {busy: "kept: in use", idle: "removed"}
    assert [store.status(step(spec)) for spec in ({"done": 1}, {"lr": 1}, {"lr": 2})] == ["cached", "cached", "to do"]


@pytest.mark.parametrize("name", ["embed@", "notes@home", "embed-0123@host-x-1", "embed-0123@host--"])
def test_an_unfinished_folder_with_a_strange_name_is_nobodys(store: Store, name: str) -> None:
    store.make(step())
    (store.root / ".unfinished" / name).mkdir()
    assert list(prune(store, unfinished=True).values()) == ["removed"]


def test_a_damaged_record_of_an_unfinished_build_is_named(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        store.make(step(build=fail_after("part")))
    record = store.work_folder(step()) / "work.json"
    known = json.loads(record.read_text())
    without = [{name: value for name, value in known.items() if name != lost} for lost in ("attempts", "started")]
    for damaged in (*without, known | {"seconds": "1"}, known | {"forced": None}, [], 1):
        record.write_text(json.dumps(damaged))
        with pytest.raises(DataError, match=r"work\.json is damaged; remove it with"):
            store.make(step())


def test_the_command_lists_prunes_and_tells_errors_in_one_line(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [store.make(each) for each in chain().walk()]
    root = ["--root", str(store.root)]
    assert main([*root, "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["stage", "key", "slug", "MB", "wall_s", "created"]
    assert [line.split()[:2] for line in lines[1:]] == [
        [each.stage, each.key[:16]] for each in sorted(made, key=lambda each: each.stage)
    ]
    assert "vit-on-patterns" in lines[1]
    assert main([*root, "prune", "--key", "feedfeedfeedfeed"]) == 78
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*root, "prune", "--stage", "embed", "--key", made[1].key[:16]]) == 0
    assert [folder.parent.name for folder in store.artefact_folders()] == ["finetune"]
    assert main([*root, "verify"]) == 0
    assert main(["--root", str(store.root / "nowhere"), "list"]) == 78


# Crashes and races

CHILD = """
import os, sys, time
from pathlib import Path
from sept.store import Step, Store
root = Path(sys.argv[1])

def say(word):
    print(word, flush=True)

def build(folder, inputs):
    say("building")
    with open(root.parent / "builds", "a") as log:
        log.write(folder.name + chr(10))
    {body}
    return {{}}

def step(i=0, build=build):
    return Step("embed", 1, {{"i": i}}, {{}}, build)
"""


def child(store: Store, body: str, then: str) -> subprocess.Popen[str]:
    """A process that runs `then`, its builds running `body`; it prints "building" when one starts."""
    code = CHILD.format(body=body) + textwrap.dedent(then)
    command = [sys.executable, "-c", code, str(store.root)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_killed_build_frees_its_lock_publishes_nothing_and_is_resumed(store: Store) -> None:
    body = "(folder / 'half').write_text('x'); say('written'); time.sleep(60)"
    process = child(store, body, "Store(root).make(step())")
    assert [read_line(process), read_line(process)] == ["building", "written"]
    kill(process)
    wanted = step({"i": 0}, build=lambda folder, inputs: {"found": (folder / "half").read_text()})
    assert (store.find(wanted), store.status(wanted)) == (None, "unfinished")
    made = store.make(wanted)
    assert (made.facts, made.manifest["resumed"]) == ({"found": "x"}, True)


def test_processes_racing_for_one_key_build_it_once(store: Store) -> None:
    body = "time.sleep(0.3); (folder / 'a').write_text('x')"
    racers = [child(store, body, "print(Store(root).make(step()).path)") for _ in range(4)]
    outputs = [racer.communicate(timeout=30)[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert len({output[-1] for output in outputs}) == 1
    assert builds(store) == ["embed"]


WITHOUT_LOCKS = """
    import filelock
    filelock.FileLock.acquire = lambda *_, **__: None
"""


def test_processes_racing_where_locks_do_nothing_never_share_a_folder(store: Store) -> None:
    """As some mounts of Lustre and NFS are. At worst several build, each whole."""
    body = """
    for i in range(20):
        (folder / str(i)).write_text(str(i))
        time.sleep(0.01)
    """
    then = "\n    ".join(f"print(Store(root).make(step({i})).path)" for i in range(3))
    racers = [child(store, body, WITHOUT_LOCKS + "    " + then) for _ in range(9)]
    errors = [racer.communicate(timeout=60)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 9, errors
    assert verify(store) == []
    assert [len(list(folder.iterdir())) for folder in store.artefact_folders()] == [21] * 3
    assert not list((store.root / ".unfinished").iterdir())


def test_work_of_another_host_is_left_alone_until_it_is_silent(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError):
        store.make(step(build=fail_after("part")))
    free = store.work_folder(step())
    theirs = free.rename(free.with_name(f"{free.name}@elsewhere-1-1"))
    assert store.status(step()) == "unfinished"
    assert prune(Store(store.root), unfinished=True) == {theirs: "kept: in use"}
    monkeypatch.setattr(disk, "SILENT_S", 0.5)
    with caplog.at_level(logging.INFO, logger="sept.store"):
        made = store.make(step())
    assert [f"waiting for pid {os.getpid()}" in record.message for record in caplog.records] == [True]
    assert made.manifest["resumed"]
    assert not list((store.root / ".unfinished").iterdir())


def test_a_build_shows_that_it_lives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "BEAT_S", 0.01)

    def build(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
        os.utime(folder, (0, 0))
        time.sleep(0.5)
        assert folder.stat().st_mtime > 0
        return {}

    store.make(step(build=build))


def test_a_waiting_process_says_for_whom_and_reuses_the_result(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    process = child(store, "time.sleep(0.5)", "Store(root).make(step())")
    assert read_line(process) == "building"
    with caplog.at_level(logging.INFO, logger="sept.store"):
        store.make(step({"i": 0}))
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert builds(store) == ["embed"]
    assert [f"waiting for pid {process.pid}" in record.message for record in caplog.records] == [True]


def test_a_process_killed_at_a_random_moment_leaves_only_whole_artefacts(store: Store) -> None:
    """The child publishes new keys and replaces a published one, over and over."""
    body = "[(folder / str(i)).write_bytes(os.urandom(1 << 16)) for i in range(4)]"
    then = """
    for i in range(100_000):
        Store(root).make(step(i))
        Store(root, force=["embed"]).make(step(0))
    """
    kept, published = step({"i": 0}), set[str]()
    store.make(kept)
    delays = random.Random(0)
    for _ in range(10):
        process = child(store, body, then)
        read_line(process)
        time.sleep(delays.uniform(0, 0.15))
        kill(process)
        assert store.find(kept) is not None
        assert verify(store) == []
        keys = {folder.name.removesuffix(ASIDE) for folder in store.artefact_folders()}
        assert keys >= published
        published = keys
    Store(store.root, force=["embed"]).make(kept)
    assert [folder.name for folder in store.artefact_folders() if kept.key[:16] in folder.name] == [kept.key[:16]]


FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.utime"}


def killed_at(operation: int, work: Callable[[], object], root: Path) -> bool:
    """Runs `work` in a fork that is killed just before its n-th file operation under `root`; False: it ended first."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            relative = event in ("os.remove", "os.rmdir") and not os.path.isabs(os.fsdecode(arguments[0]))
            if event in FILE_OPERATIONS and (relative or str(arguments[0]).startswith(str(root))):
                count += 1
                if count == operation:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def with_checkpoint(folder: Path, inputs: Mapping[str, Artefact]) -> dict[str, Any]:
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    (folder / CHECKPOINTS / "last.ckpt").write_text("x")
    return counted(folder, inputs)


@pytest.mark.slow
def test_a_crash_at_any_file_operation_of_a_first_build_loses_nothing(tmp_path: Path) -> None:
    operation, alive = 1, True
    while alive:
        store = Store(tmp_path / str(operation) / "store")
        store.root.parent.mkdir()
        wanted = step(build=with_checkpoint)
        alive = killed_at(operation, lambda store=store, wanted=wanted: store.make(wanted), store.root)
        assert verify(store) == []
        work = store.work_folder(wanted)
        sealed = (work / "manifest.json").exists()
        if (work / "read.txt").exists() and not sealed:  # the build's last file: it will run again
            assert (work / CHECKPOINTS / "last.ckpt").exists()
        done, ran = store.find(wanted) is not None, len(builds(store))
        Store(store.root).make(wanted)
        assert verify(store) == []
        assert len(builds(store)) == ran + (not done and not sealed)  # a complete build is never repeated
        operation += 1
    assert operation > 20


def test_a_crash_at_any_file_operation_of_a_forced_rebuild_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    operation, alive = 1, True
    while alive:
        store = Store(tmp_path / str(operation) / "store")
        store.root.parent.mkdir()
        store.make(step(slug="old"))
        forced, new = Store(store.root, force=["embed"]), step(slug="new")
        alive = killed_at(operation, lambda forced=forced, new=new: forced.make(new), store.root)
        assert store.find(new) is not None
        assert store.make(new).facts == {"images": 4, "top1": 0.5}
        assert verify(store) == []
        made = Store(store.root, force=["embed"]).make(new)
        assert list(store.artefact_folders()) == [made.path]
        assert made.path.name.startswith("new-")
        operation += 1
    assert operation > 20
