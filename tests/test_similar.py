"""Selections by likeness: copies of test images are found and may be left out, other selectors stand beside Alg. 1."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Tiny, mostly_slow, run
from PIL import Image, ImageOps

MICRO = ["retriever=ibot_micro", "retriever.weights=sept:ibot_micro", "pretrain.batch_size=16", "pretrain.queue=32"]


def jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture(scope="module")
def planted(tiny: Tiny, tmp_path_factory) -> tuple[Path, list[str]]:
    """A folder with pool images and, as `planted-*`, re-encoded, resized and mirrored test images."""
    folder, names = tmp_path_factory.mktemp("planted"), []
    [pool] = (tiny.store / "pool").iterdir()
    for shard in sorted((pool / "images").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                (folder / f"{shard.stem}-{Path(member.name).name}").write_bytes(tar.extractfile(member).read())
    [task] = (tiny.store / "task").iterdir()
    for n, path in enumerate(sorted((task / "images" / "test").rglob("*.jpg"))[:24]):
        image = Image.open(path).convert("RGB")
        if n % 3 == 1:
            image = image.resize((48, 48), Image.Resampling.BICUBIC)
        if n % 3 == 2:
            image = ImageOps.mirror(image)
        names.append(f"planted-{n:02d}.jpg")
        (folder / names[-1]).write_bytes(jpeg(image, 60 + n))
    return folder, names


def selected(store: Path, name: str) -> tuple[dict, dict[str, str | None]]:
    """Facts of a selection and of the copies in it, and the test image that each of its images shows."""
    folder, copies = (
        min((store / stage).glob(name), key=lambda path: path.stat().st_mtime) for stage in ("selection", "copies")
    )  # others come later
    table = pq.read_table(copies / "copies.parquet")
    assert table["row"].equals(pq.read_table(folder / "selection.parquet")["row"])
    shown = dict(zip(table["pool_key"].to_pylist(), table["copy_of_test"].to_pylist(), strict=True))
    chosen, found = (json.loads((path / "manifest.json").read_text())["facts"] for path in (folder, copies))
    return found | chosen, shown


def test_planted_copies_of_test_images_are_reported_and_on_demand_removed(planted, tmp_path):
    folder, names = planted
    choices = [*MICRO, "pool=folder", f"pool.path={folder}", "budget.images=200"]
    for leak in ("report", "remove"):
        done = run(*choices, f"leak={leak}", store=tmp_path / leak, script="search.py")
        assert done.returncode == 0, done.stderr
    reported, kept = selected(tmp_path / "report", "*-sept*")
    cleaned, left = selected(tmp_path / "remove", "*-sept*")
    chosen = [name for name in names if name in kept]
    assert len(chosen) >= 12  # they resemble the task
    found = [name for name in chosen if kept[name]]
    assert len(found) >= 0.95 * len(chosen)
    assert reported["copies_of_test_images"] >= len(found)
    assert cleaned["copies_of_test_images"] == 0
    assert cleaned["copies_removed"] >= len(found)
    assert len(left) == 200  # the lists close up
    assert not set(found) & set(left)


@pytest.mark.parametrize("init", mostly_slow(["classifier", "union_topk", "cluster"]))
def test_other_selectors_meet_the_same_budget(init, tiny: Tiny, tmp_path):
    done = run(f"init={init}", store=tiny.store, script="search.py")
    assert done.returncode == 0, done.stderr
    facts, shown = selected(tiny.store, f"patterns-{init}*")
    assert facts["images"] == len(shown) == 32
    assert set(facts["sources"]) == {"curated", "web"} or len(facts["sources"]) >= 1
    assert np.isfinite(facts["a_distance_selection"])


def test_a_selection_says_where_it_is_from_and_how_far_from_the_task(tiny: Tiny):
    facts, shown = selected(tiny.store, "patterns-sept*")
    assert sum(source["images"] for source in facts["sources"].values()) == len(shown)
    assert sum(facts["images_per_class"].values()) == len(shown)
    assert facts["most_used"][0]["queries"] >= 1
    assert -0.5 <= facts["a_distance_selection"] <= 2


def test_an_unknown_way_with_leaks_is_refused(tiny: Tiny):
    done = run("leak=hide", store=tiny.store)
    assert done.returncode == 78
    assert "leak=hide: must be one of report, remove" in done.stderr


def test_images_that_were_replaced_under_their_names_are_noticed_before_the_search(tiny: Tiny, tmp_path):
    [pool], names = (tiny.store / "pool").iterdir(), []
    with tarfile.open(next((pool / "images").glob("*.tar"))) as tar:
        for n, member in enumerate(tar):
            names.append(f"{n:03d}.jpg")
            (tmp_path / names[-1]).write_bytes(tar.extractfile(member).read().ljust(4096, b"\x00"))  # of one size
    (tmp_path / "list.txt").write_text("\n".join(names))
    choices = [*MICRO, "pool=list", f"pool.path={tmp_path / 'list.txt'}"]
    assert run(*choices, store=tmp_path / "store", script="search.py").returncode == 0
    for name, other in zip(names, reversed(names[: len(names) // 2 * 2]), strict=False):  # a list is all its identity
        (tmp_path / name).rename(tmp_path / f"{other}.new")
    for path in tmp_path.glob("*.new"):
        path.rename(path.with_suffix(""))
    changed = run(*choices, "budget.images=24", store=tmp_path / "store", script="search.py")
    assert changed.returncode == 65
    assert "gives another vector than the one stored for row" in changed.stderr
