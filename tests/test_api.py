"""The Python functions: on real image files, and as README shows them."""

import re
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image

import sept
from sept.errors import ConfigError, DataError

README = Path(__file__).resolve().parent.parent / "README.md"
COLOURS = {"red": (190, 20, 20), "blue": (20, 20, 190), "green": (20, 190, 20)}
SHORT = ["compute.epochs=1", "finetune.epochs=1", "finetune.min_steps=20"]


def write_images(folder: Path, count: int, colour: tuple[int, int, int], seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = (rng.random((8, 8, 3)) * 60 + np.array(colour)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{number:03d}.jpg")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """200 photos of three colours, and a task of two of them."""
    folder = tmp_path_factory.mktemp("api")
    for seed, (name, colour) in enumerate(COLOURS.items()):
        write_images(folder / "photos" / name, 80 if name == "green" else 60, colour, seed)
    for seed, name in enumerate(("red", "blue")):
        write_images(folder / "flowers" / name, 10, COLOURS[name], 10 + seed)
    return folder


@pytest.fixture(autouse=True)
def inside(here, monkeypatch):
    monkeypatch.chdir(here)
    monkeypatch.delenv("SEPT_STORE", raising=False)
    monkeypatch.setattr("sept.runtime.hardware.cores", lambda: 1)  # other tests run on the others


def select(**changes):
    return sept.select(**{"pool": "photos/", "task": "flowers/", "budget": 64, "retriever": "ibot_micro"} | changes)


def test_a_selection_is_a_table_of_paths_with_what_brought_them_and_a_page():
    chosen = select()
    rows = chosen.table.to_pylist()
    assert len(rows) == 64
    assert all((Path("photos") / row["path"]).is_file() for row in rows)
    assert {row["path"].split("/")[0] for row in rows} == {"red", "blue"}, "images of the task's colours"
    assert rows[0]["rank"] == 0
    assert (Path("flowers") / rows[0]["query"]).is_file()
    assert chosen.page.read_text().startswith("<!")
    assert chosen.facts["images"] == 64


def test_vectors_lie_beside_the_names_of_their_images():
    found = sept.embed("photos/", retriever="ibot_micro")
    assert found.vectors.shape == (200, 128)
    assert np.allclose(np.linalg.norm(found.vectors.astype(float), axis=1), 1, atol=1e-2)
    assert found.keys[0] == "blue/000.jpg"


def test_images_that_came_between_two_calls_are_seen(tmp_path):
    for count in (2, 3):
        write_images(tmp_path / "few" / str(count), count, COLOURS["red"], count)
        assert len(sept.embed(tmp_path / "few", retriever="ibot_micro").keys) == (2 if count == 2 else 5)


def test_a_looked_up_image_of_the_pool_finds_itself_first():
    found = sept.search("photos/", "photos/red/007.jpg", retriever="ibot_micro", top=3).to_pylist()
    assert [row["rank"] for row in found] == [0, 1, 2]
    assert found[0]["path"] == "red/007.jpg"
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-2)


def test_a_pretrained_backbone_loads_in_timm():
    folder = sept.pretrain(
        "photos/", "flowers/", budget=64, retriever="ibot_micro", backbone="swin_micro", overrides=SHORT[:1]
    )
    network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    assert network.num_features == 96


def test_a_run_gives_its_row_and_the_store_what_was_made_before():
    chosen = ["pool=folder", "pool.path=photos/", "task=imagefolder", "task.path=flowers/", "budget.images=64", *SHORT]
    row = sept.run(chosen)
    assert row["init"] == "sept"
    assert 0 <= row["top1"] <= 100
    assert sept.run(chosen) == row


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: select(pool="nowhere/"), DataError, "nowhere"),
        (lambda: select(retriever="ibot_micr"), ConfigError, "ibot_micro"),
        (lambda: select(budget=201), ConfigError, "holds only 200"),
        (lambda: select(overrides=["shots=5"]), ConfigError, "shot"),
        (lambda: sept.search("photos/", "nothing.jpg", retriever="ibot_micro"), ConfigError, "nothing.jpg"),
        (lambda: sept.search("photos/"), ConfigError, "one of the two; given: neither"),
        (lambda: sept.search("photos/", "a.jpg", text="a"), ConfigError, "given: query='a.jpg' and text='a'"),
        (lambda: sept.search("photos/", text="a", retriever="ibot_micro"), ConfigError, "retriever=clip_b16_text"),
        (lambda: sept.run(["plan=true"]), ConfigError, "plan=true"),
        (lambda: sept.run(["seed=0,1"]), ConfigError, "several values make a sweep"),
        (lambda: sept.run("budget=1k"), ConfigError, "a list of strings"),
        (lambda: sept.run([1]), ConfigError, "a list of strings"),
        (lambda: sept.run(["pool"]), ConfigError, "is not KEY=VALUE"),
        (lambda: sept.run(["seed=0,1", "-m"]), ConfigError, "'-m' asks for several runs: call once for each, or use"),
        (lambda: sept.run(["+table=compare"]), ConfigError, "'+table=compare' asks for several runs: call once for"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(call, error, said):
    with pytest.raises(error) as told:
        call()
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_the_readme_is_executed():
    [block] = re.findall(r"```python\n(import sept\n.*?)```", README.read_text(), re.S)
    found: dict = {}
    exec(
        block.replace('"budget.images=64"]', f'"budget.images=64", *{SHORT}]'), found
    )  # fewer epochs, else as it stands
    assert len(found["chosen"].table) == 64
    assert len(found["alike"]) == 5
    assert found["vectors"].shape == (200, 128)
    assert found["row"]["metric"] == "top1"
