"""A task in a zip, a tar or parquet files is the task of the same class folders, and what is wrong with one is told."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sept.data.labelled import read_image
from sept.data.read import read_task
from sept.data.tasks.imagefolder import read_imagefolder
from sept.data.tasks.task import Task, digest
from sept.errors import DataError

HALF = {"test_fraction": 0.5, "seed": 0}
SPLIT = [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in ("rose", "iris") for n in range(3)]
PLAIN = [f"{name}/{n}.png" for name in ("rose", "iris") for n in range(4)]


def png(name: str) -> bytes:
    stream = io.BytesIO()
    colour = np.frombuffer(name.encode().ljust(48, b"-")[-12:], np.uint8).reshape(2, 2, 3)
    Image.fromarray(colour).save(stream, "PNG")
    return stream.getvalue()


def packed(kind: str, path: Path, names: list[str], prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        for name in names:
            (path / prefix / name).parent.mkdir(parents=True, exist_ok=True)
            (path / prefix / name).write_bytes(png(name))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(prefix + name, png(name))
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                member = tarfile.TarInfo(prefix + name)
                member.size = len(png(name))
                archive.addfile(member, io.BytesIO(png(name)))
    return path


def content(task: Task) -> list:
    return [
        task.classes,
        *([(each.id, each.label, read_image(each).tolist()) for each in split] for split in (task.train, task.test)),
    ]


@pytest.mark.parametrize("names", [SPLIT, PLAIN], ids=["split", "classes"])
@pytest.mark.parametrize("prefix", ["", "./", "flowers/"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_the_task_of_the_folders_it_was_made_of(kind, prefix, names, tmp_path):
    hidden = [*names, ".DS_Store.png", "rose/._0.png"]
    expected = read_imagefolder(packed("folder", tmp_path / "folder", hidden), **HALF)
    found = read_imagefolder(packed(kind, tmp_path / f"some.{kind.upper()}", hidden, prefix), **HALF)
    assert content(found) == content(expected)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train/a/1.png", "train/b/1.png"], "has only ['train']; it needs train and test"),
        (["train/a/1.png", "tets/a/1.png"], "it needs train and test"),
        (["Rose/1.png", "Rose/2.png", "rose/1.png", "rose/2.png"], "differ by case, blanks or Unicode form alone"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png"], "1 classes of train are not in test, the first is 'b'"),
        (["a/1.png", "b/1.png"], "class 'a' has one image"),
        (["a.txt"], "holds no image"),
        (["a/../../1.png", "b/1.png"], "is no plain relative path"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_same_is_refused_as_of_folders(kind, names, said, tmp_path):
    path = packed(kind, tmp_path / f"some.{kind}", names)
    with pytest.raises(DataError) as refused:
        read_imagefolder(path, **HALF)
    assert str(path) in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_cut_or_damaged_archive_is_refused_by_name(kind, tmp_path):
    whole = packed(kind, tmp_path / f"some.{kind}", PLAIN).read_bytes()
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"cut\.{kind}: (damaged|cut)"):
        read_imagefolder(cut, **HALF)


def test_a_member_that_was_damaged_is_named_when_it_is_read(tmp_path):
    path = packed("zip", tmp_path / "some.zip", PLAIN)
    task = read_imagefolder(path, **HALF)
    data = bytearray(path.read_bytes())
    data[task.train[0].path.offset + 60] ^= 255
    path.write_bytes(data)
    with pytest.raises(
        DataError, match=r"some\.zip, iris/\d\.png: byte [\d,]+: damaged: .*a labelled image is never skipped"
    ):
        read_image(read_imagefolder(path, **HALF).train[0])


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_digest_follows_the_content_and_not_the_place(kind, tmp_path):
    one = packed(kind, tmp_path / f"some.{kind}", PLAIN)
    there = tmp_path / "there"
    there.mkdir()
    moved = there / one.name
    moved.write_bytes(one.read_bytes())
    same = [digest(read_imagefolder(path, **HALF)) for path in (one, moved)]
    assert same[0] == same[1]
    moved.unlink()
    changed = packed(kind, moved, [*PLAIN[:-1], "iris/9.png"])
    assert digest(read_imagefolder(changed, **HALF)) != same[0]


def table(path: Path, labels: list, names: list[str] | None = None, tag: str = "") -> Path:
    images = [{"bytes": png(f"{tag}{n}-{label}"), "path": None} for n, label in enumerate(labels)]
    made = pa.table({"image": images, "label": labels})
    if names is not None:
        about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path)
    return path


def test_parquet_files_of_hugging_face_are_a_task_with_its_names_and_splits(tmp_path):
    names = ["tulip", "rose"]
    table(tmp_path / "data" / "train-00000-of-00002.parquet", [0, 1, 0], names)
    table(tmp_path / "data" / "train-00001-of-00002.parquet", [1, 1], names, "b")
    table(tmp_path / "data" / "test-00000-of-00001.parquet", [1, 0], names, "c")
    task = read_task("parquet", tmp_path, **HALF)
    assert task.classes == names
    assert [example.label for example in task.train] == [0, 0, 1, 1, 1]
    assert [example.id for example in task.test] == ["test-00000-of-00001/1", "test-00000-of-00001/0"]
    images = {example.id: read_image(example) for example in task.train}
    assert (images["train-00001-of-00002/1"] == np.asarray(Image.open(io.BytesIO(png("b1-1"))))).all()


@pytest.mark.parametrize(("labels", "classes"), [(["b", "a", "b", "a"], ["a", "b"]), ([10, 9, 10, 9], ["9", "10"])])
def test_a_table_without_splits_is_split_as_folders_are(labels, classes, tmp_path):
    task = read_task("parquet", table(tmp_path / "some.parquet", labels), **HALF)
    assert task.classes == classes
    assert len(task.train) == len(task.test) == 2
    assert len(digest(task)) == 64


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        ([0, None, 1], None, "1 of 3 rows have no label"),
        ([0.5, 1.5], None, "holds double, not whole numbers or strings"),
        ([0, 5], ["a", "b"], "has labels from 0 to 5, and names for 2 classes"),
        (["Rose", "rose", "iris"], None, "differ by case"),
    ],
)
def test_labels_that_make_no_classes_are_refused(labels, names, said, tmp_path):
    with pytest.raises(DataError, match=said):
        read_task("parquet", table(tmp_path / "some.parquet", labels, names), **HALF)


def test_a_parquet_task_without_labels_or_with_one_split_is_refused(tmp_path):
    pq.write_table(pa.table({"image": [{"bytes": b"x"}]}), tmp_path / "some.parquet")
    with pytest.raises(DataError, match="no column 'label'; its columns: image"):
        read_task("parquet", tmp_path / "some.parquet", **HALF)
    table(tmp_path / "one" / "train-0.parquet", [0, 1])
    with pytest.raises(DataError, match="has only the split 'train'"):
        read_task("parquet", tmp_path / "one", **HALF)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes((tmp_path / "some.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged, cut or no parquet file"):
        read_task("parquet", cut, **HALF)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_list_may_name_members_of_archives_beside_loose_files(kind, tmp_path):
    packed(kind, tmp_path / f"some.{kind}", PLAIN)
    packed("folder", tmp_path, ["loose/1.png", "loose/2.png"])
    names = [*(f"some.{kind}/{name}" for name in PLAIN), "loose/1.png", "loose/2.png"]
    lines = [f"{name},{name.split('/')[-2]}" for name in names]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    task = read_task("csv", tmp_path / "list.csv", **HALF)
    assert task.classes == ["iris", "loose", "rose"]
    for example in [*task.train, *task.test]:
        name = example.id.removeprefix(f"some.{kind}/")
        assert (read_image(example) == np.asarray(Image.open(io.BytesIO(png(name))))).all()
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines, f"some.{kind}/rose/9.png,rose"]))
    with pytest.raises(DataError, match=rf"some\.{kind}/rose/9.png: listed in .* but absent, with 1 of 11 images"):
        read_task("csv", tmp_path / "list.csv", **HALF)
