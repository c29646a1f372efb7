"""Detection data sets become boxes and splits that are the same on every machine; what is broken is told or named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detection_layouts import (
    CITY_BOXES,
    LOGO_IMAGES,
    LOGO_SIZE,
    VOC_SIZE,
    city_map,
    city_polygons,
    image,
    make_cityscapes,
    make_logodet,
    make_voc,
    voc_xml,
    write_list,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from sept.data.annotated import draw_images
from sept.data.detection.annotation import Annotation, read_annotation
from sept.data.detection.boxes import Boxed, DetectionTask, digest, instances
from sept.data.detection.cityscapes import map_boxes, read_cityscapes
from sept.data.detection.crops import crop_instance
from sept.data.detection.frames import Frame, clip, turn_upright
from sept.data.detection.logodet import read_logodet, read_split, write_split
from sept.data.detection.targets import DetectionImages, to_target
from sept.data.detection.voc import read_voc
from sept.data.images import ORIENTATION_TAG, ORIENTATIONS, decode
from sept.errors import ConfigError, DataError


def told(images, classes) -> dict:
    """What a reader says of its images, in the words of the layouts."""
    return {
        image.id: [
            (classes[label], *map(int, box), bool(ignore))
            for box, label, ignore in zip(image.boxes.tolist(), image.labels, image.ignore, strict=True)
        ]
        for image in images
    }


def refused(read, *parts: str, error: type[Exception] = DataError) -> None:
    with pytest.raises(error) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


@pytest.fixture
def voc(tmp_path) -> Path:
    make_voc(tmp_path)
    return tmp_path / "VOCdevkit"


@pytest.fixture
def city(tmp_path) -> Path:
    make_cityscapes(tmp_path)
    return tmp_path


def test_torch_is_not_needed_to_read(tmp_path):
    code = "import sys, sept.data.detection; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Pascal VOC


@pytest.mark.parametrize("root", ["", "VOCdevkit"])
def test_voc_is_what_was_put_there(root, tmp_path):
    put = make_voc(tmp_path)
    task = read_voc(tmp_path / root)
    assert len(task.classes) == 20
    assert task.classes == sorted(task.classes)
    assert [image.id for image in task.test] == [f"VOC2007/JPEGImages/{n}.jpg" for n in ("000001", "000002")]
    assert [image.id[:7] for image in task.train] == ["VOC2007"] * 3 + ["VOC2012"] * 3
    assert told(task.train + task.test, task.classes) == put
    assert task.clipped == 0
    for found in task.train + task.test:
        assert found.path == tmp_path / "VOCdevkit" / found.id
        assert found.path.is_file()
        assert (found.boxes.dtype, found.labels.dtype, found.ignore.dtype) == (np.float32, np.int64, np.bool_)


def test_images_are_sorted_whatever_the_order_of_the_lists(voc):
    before = [image.id for image in read_voc(voc).train]
    write_list(voc / "VOC2007", "trainval", ["000012", "000005", "000007"])
    assert [image.id for image in read_voc(voc).train] == before


def test_boxes_over_an_edge_are_cut_and_counted(voc):
    objects = [("cat", -1, 5, 70, 40, False), ("cat", 1, 5, 60, 40, False)]
    voc_xml(voc / "VOC2007/Annotations/000005.xml", VOC_SIZE, objects)
    task = read_voc(voc)
    assert task.clipped == 1
    assert task.train[0].boxes.tolist() == [[0, 5, 60, 40], [1, 5, 60, 40]]


def test_an_image_without_objects_and_fractions_are_fine(voc):
    path = voc_xml(voc / "VOC2007/Annotations/000005.xml", VOC_SIZE, [])
    boxes = read_voc(voc).train[0].boxes
    assert boxes.shape == (0, 4)
    voc_xml(path, VOC_SIZE, [("cat", 1, 5, 60, 40, False)])
    path.write_text(path.read_text().replace("<xmin>2</xmin>", "<xmin> 45.70000076293945 </xmin>"))
    assert read_voc(voc).train[0].boxes[0, 0] == pytest.approx(44.7)


def test_names_with_spaces_and_other_alphabets_and_links_are_read(voc):
    base = voc / "VOC2012"
    os.rename(base / "JPEGImages/2008_000002.jpg", voc.parent / "elsewhere.jpg")
    os.symlink(voc.parent / "elsewhere.jpg", base / "JPEGImages/été 日本.jpg")
    os.rename(base / "Annotations/2008_000002.xml", base / "Annotations/été 日本.xml")
    write_list(base, "train", ["été 日本"])
    write_list(base, "trainval", ["2008_000003", "2011_003353", "été 日本"])
    assert read_voc(voc).train[-1].id == "VOC2012/JPEGImages/été 日本.jpg"


def test_a_file_name_in_an_annotation_is_never_opened(voc):
    text = (voc / "VOC2007/Annotations/000005.xml").read_text()
    assert "<filename>/etc/" in text
    assert read_voc(voc).train[0].path == voc / "VOC2007/JPEGImages/000005.jpg"


BAD_LISTS = {
    "no such file": (None, ("cannot be read", "No such file")),
    "empty": ([], ("is empty",)),
    "cut between lines": (["000005", "000007"], ("trainval.txt", "list was cut", "'000012'")),
    "cut within a line": (["000005", "000007", "0000"], ("trainval.txt", "list was cut")),
    "twice": (["000005", "000007", "000012", "000005"], ("000005", "again")),
    "absolute": (["000005", "000007", "/etc/passwd"], ("'/etc/passwd'",)),
    "parent": (["000005", "000007", "../../x"], ("'../../x'",)),
    "hidden": (["000005", "000007", ".."], ("'..'",)),
    "backslash": (["000005", "000007", "a\\b"], ("'a\\\\b'",)),
}


@pytest.mark.parametrize(("lines", "parts"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_voc_refuses_a_bad_list(lines, parts, voc):
    path = write_list(voc / "VOC2007", "trainval", lines or [])
    if lines is None:
        path.unlink()
    refused(lambda: read_voc(voc), str(path), *parts, "unpack")


def test_voc_refuses_lists_that_do_not_fit_the_files(voc):
    base = voc / "VOC2007"
    write_list(base, "test", ["000001"])
    refused(lambda: read_voc(voc), "test.txt", "1 annotated images", "'000002'", "list was cut")
    write_list(base, "test", ["000001", "000002", "000005"])
    refused(lambda: read_voc(voc), "test.txt", "also in trainval.txt", "'000005'")
    write_list(base, "test", ["000001", "000002", "000003"])
    refused(lambda: read_voc(voc), "000003.jpg", "test.txt lists it", "1 of 3")
    (base / "ImageSets/Main/test.txt").write_bytes(b"000001\xff")
    refused(lambda: read_voc(voc), "test.txt", "not UTF-8")


@pytest.mark.parametrize("file", ["JPEGImages/2008_000002.jpg", "Annotations/2008_000002.xml"])
def test_voc_names_a_listed_file_that_is_missing(file, voc):
    (voc / "VOC2012" / file).unlink()
    refused(lambda: read_voc(voc), f"{voc}/VOC2012/{file}", "trainval.txt lists it", "unpack")


def test_voc_names_a_missing_year(voc):
    os.rename(voc / "VOC2012", voc / "other")
    refused(lambda: read_voc(voc.parent), str(voc), "VOC2012", "unpack")


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
BAD_XML = {
    "cut": (lambda text: text[:-20], "no well-formed XML"),
    "empty": (lambda text: "", "no well-formed XML"),
    "bomb": (lambda text: BOMB, "DOCTYPE"),
    "bomb in UTF-16": (lambda text: BOMB.encode("utf-16"), "DOCTYPE"),
    "DOCTYPE alone": (lambda text: "<!DOCTYPE annotation>" + text, "DOCTYPE"),
    "another root": (lambda text: "<x/>", "its root is 'x'"),
    "unknown encoding": (lambda text: '<?xml version="1.0" encoding="no"?>' + text, "no well-formed XML"),
    "class": (lambda text: text.replace("chair", "stool"), "'stool' is none of VOC's 20 classes"),
    "no class": (lambda text: text.replace("<name>chair</name>", ""), "without a name"),
    "no box": (lambda text: text.replace("bndbox", "box"), "'chair' has no bndbox"),
    "no number": (lambda text: text.replace("<xmin>4<", "<xmin>four<"), "no number xmin, but 'four'"),
    "not finite": (lambda text: text.replace("<xmin>4<", "<xmin>nan<"), "no number xmin, but 'nan'"),
    "no corner": (lambda text: text.replace("xmin>", "x>"), "no number xmin, but None"),
    "no area": (lambda text: text.replace("<xmin>4<", "<xmin>21<"), "without area"),
    "turned round": (lambda text: text.replace("<xmin>4<", "<xmin>40<"), "without area"),
    "outside": (lambda text: text.replace("<xmin>4<", "<xmin>62<").replace(">20<", ">90<"), "without area"),
    "size": (lambda text: text.replace("<width>60<", "<width>600<"), "600 x 40 pixels, but the image has 60 x 40"),
    "no size": (lambda text: text.replace("<width>60</width>", ""), "size has no number width"),
    "difficult": (lambda text: text.replace("cult>0<", "cult>maybe<"), "neither 0 nor 1"),
}


@pytest.mark.parametrize(("damage", "part"), BAD_XML.values(), ids=BAD_XML)
def test_voc_refuses_a_bad_annotation(damage, part, voc):
    path = voc / "VOC2007/Annotations/000005.xml"
    bad = damage(path.read_text())
    path.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
    refused(lambda: read_voc(voc), str(path), part, "restore this file")


@pytest.mark.parametrize("data", [b"", b"GIF89", b"\xff\xd8\xff"])
def test_voc_refuses_what_is_no_image(data, voc):
    path = voc / "VOC2007/JPEGImages/000005.jpg"
    path.write_bytes(data)
    refused(lambda: read_voc(voc), str(path), "not an image of")


@settings(max_examples=150)
@given(data=st.data())
def test_any_damage_to_an_annotation_is_one_error_or_none(data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    path = voc_xml(folder / "fuzz.xml", VOC_SIZE, [("person", 1, 2, 30, 30, True)])
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=4))
    path.write_bytes(damaged)
    try:
        said: object = read_annotation(path)
    except DataError as error:
        said = str(error)
    assert isinstance(said, Annotation) or "\n" not in str(said)


# --- frames


@pytest.mark.parametrize("orientation", [1, *ORIENTATIONS])
def test_boxes_turn_with_the_pixels(orientation, voc):
    """A black box is found where the reader says it is, whatever EXIF says."""
    path = voc / "VOC2007/JPEGImages/000005.jpg"
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[8:16, 16:40] = 0
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=100)
    voc_xml(voc / "VOC2007/Annotations/000005.xml", VOC_SIZE, [("cat", 16, 8, 40, 16, False)])
    left, top, right, bottom = read_voc(voc).train[0].boxes[0].astype(int)
    dark = decode(path.read_bytes())[..., 0] < 128
    assert dark[top:bottom, left:right].all()
    assert dark.sum() == (bottom - top) * (right - left) == 8 * 24


def test_boxes_drawn_on_the_upright_image_stay():
    boxes = np.array([[1.0, 2, 3, 4]])
    assert turn_upright(boxes, (40, 60), Frame((60, 40), 6)) is boxes
    assert turn_upright(boxes, None, Frame((60, 40), 6)).tolist() == [[36, 1, 38, 3]]
    with pytest.raises(ValueError, match="is for 60 x 41"):
        turn_upright(boxes, (60, 41), Frame((60, 40), 6))


@given(st.lists(st.tuples(*[st.floats(-100, 200)] * 4), max_size=6))
def test_what_clip_gives_lies_in_the_image_and_has_an_area(rows):
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    try:
        cut, count = clip(boxes, (100, 50))
    except ValueError:
        return
    assert (cut[:, :2] >= 0).all()
    assert (cut[:, 2:] <= (100, 50)).all()
    assert (cut[:, :2] < cut[:, 2:]).all()
    assert count == sum(row.tolist() != kept.tolist() for row, kept in zip(boxes, cut, strict=True))


# --- Cityscapes


@pytest.mark.parametrize("threads", [1, 3])
def test_cityscapes_is_what_was_put_there(threads, tmp_path):
    put = make_cityscapes(tmp_path)
    task = read_cityscapes(tmp_path, threads)
    assert task.classes == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert [image.id.split("/")[1:3] for image in task.train] == [["train", "aachen"]] * 2 + [["train", "bochum"]]
    assert [image.id.split("/")[1:3] for image in task.test] == [["val", "frankfurt"]] * 2
    assert told(task.train + task.test, task.classes) == put
    for found in task.train:
        assert found.path == tmp_path / found.id
        assert (found.boxes.dtype, found.labels.dtype, found.ignore.dtype) == (np.float32, np.int64, np.bool_)


def test_polygons_give_the_boxes_of_the_maps(city):
    before = read_cityscapes(city)
    for path in city.glob("gtFine/*/*/*_instanceIds.png"):
        path.unlink()
    assert digest(read_cityscapes(city)) == digest(before)


@settings(max_examples=40)
@given(st.lists(st.sampled_from([7, 24, 26, 29000, 24000, 24001, 26000, 31007, 33999]), max_size=40), st.integers(0, 9))
def test_map_boxes_are_those_of_a_slow_search(drawn, seed):
    values = np.zeros((20, 30), np.uint16)
    at = np.random.default_rng(seed).integers(0, values.size, len(drawn))
    values.flat[at] = drawn
    boxes, labels, crowd = map_boxes(values)
    expected = []
    for value in sorted(set(values.flat)):
        owner = value // 1000 if value >= 1000 else value
        if owner in (24, 26, 31, 33):
            ys, xs = np.nonzero(values == value)
            expected.append(
                ([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], (24, 26, 31, 33).index(owner), value < 1000)
            )
    assert boxes.tolist() == [box for box, _, _ in expected]
    assert labels.tolist() == [(0, 2, 5, 7)[place] for _, place, _ in expected]
    assert crowd.tolist() == [flag for _, _, flag in expected]


def test_more_instances_than_a_byte_counts_are_told_apart():
    values = np.zeros((40, 40), np.uint16)
    values.flat[:900] = 26000 + np.arange(900)
    boxes, _, _ = map_boxes(values)
    assert len(np.unique(boxes, axis=0)) == 900


def truth(root: Path, end: str) -> Path:
    return root / f"gtFine/train/bochum/bochum_000000_000019_gtFine_{end}"


def test_cityscapes_names_what_is_missing(city):
    refused(lambda: read_cityscapes(city / "no"), "leftImg8bit/train", "unpack leftImg8bit_trainvaltest.zip")
    truth(city, "instanceIds.png").unlink()
    truth(city, "polygons.json").unlink()
    refused(
        lambda: read_cityscapes(city), "gtFine/train", "bochum/bochum_000000_000019_gtFine_instanceIds.png", "unpack"
    )
    (city / "leftImg8bit/val/frankfurt/frankfurt_000001_000019_leftImg8bit.png").unlink()
    make_cityscapes(city / "again")
    (city / "again/leftImg8bit/val/frankfurt/frankfurt_000001_000019_leftImg8bit.png").unlink()
    refused(lambda: read_cityscapes(city / "again"), "leftImg8bit/val", "frankfurt_000001_000019_leftImg8bit.png")


def test_cityscapes_refuses_a_name_that_no_table_can_hold(city):
    for folder, end in (("leftImg8bit", "leftImg8bit.png"), ("gtFine", "gtFine_instanceIds.png")):
        try:
            os.rename(
                os.fsencode(city / folder / f"train/bochum/bochum_000000_000019_{end}"),
                os.fsencode(city / folder / "train/bochum/") + b"/b\xff_" + end.encode(),
            )
        except OSError:
            pytest.skip("this file system refuses such names itself")
    truth(city, "polygons.json").unlink()
    refused(lambda: read_cityscapes(city), "leftImg8bit/train", "rename it")


def save_map(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path)


BAD_MAPS = {
    "no image": (lambda path: path.write_bytes(b"x"), "no map of instances"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-60]), "no map of instances"),
    "8 bits": (lambda path: save_map(path, city_map().astype(np.uint8)), "mode L, not (64, 32) of 16 bits"),
    "another size": (lambda path: save_map(path, city_map()[:, 1:].copy()), "(63, 32) pixels"),
    "class": (lambda path: save_map(path, city_map() + np.uint16(9000)), "value 9000, which is neither"),
    "id": (lambda path: save_map(path, np.full((32, 64), 34, np.uint16)), "value 34, which is neither"),
}


@pytest.mark.parametrize(("damage", "part"), BAD_MAPS.values(), ids=BAD_MAPS)
def test_cityscapes_refuses_a_bad_map(damage, part, city):
    path = truth(city, "instanceIds.png")
    damage(path)
    refused(lambda: read_cityscapes(city), str(path), part, "restore")


def changed(**keys):
    return lambda annotation: {**annotation, **keys}


def with_object(**keys):
    """One more object; a key with None is left out."""
    added = {"label": "car", "polygon": [[1, 1], [5, 1], [5, 5]], **keys}
    return lambda annotation: {
        **annotation,
        "objects": [*annotation["objects"], {name: value for name, value in added.items() if value is not None}],
    }


BAD_JSON = {
    "no JSON": (lambda annotation: None, "lacks the key 'imgWidth'"),
    "no width": (lambda annotation: {"objects": []}, "lacks the key 'imgWidth'"),
    "no objects": (lambda annotation: {"imgWidth": 64, "imgHeight": 32}, "lacks the key 'objects'"),
    "objects": (changed(objects={}), "its objects are no list"),
    "size": (changed(imgWidth=2048), "is for '(2048, 32)' pixels"),
    "an object": (changed(objects=[7]), "lacks the key 'label'"),
    "no label": (with_object(label=None), "lacks the key 'label'"),
    "no polygon": (with_object(polygon=None), "lacks the key 'polygon'"),
    "class": (with_object(label="spaceship"), "'spaceship' is no class"),
    "group": (with_object(label="spaceshipgroup"), "is no class"),
    "label": (with_object(label=["car"]), "is no class"),
    "no number": (with_object(polygon=[[1, "2"], [3, 4], [5, 6]]), "its polygon is no list"),
    "one corner": (with_object(polygon=[[1, 2]]), "at least 2 (x, y)"),
    "not finite": (with_object(polygon=[[1, float("nan")], [3, 4]]), "far outside the image"),
    "huge": (with_object(polygon=[[10**400, 1], [3, 4]]), "far outside the image"),
    "outside": (with_object(polygon=[[70, 1], [80, 1], [80, 9]]), "'car', lies outside the image"),
}


@pytest.mark.parametrize(("damage", "part"), BAD_JSON.values(), ids=BAD_JSON)
def test_cityscapes_refuses_bad_polygons(damage, part, city):
    truth(city, "instanceIds.png").unlink()
    path = truth(city, "polygons.json")
    path.write_text(json.dumps(damage(city_polygons())))
    refused(lambda: read_cityscapes(city), str(path), part, "restore this file")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"imgWidth": ' + "1" * 5000])
def test_cityscapes_refuses_what_is_no_json(text, city):
    truth(city, "instanceIds.png").unlink()
    truth(city, "polygons.json").write_text(text)
    refused(lambda: read_cityscapes(city), str(truth(city, "polygons.json")), "restore this file")


# --- LogoDet-3K


@pytest.fixture
def logos(tmp_path) -> Path:
    make_logodet(tmp_path)
    return tmp_path / "LogoDet-3K"


@pytest.mark.parametrize("root", ["", "LogoDet-3K"])
def test_logodet_is_what_was_put_there(root, tmp_path):
    put = make_logodet(tmp_path)
    task = read_logodet(tmp_path / root, seed=0, classes=5, train=20)
    assert task.classes == sorted((name for name in LOGO_IMAGES if name != "Food/few"), key=os.fsencode)
    found = told(task.train + task.test, task.classes)
    assert found == {image_id: boxes for image_id, boxes in put.items() if not image_id.startswith("Food/few/")}
    assert not {image.id for image in task.train} & {image.id for image in task.test}
    for name in task.classes:
        assert sum(image.id.startswith(f"{name}/") for image in task.train) == 4
        assert (
            sum(image.id.startswith(f"{name}/") for image in task.test)
            == LOGO_IMAGES[name] - 4
            >= LOGO_IMAGES[name] / 5
        )
    assert task.skipped == []
    assert all(image.path == tmp_path / "LogoDet-3K" / image.id for image in task.train)


def test_brands_of_one_name_are_two_classes(logos):
    task = read_logodet(logos, seed=0, classes=5, train=5)
    labels = {image.id.rpartition("/")[0]: image.labels[0] for image in task.test}
    assert labels["Clothes/Amora"] != labels["Food/Amora"]


def test_training_images_are_spread_as_evenly_as_can_be(logos):
    task = read_logodet(logos, seed=0, classes=4, train=11)
    counts = sorted(sum(image.id.startswith(f"{name}/") for image in task.train) for name in task.classes)
    assert counts == [2, 3, 3, 3]


def test_a_seed_draws_classes_and_images(logos):
    drawn = [read_logodet(logos, seed, classes=2, train=4) for seed in (0, 0, 1, 2, 3)]
    assert digest(drawn[0]) == digest(drawn[1])
    assert len({tuple(task.classes) for task in drawn}) > 1
    assert len({digest(task) for task in drawn}) == 4


# printf '0|detection|Food/Amora' | b2sum -l 128; printf '0|Food/Amora|Food/Amora/1.jpg' | b2sum -l 128; ...
GOLDEN_LOGOS = (
    ["Clothes/Amora", "Clothes/new balance-1"],
    ["Clothes/Amora/1.jpg", "Clothes/Amora/3.jpg", "Clothes/new balance-1/4.jpg", "Clothes/new balance-1/9.jpg"],
)


def test_the_draw_of_logos_is_golden(logos):
    """Another draw would change every result on logos."""
    task = read_logodet(logos, seed=0, classes=2, train=4)
    assert (task.classes, [image.id for image in task.train]) == GOLDEN_LOGOS


BROKEN_LOGOS = {
    "no XML": (lambda text: text[:-30], "no well-formed XML"),
    "bomb": (lambda text: BOMB, "DOCTYPE"),
    "no box": (lambda text: text.replace("object>", "thing>"), "has no box"),
    "no area": (lambda text: text.replace("<xmin>1<", "<xmin>11<"), "without area"),
    "another brand": (lambda text: text.replace("<name>amora", "<name>adidas"), "names 'adidas' in the folder of"),
    "no number": (lambda text: text.replace("<xmin>1<", "<xmin>?<"), "no number xmin"),
    "size": (lambda text: text.replace("<width>50<", "<width>51<"), "51 x 30 pixels"),
}


@pytest.mark.parametrize(("damage", "part"), BROKEN_LOGOS.values(), ids=BROKEN_LOGOS)
def test_broken_logos_are_skipped_and_named(damage, part, logos):
    path = logos / "Food/Amora/1.xml"
    path.write_text(damage(path.read_text()))
    task = read_logodet(logos, seed=0, classes=5, train=15)
    [line] = task.skipped
    assert line.startswith(f"{path}: ")
    assert part in line
    assert "Food/Amora/1.jpg" not in {image.id for image in task.train + task.test}
    assert "Clothes/Amora/1.jpg" in {image.id for image in task.train + task.test}
    refused(lambda: read_logodet(logos, seed=0, classes=5, train=20), "4 of 6 brands", "unpack")


def test_logos_without_their_other_file_are_skipped_and_named(logos):
    (logos / "Food/Nestlé/1.xml").unlink()
    (logos / "Food/Nestlé/2.jpg").unlink()
    (logos / "Food/Nestlé/3.jpg").write_bytes(b"no image")
    (logos / "Food/Nestlé/notes.txt").write_text("not of the data set")
    (logos / "Food/Nestlé/._4.jpg").write_bytes(b"left by a Mac")
    skipped = read_logodet(logos, seed=0, classes=5, train=15).skipped
    assert [line.split(": ")[0] for line in skipped] == [
        str(logos / f"Food/Nestlé/{n}") for n in ("1.xml", "2.jpg", "3.jpg")
    ]


def test_a_logo_without_a_stated_size_is_cut_at_the_edge_of_its_image(logos):
    path = logos / "Food/Amora/1.xml"
    voc_xml(path, (0, 0), [("Amora", 40, 3, 60, 30, False)])
    assert image(path.with_suffix(".jpg"), LOGO_SIZE).is_file()
    task = read_logodet(logos, seed=0, classes=5, train=20)
    [found] = [found for found in task.train + task.test if found.id == "Food/Amora/1.jpg"]
    assert found.boxes.tolist() == [[40, 3, 50, 30]]
    assert task.clipped == 1


def test_what_is_no_logodet_is_refused(logos, tmp_path):
    refused(lambda: read_logodet(tmp_path / "no", 0), "no such folder", "<Super>/<Brand>")
    (tmp_path / "empty").mkdir()
    refused(lambda: read_logodet(tmp_path / "empty", 0), "has no brands")
    refused(lambda: read_logodet(logos, 0), "0 of 6 brands have the 10 training images", "100 are needed")
    refused(lambda: read_logodet(logos, 0, classes=3, train=2), "2 training images for 3", error=ConfigError)


def test_a_written_split_is_read_back(logos, tmp_path):
    task = read_logodet(logos, seed=4, classes=3, train=9)
    write_split(task, tmp_path / "split.json")
    assert digest(read_split(tmp_path, tmp_path / "split.json")) == digest(task)
    (logos / "Food/Amora/6.jpg").write_bytes(b"a new image in no split")
    assert digest(read_split(logos, tmp_path / "split.json")) == digest(task)


SPLIT = {
    "classes": ["Clothes/Amora", "Food/Amora"],
    "train": ["Clothes/Amora/1.jpg", "Food/Amora/1.jpg"],
    "test": ["Clothes/Amora/2.jpg", "Food/Amora/2.jpg"],
}
BAD_SPLITS = {
    "no key": ({"train": None}, "'train' is no list of names"),
    "empty": ({"test": []}, "'test' is no list of names"),
    "no names": ({"classes": [1]}, "'classes' is no list of names"),
    "twice": ({"train": ["Food/Amora/1.jpg"] * 2}, "holds 'Food/Amora/1.jpg' twice"),
    "both": ({"test": SPLIT["train"]}, "are in train and in test"),
    "class": ({"train": ["Food/Nestlé/1.jpg"]}, "is no <Super>/<Brand>/<n>.jpg"),
    "absolute": ({"classes": ["/etc"]}, "the class '/etc' is not written"),
    "parent class": ({"classes": ["Food/.."]}, "the class 'Food/..' is not written"),
    "parent": ({"train": ["Food/Amora/../../x.jpg"]}, "is no <Super>/<Brand>/<n>.jpg"),
    "bare": ({"train": SPLIT["train"][:1]}, "'train' has no image of the class 'Food/Amora'"),
}


@pytest.mark.parametrize(("change", "part"), BAD_SPLITS.values(), ids=BAD_SPLITS)
def test_a_bad_split_is_refused(change, part, logos, tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({**SPLIT, **change}))
    refused(lambda: read_split(logos, path), str(path), part)


def test_a_split_of_images_that_are_missing_or_broken_is_refused(logos, tmp_path):
    path = tmp_path / "split.json"
    refused(lambda: read_split(logos, path), str(path), "no split can be read")
    path.write_text("[1]")
    refused(lambda: read_split(logos, path), str(path), "'classes' is no list")
    path.write_text(json.dumps(SPLIT))
    assert len(read_split(logos, path).train) == 2
    (logos / "Food/Amora/2.xml").write_text("<annotation>")
    refused(lambda: read_split(logos, path), "Food/Amora/2.xml", "no well-formed XML")
    (logos / "Food/Amora/2.jpg").unlink()
    (logos / "Food/Amora/2.xml").write_bytes((logos / "Food/Amora/1.xml").read_bytes())
    refused(lambda: read_split(logos, path), "Food/Amora/2.jpg", "No such file")


# --- the draw, instances, digest


def listed(count: int) -> list[Boxed]:
    boxes = np.zeros((0, 4), np.float32)
    return [Boxed(f"a/{n}.jpg", Path("a"), boxes, np.zeros(0, np.int64), np.zeros(0, np.bool_)) for n in range(count)]


@given(st.permutations(range(12)), st.integers(1, 12))
def test_a_draw_does_not_depend_on_the_listing_and_nests(order, count):
    train = listed(12)
    drawn = draw_images([train[n] for n in order], count, seed=5)
    assert [image.id for image in drawn] == [image.id for image in draw_images(train, 12, seed=5)][:count]


# for n in 0 1 2 3 4 5; do printf "0|detection|a/$n.jpg" | b2sum -l 128; done
GOLDEN_DRAW = ["a/3.jpg", "a/4.jpg", "a/1.jpg", "a/0.jpg"]


def test_draws_are_golden():
    """Another order would change every detection result there is."""
    assert [image.id for image in draw_images(listed(6), 4, seed=0)] == GOLDEN_DRAW


@pytest.mark.parametrize("count", [0, -1, 7])
def test_a_draw_of_more_than_there_are_is_refused(count):
    refused(lambda: draw_images(listed(6), count, 0), str(count), "of 6")


def test_every_box_that_counts_is_an_instance(voc, city):
    found = instances(read_voc(voc).train)
    assert [instance.id for instance in found[:3]] == [
        *("VOC2007/JPEGImages/000005.jpg#0", "VOC2007/JPEGImages/000005.jpg#1", "VOC2007/JPEGImages/000007.jpg#0")
    ]
    [first] = [found for found in instances(read_cityscapes(city).train) if "bochum" in found.id and "#1" in found.id]
    assert first.box.tolist() == list(CITY_BOXES[1][1:5])
    assert not any(found.id.endswith("#0") for found in instances(read_cityscapes(city).train))  # the crowd


def test_digest_stays_when_the_data_moves_and_changes_with_what_it_holds(voc, tmp_path):
    before = digest(read_voc(voc))
    voc.rename(tmp_path / "moved")
    task = read_voc(tmp_path / "moved")
    assert digest(task) == before
    first = task.train[0]
    others = [
        DetectionTask([*task.classes, "x"], task.train, task.test),
        DetectionTask(task.classes, task.train[1:], task.test),
        DetectionTask(task.classes, task.train[1:], [*task.test, first]),
        *(
            DetectionTask(task.classes, [first._replace(**change), *task.train[1:]], task.test)
            for change in (
                {"boxes": first.boxes + 1},
                {"labels": first.labels + 1},
                {"ignore": ~first.ignore},
                {"id": "x"},
            )
        ),
    ]
    assert len({digest(other) for other in others} | {before}) == len(others) + 1


# --- targets and crops


def test_targets_are_torchvisions(voc):
    found = read_voc(voc).train[1]
    target = to_target(found)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].dtype == target["iscrowd"].dtype == torch.int64
    assert target["labels"].tolist() == (found.labels + 1).tolist()
    assert target["iscrowd"].tolist() == found.ignore.tolist()
    assert target["image_id"] == found.id
    assert to_target(listed(1)[0])["boxes"].shape == (0, 4)


def test_training_leaves_out_what_is_to_be_ignored(voc):
    task = read_voc(voc)
    assert sum(image.ignore.sum() for image in task.train) > 0
    for training in (True, False):
        images = DetectionImages(task.train, training)
        assert len(images) == 6
        boxes = [images[place][1] for place in range(6)]
        assert sum(target["iscrowd"].sum().item() for target in boxes) == (0 if training else 4)
        assert sum(len(target["boxes"]) for target in boxes) == (8 if training else 12)
    pixels, _ = images[0]
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 40, 60)
    assert np.array_equal(pixels.permute(1, 2, 0), decode(task.train[0].path.read_bytes()))


def test_an_image_that_broke_later_is_named(voc):
    task = read_voc(voc)
    task.train[0].path.write_bytes(b"x")
    refused(lambda: DetectionImages(task.train, training=True)[0], str(task.train[0].path), "replace it")


def test_torchvisions_detector_takes_the_targets(voc):
    images = DetectionImages(read_voc(voc).train, training=True)
    pixels, targets = zip(*(images[place] for place in range(len(images))), strict=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = torch.nn.Conv2d(3, 8, 3, stride=8)  # it has out_channels, which the detector asks for
        model = FasterRCNN(
            backbone,
            num_classes=21,
            min_size=40,
            max_size=60,
            rpn_anchor_generator=AnchorGenerator(((8, 16, 32),), ((1.0,),)),
            box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
        )
        losses = model([image.float() / 255 for image in pixels], list(targets))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_a_crop_is_the_box_resized_as_the_pools_images():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    crop = crop_instance(pixels, np.array([5, 6, 21, 30], np.float32), 8)
    assert crop.dtype == np.uint8
    assert crop.shape == (8, 8, 3)
    expected = Image.fromarray(pixels[6:30, 5:21]).resize((8, 8), Image.Resampling.BICUBIC)
    assert np.abs(crop.astype(int) - np.asarray(expected)).max() <= 1
    same = crop_instance(pixels, np.array([0, 0, 8, 8], np.float32), 8)
    assert np.array_equal(same, pixels[:8, :8])


@pytest.mark.parametrize(
    "box", [(3.2, 4.1, 3.4, 4.9), (39.5, 29.5, 40, 30), (40, 30, 40, 30), (3, 4, 3, 4), (0, 0, 0.1, 0.1)]
)
def test_a_box_smaller_than_a_pixel_gives_that_pixel(box):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    crop = crop_instance(pixels, np.array(box, np.float32), 5)
    row, column = min(int(box[1]), 29), min(int(box[0]), 39)
    assert (crop == pixels[row, column]).all()
