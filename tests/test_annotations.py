"""Labels and captions of a pool: found wherever a layout keeps them, packed beside the images, refused where too many
are missing; and no part of what is listed and selected."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sept import capability
from sept.compose import experiment
from sept.data.annotations import photo_of, write_captions, write_labels
from sept.data.locate import Location
from sept.data.patterns.drawing import draw_pool
from sept.data.pool import write_manifest
from sept.data.settings import POOL_KINDS, SYNTHETIC_POOLS, Pool
from sept.data.sources import annotations
from sept.data.sources.annotations import lacks, place, read
from sept.data.sources.layouts import root
from sept.data.sources.scan import scan
from sept.data.subset import Subset
from sept.errors import ConfigError, DataError
from sept.pipeline import Pipeline
from sept.retrieval.selections import SELECTION, save_selection
from sept.runtime.hardware import Runtime, resolve
from sept.stages import copies, subset
from sept.stages.annotations import annotation_of


def picture(n: int = 0) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(n).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((40, 32)).save(stream, "PNG")
    return stream.getvalue()


def make_tar(path: Path, members: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_zip(path: Path, members: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


MAKE = {"webdataset": (make_tar, "a.tar"), "zip": (make_zip, "a.zip")}


def make_parquet(path: Path, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = len(next(iter(columns.values())))
    images = [{"bytes": picture(n), "path": f"{n}.png"} for n in range(rows)]
    pq.write_table(pa.table({"image": images, **columns}), path)
    return path


def found(kind: str, path: Path, where: str, threads: int = 1) -> dict[str, tuple[str, ...]]:
    """The names of every image of a source by its key."""
    images = list(scan(kind, str(path), "s"))
    names = read(kind, root(kind, str(path)), where, images, threads)
    return {image.key: each for image, each in zip(images, names, strict=True)}


# Where they are


def test_auto_is_where_a_kind_keeps_them_and_a_setting_comes_before_it():
    assert place("folder", "labels", "auto") == "folder"
    assert place("webdataset", "labels", "auto") == "cls"
    assert place("webdataset", "captions", "auto") == "txt"
    assert place("parquet", "captions", "auto") == "caption,text"
    assert place("patterns", "labels", "auto") == "drawn"
    assert place("yfcc", "labels", "auto") is None
    assert place("webdataset", "labels", "json.label") == "json.label"
    assert place("webdataset", "labels", None) is None
    known = {*annotations.PLACES["labels"], *annotations.PLACES["captions"]}
    assert known <= {*POOL_KINDS, *SYNTHETIC_POOLS}


# Of folders


@pytest.mark.parametrize("kind", ["webdataset", "zip"])
def test_a_negative_number_is_no_label(kind, tmp_path):
    make, file = MAKE[kind]
    members = {"a.png": picture(), "b.png": picture(), "c.png": picture()}
    made = make(tmp_path / file, members | {"a.cls": "-1\n", "b.cls": "0", "c.cls": "-1a", "a.json": '{"label": -1}'})
    assert list(found(kind, tmp_path, "cls").values()) == [(), ("0",), ("-1a",)]
    assert list(found(kind, tmp_path, "json.label").values()) == [(), (), ()]
    assert made.is_file()


def test_a_label_is_the_folder_that_an_image_lies_in(tmp_path):
    for name in ("rose/1.png", "deep/er/oak tree/2.png", "3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture())
    names = found("folder", tmp_path, "folder")
    assert names == {"3.png": (), "deep/er/oak tree/2.png": ("oak tree",), "rose/1.png": ("rose",)}
    (tmp_path / "list.txt").write_text("rose/1.png\n3.png\n")
    assert found("list", tmp_path / "list.txt", "folder") == {"rose/1.png": ("rose",), "3.png": ()}


@pytest.mark.parametrize("kind", ["webdataset", "zip"])
def test_folders_in_an_archive_are_labels_too_and_its_own_name_is_none(kind, tmp_path):
    make, name = MAKE[kind]
    path = make(tmp_path / name, {"rose/1.png": picture(), "./oak/2.png": picture(), "3.png": picture()})
    assert [*found(kind, path, "folder").values()] == [("rose",), ("oak",), ()]


# Beside the images

TWO = {
    "a/0.cls": "3\n",
    "a/0.png": picture(),
    "a/0.txt": " A red\n kite ",
    "a/0.json": json.dumps({"label": ["kite", "red"], "n": 7, "caption": "A kite"}),
    "a/1.PNG": picture(1),
    "a/1.CLS": b"\xef\xbb\xbfoak",
    "a/1.txt": "",
    "a/1.json": "no json",
}


@pytest.mark.parametrize("kind", ["webdataset", "zip"])
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("cls", [("3",), ("oak",)]),
        ("txt", [("A red kite",), ()]),
        ("json.label", [("kite", "red"), ()]),
        ("json.n", [("7",), ()]),
        ("json.caption", [("A kite",), ()]),
        ("json.other", [(), ()]),
        ("caption", [(), ()]),
    ],
)
def test_members_beside_an_image_are_read_and_what_is_no_text_is_none(kind, where, expected, tmp_path):
    make, name = MAKE[kind]
    path = make(tmp_path / name, TWO)
    assert [*found(kind, path, where).values()] == expected


def test_a_member_beside_has_the_images_name_or_that_of_its_sample(tmp_path):
    members = {f"{name}.png": picture() for name in ("x.left", "x.right", "y")} | {
        "x.right.cls": "own",
        "x.cls": "both",
    }
    names = found("webdataset", make_tar(tmp_path / "a.tar", members), "cls")
    assert names == {"a/x.left.png": ("both",), "a/x.right.png": ("own",), "a/y.png": ()}


@pytest.mark.parametrize("threads", [1, 3])
def test_shards_are_read_by_any_number_of_threads_alike(threads, tmp_path):
    for shard in range(5):
        make_tar(tmp_path / f"s-{shard}.tar", samples("cls", [f"{shard}-{n}" for n in range(4)]))
    names = found("webdataset", tmp_path, "cls", threads)
    assert names == {f"s-{shard}/{n}.png": (f"{shard}-{n}",) for shard in range(5) for n in range(4)}


def test_a_damaged_shard_is_refused(tmp_path):
    path = make_tar(tmp_path / "a.tar", TWO)
    images = list(scan("webdataset", str(path), "s"))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"a\.tar: (damaged|cut)"):
        read("webdataset", tmp_path, "cls", images, 1)


@given(st.binary(max_size=40))
def test_whatever_bytes_are_beside_an_image_give_one_line_of_text_or_nothing(data):
    for key in (None, "label"):
        for text in annotations._decoded(data, key):
            assert text == " ".join(text.split()) != ""


# Columns


def test_columns_of_text_numbers_and_lists_are_read(tmp_path):
    path = make_parquet(
        tmp_path / "a.parquet",
        label=[3, None, -1],
        name=["oak", "", None],
        several=[["oak", "tree"], [], ["fir"]],
    )
    assert [*found("parquet", path, "label").values()] == [("3",), (), ()]
    assert [*found("parquet", path, "name").values()] == [("oak",), (), ()]
    assert [*found("parquet", path, "several").values()] == [("oak", "tree"), (), ("fir",)]
    assert [*found("parquet", path, "caption,name").values()] == [("oak",), (), ()]
    pq.write_table(pq.read_table(path).set_column(2, "name", pa.array(["b", "a", "b"]).dictionary_encode()), path)
    assert [*found("parquet", path, "name").values()] == [("b",), ("a",), ("b",)]


def named(path: Path, labels: list, feature: dict) -> Path:
    table = pq.read_table(make_parquet(path, label=labels))
    about = json.dumps({"info": {"features": {"label": feature}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), path)
    return path


def test_numbers_are_called_as_hugging_face_says(tmp_path):
    names = {"names": ["oak", "fir"], "_type": "ClassLabel"}
    path = named(tmp_path / "a.parquet", [1, 0, -1], names)
    assert [*found("parquet", path, "label").values()] == [("fir",), ("oak",), ()]
    path = named(tmp_path / "b.parquet", [[1, 0], []], {"feature": names, "_type": "Sequence"})
    assert [*found("parquet", path, "label").values()] == [("fir", "oak"), ()]


def test_a_label_out_of_range_a_missing_column_and_other_types_are_refused(tmp_path):
    path = named(tmp_path / "a.parquet", [1, 2], {"names": ["oak", "fir"]})
    with pytest.raises(DataError, match=r"a\.parquet: has the label 2, and names for 2 classes"):
        found("parquet", path, "label")
    path = make_parquet(tmp_path / "b.parquet", score=[0.5])
    with pytest.raises(DataError, match=r"b\.parquet: no column 'caption' or 'text'; its columns: image, score"):
        found("parquet", path, "caption,text")
    with pytest.raises(DataError, match="the column 'score' holds double, not whole numbers or strings"):
        found("parquet", path, "score")
    images = list(scan("parquet", str(path), "s"))
    make_parquet(path, label=["a"])
    with pytest.raises(DataError, match="it changed since it was listed"):
        read("parquet", tmp_path, "label", [image._replace(offset=9) for image in images], 1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged, cut or no parquet file"):
        read("parquet", tmp_path, "label", images, 1)


# The embedded world


def test_the_embedded_world_is_labelled_by_what_was_drawn(tmp_path):
    draw_pool(tmp_path, "patterns_scenes", 400, 24, 0, 1)
    images = list(scan("webdataset", str(tmp_path), "s"))
    names = read("patterns_scenes", tmp_path, "drawn", images, 1)
    assert all(len(each) == 1 for each in names)
    classes = {each[0] for each in names}
    assert {"glyphs-00", "glyphs-15", "junk-00"} <= classes
    assert len(classes) == 9 * 16 + 1
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read"):
        read("patterns_scenes", tmp_path, "drawn", images, 1)


# What is known before any work


@pytest.mark.parametrize(
    ("kind", "what", "told"),
    [
        ("folder", "labels", "holds no folders"),
        ("folder", "captions", "a source of kind folder keeps none"),
        ("webdataset", "labels", r"a\.tar has no \.cls beside its images"),
        ("webdataset", "captions", r"a\.tar has no \.txt beside its images"),
        ("zip", "captions", r"a\.zip has no \.txt beside its images"),
        ("parquet", "labels", r"a\.parquet has the columns image, x"),
        ("parquet", "captions", r"a\.parquet has the columns image, x"),
    ],
)
def test_a_pool_without_them_is_refused_before_any_work(kind, what, told, tmp_path):
    if kind == "parquet":
        make_parquet(tmp_path / "a.parquet", x=[1])
    elif kind == "folder":
        (tmp_path / "1.png").write_bytes(picture())
    else:
        make, name = MAKE[kind]
        make(tmp_path / name, {"1.png": picture()})
    method = {"labels": "supervised_micro", "captions": "clip_micro"}[what]
    pool = [f"pool={kind}", f"pool.path={tmp_path}", "budget.images=99"]
    overrides = [*pool, f"pretrain={method}", "backbone=vit_micro"]
    said = f"pretrain={method} learns from {what}, and pool=.* has no {what}: .*{told}"
    with pytest.raises(ConfigError, match=said) as e:
        capability.require(experiment([*overrides, "pretrain.side=32"]))
    assert "\n" not in str(e.value)
    assert f"pool.{what}" in str(e.value)
    capability.require(experiment([*overrides, "init=rand_init"]))
    capability.require(experiment([*overrides, "pretrain=moby_micro"]))
    capability.require(experiment(overrides), selection_only=True)


def test_a_pool_with_them_passes_and_one_that_is_missing_is_told_later(tmp_path):
    (tmp_path / "rose").mkdir()
    (tmp_path / "rose" / "1.png").write_bytes(picture())
    assert lacks("folder", str(tmp_path), "folder") is None
    assert lacks("webdataset", str(make_tar(tmp_path / "a.tar", TWO)), "cls") is None
    assert lacks("zip", str(make_zip(tmp_path / "a.zip", TWO)), "json.label") is None
    assert lacks("folder", str(tmp_path), "cls") == "nothing beside images of kind folder is read"
    labelled = ["pretrain=supervised_micro", "budget.images=99"]
    capability.require(experiment(["pool=patterns_5k", *labelled]))
    capability.require(experiment(["pool=folder", f"pool.path={tmp_path}/none", *labelled, "retriever=ibot_micro"]))


def test_one_source_of_a_union_is_enough():
    sources = {"a": {"kind": "yfcc", "path": "nowhere"}, "b": {"kind": "folder", "path": "elsewhere"}}
    pool = Pool("u", kind="union", sources=sources)
    assert annotation_of(pool, "labels").places == (None, "folder")
    assert annotation_of(pool, "captions").places == (None, None)


@pytest.mark.parametrize("choice", [["include_task=true"], ["init=target_only"]])
def test_a_tasks_own_images_do_not_join(choice):
    with pytest.raises(
        ConfigError, match=r"(include_task=true|selector=target_only): pretrain=supervised_micro learns"
    ):
        experiment(["pretrain=supervised_micro", *choice])


# Packing

IMAGES = 10


def world(folder: Path, members: dict[str, bytes | str], **settings) -> tuple:
    """A pool of one tar: its settings, inputs and locations."""
    path = make_tar(folder / "in" / "a.tar", members)
    made = folder / "pool"
    made.mkdir()
    write_manifest(made, scan("webdataset", str(path), "a"))
    inputs = {"pool0": SimpleNamespace(path=made, facts={"sources": {"a": IMAGES}})}
    return Pool("p", kind="webdataset", path=str(path), **settings), inputs, [Location("webdataset", str(path), "a")]


def samples(suffix: str, texts: list) -> dict[str, bytes | str]:
    members = {}
    for n, text in enumerate(texts):
        members[f"{n}.png"] = picture(n)
        if text is not None:
            members[f"{n}.{suffix}"] = text
    return members


def pack(folder: Path, made: tuple, reads: str | None, most: float = 0.0, rows: list[int] | None = None) -> dict:
    pool, inputs, locations = made
    rows = rows or [*range(IMAGES)]
    out = folder / "out"
    out.mkdir(exist_ok=True)
    save_selection(out / SELECTION, np.array(rows), [f"a/{row}.png" for row in rows])
    given = inputs | {"selection": SimpleNamespace(path=out)}
    how = {"side": 16, "locations": locations, "find_draws": lambda pool: None, "max_unreadable": None, "threads": 2}
    wanted = annotation_of(pool, reads) if reads else None
    return subset.build(out, given, **how, annotation=wanted, max_unannotated=most)


def test_labels_are_packed_in_the_order_of_the_images(tmp_path):
    made = world(tmp_path, samples("cls", [str(12 - n // 2) for n in range(IMAGES)]))
    facts = pack(tmp_path, made, "labels", rows=[9, 0, 3, 2])
    packed = Subset.open(tmp_path / "out")
    assert packed.annotations.classes == ["8", "11", "12"]  # by number
    assert [packed.annotation(i) for i in range(4)] == [{"label": n} for n in (0, 2, 1, 1)]
    assert (facts["annotation"], facts["classes"], facts["unannotated"], facts["images"]) == ("labels", 3, 0, 4)


def test_captions_are_packed_as_they_are_or_made_of_labels(tmp_path):
    made = world(tmp_path, samples("txt", [f"Träume, no. {n}" for n in range(IMAGES)]))
    assert pack(tmp_path, made, "captions", rows=[4, 2])["annotation"] == "captions"
    packed = Subset.open(tmp_path / "out")
    assert [packed.annotation(i) for i in range(2)] == [{"caption": "Träume, no. 4"}, {"caption": "Träume, no. 2"}]
    labels = [json.dumps({"l": ["a_b", "c", "d"][: 1 + n % 3]}) for n in range(IMAGES)]
    settings = {"labels": "json.l", "captions": "from_labels"}
    made = world(tmp_path / "other", samples("json", labels), **settings)
    assert pack(tmp_path / "other", made, "captions")["annotation"] == "captions from labels"
    packed = Subset.open(tmp_path / "other" / "out")
    told = ["This is a photo of a b.", "This is a photo of a b and c.", "This is a photo of a b, c and d."]
    assert [packed.annotation(i)["caption"] for i in range(3)] == told
    with pytest.raises(DataError, match=r"a/1\.png has 2 labels, 'a_b' and 'c' among them"):
        pack(tmp_path / "other", made, "labels")


@pytest.mark.parametrize("missing", [None, "", " \n", b"\xff\xfe"])
def test_images_without_are_left_out_up_to_a_share_and_told(missing, tmp_path, caplog):
    made = world(tmp_path, samples("txt", ["a", "b", missing, *"defghij"]))
    with pytest.raises(DataError) as refused:
        pack(tmp_path, made, "captions", most=0.05)
    assert str(refused.value) == (
        "1 of 10 chosen images have no captions, the first 'a/2.png': more than pool.max_unannotated=0.05, up to which "
        "they are left out; set pool.captions to where they are, or raise it"
    )
    facts = pack(tmp_path, made, "captions", most=0.1)
    assert (facts["images"], facts["unannotated"]) == (9, 1)
    assert "1 of 10 chosen images have no captions, the first 'a/2.png': left out" in caplog.text
    packed = Subset.open(tmp_path / "out")
    assert packed.ids.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert [packed.annotation(i)["caption"] for i in range(9)] == [*"abdefghij"]


def test_copies_are_told_of_the_images_that_are_packed(tmp_path):
    from sept.retrieval.copies import write_tests
    from sept.retrieval.fingerprints import Thumbnails, thumbnail
    from sept.retrieval.selections import COPIES

    made = world(tmp_path, samples("txt", ["a", None, *"cdefghij"]))
    pack(tmp_path, made, "captions", most=0.3, rows=[5, 1, 3, 0])
    tests, out = tmp_path / "tests", tmp_path / "copies"
    tests.mkdir()
    out.mkdir()
    shown = np.asarray(Image.open(io.BytesIO(picture(3))))
    write_tests(tests, ["the third"], [thumbnail(shown)])
    assert len(Thumbnails.open(tmp_path / "out")) == 3
    inputs = {name: SimpleNamespace(path=tmp_path / "out") for name in ("selection", "subset")}
    inputs["fingerprints"] = SimpleNamespace(path=tests)
    facts = copies.build(out, inputs, runtime=Runtime(threads=1))
    assert facts["images"] == 3
    found = {row["pool_key"]: row for row in pq.read_table(out / COPIES).to_pylist()}
    assert [key for key, row in found.items() if row["copy_of_test"] == "the third"] == ["a/3.png"]


def test_class_names_that_look_alike_are_refused(tmp_path):
    made = world(tmp_path, samples("cls", ["Oak", "oak", *"cdefghij"]))
    with pytest.raises(DataError, match="the labels of 10 chosen images: the classes 'Oak' and 'oak' differ by case"):
        pack(tmp_path, made, "labels")


def test_nothing_is_read_or_written_for_a_method_of_images_alone(tmp_path, monkeypatch):
    made = world(tmp_path, samples("cls", [str(n) for n in range(IMAGES)]))
    monkeypatch.setattr(annotations, "read", None)
    facts = pack(tmp_path, made, None)
    assert "annotation" not in facts
    assert Subset.open(tmp_path / "out").annotation(0) == {}
    assert not {*(path.name for path in (tmp_path / "out").iterdir())} & {"labels.npy", "classes.json", "captions.bin"}


# What is packed


@given(st.lists(st.text(min_size=1).map(lambda text: f"x{text}"), min_size=1, max_size=5))
def test_captions_come_back_as_they_were(tmp_path_factory, captions):
    folder = tmp_path_factory.mktemp("captions")
    encodable = [each.encode("utf-8", "replace").decode() for each in captions]
    write_captions(folder, encodable)
    from sept.data.annotations import open_annotations

    found = open_annotations(folder, len(captions), "")
    assert [found.of(i)["caption"] for i in range(len(captions))] == encodable


def test_classes_are_sorted_by_number_or_by_bytes(tmp_path):
    assert write_labels(tmp_path, ["10", "9", "10"], "x") == 2
    assert json.loads((tmp_path / "classes.json").read_text()) == ["9", "10"]
    write_labels(tmp_path, ["b", "10", "a"], "x")
    assert json.loads((tmp_path / "classes.json").read_text()) == ["10", "a", "b"]
    assert photo_of(["a"]) == "This is a photo of a."


@pytest.mark.parametrize("reads", ["labels", "captions"])
@pytest.mark.parametrize("damage", ["short", "cut", "range"])
def test_damaged_annotations_are_refused(reads, damage, tmp_path):
    import annotated

    annotated.subset(tmp_path, 6, reads)
    file = tmp_path / {"labels": "labels.npy", "captions": "captions.npy"}[reads]
    values = np.load(file)
    if damage == "short":
        np.save(file, values[:-1])
    elif damage == "range":
        values[-1] += 99
        np.save(file, values)
    else:
        file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"annotations (are damaged|of 6 images).*store repair"):
        Subset.open(tmp_path)


# Keys


def steps(*overrides: str) -> dict[str, str]:
    e = experiment(list(overrides))
    return {step.stage: step.key for step in Pipeline(e, resolve(e.hardware)).run.walk()}


def test_annotations_change_the_key_of_what_carries_them_alone():
    """Listing, features and selection are shared by methods; so is the subset of methods of images alone."""
    plain = steps("pretrain=moby_micro")
    set_otherwise = ["pool.labels=null", "pool.captions=from_labels", "pool.max_unannotated=0.5"]
    assert steps("pretrain=moby_micro", *set_otherwise) == plain
    labelled, told = steps("pretrain=supervised_micro"), steps("pretrain=clip_micro", "pool.captions=from_labels")
    apart = {"subset", "copies", "pretrain", "finetune"}
    for other in (labelled, told):
        assert {stage for stage, key in other.items() if key != plain[stage]} == apart
    assert labelled["subset"] != told["subset"]
    assert steps("pretrain=supervised_micro", "pool.labels=drawn", "pool.max_unannotated=0.5") == labelled
