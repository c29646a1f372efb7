"""Tasks with boxes and masks are read from the archives that their data sets are published in as from what those hold:
equal examples and equal pixels; what is wrong with an archive or a member is told by name."""

import io
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from detection_layouts import make_cityscapes, make_logodet, make_voc
from segmentation_layouts import make_ade20k, make_voc_masks

from sept.data.detection.boxes import DetectionTask, instances
from sept.data.detection.cityscapes import read_cityscapes
from sept.data.detection.logodet import read_logodet
from sept.data.detection.voc import read_voc
from sept.data.labelled import InstanceReader
from sept.data.segmentation.ade20k import read_ade20k
from sept.data.segmentation.masks import SegmentationTask, check_masks, read_masked
from sept.data.segmentation.voc import read_voc_masks
from sept.data.sources.reader import Member, read_labelled
from sept.errors import DataError

TRAIN07, TEST07, VOC12 = "VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar", "VOCtrainval_11-May-2012.tar"
CITY, TRUTH = "leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"
ADE, LOGO = "ADEChallengeData2016.zip", "LogoDet-3K.zip"


def of_voc07(tested: bool, name: str) -> bool:
    return name.startswith("VOCdevkit/VOC2007/") and tested == (
        Path(name).stem in ("000001", "000002", "test", "chair_test")
    )


def below(folder: str, name: str) -> bool:
    return name.startswith(f"{folder}/")


class Kind(NamedTuple):
    """How a miniature is made and read, and which of its files each official archive holds."""

    make: Callable
    read: Callable
    archives: dict[str, Callable[[str], bool]]


VOC_2012 = {VOC12: partial(below, "VOCdevkit/VOC2012")}
KINDS = {
    "voc": Kind(make_voc, read_voc, {TRAIN07: partial(of_voc07, False), TEST07: partial(of_voc07, True), **VOC_2012}),
    "cityscapes": Kind(
        make_cityscapes, read_cityscapes, {CITY: partial(below, "leftImg8bit"), TRUTH: partial(below, "gtFine")}
    ),
    "logodet": Kind(
        make_logodet, partial(read_logodet, seed=0, classes=5, train=15), {LOGO: partial(below, "LogoDet-3K")}
    ),
    "voc_masks": Kind(make_voc_masks, read_voc_masks, VOC_2012),
    "ade20k": Kind(make_ade20k, read_ade20k, {ADE: partial(below, "ADEChallengeData2016")}),
}


def pack(archive: Path, files: dict[str, bytes]) -> None:
    """Tars plain and zips deflated, as they are published; in zips lie files that no reader wants, too."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in {"README": b"see the paper", "__MACOSX/._a.jpg": b"x", **files}.items():
                packed.writestr(name, data)
        return
    with tarfile.open(archive, "w") as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))


def packed(kind: str, tmp_path: Path, changes: dict[str, bytes | None] | None = None) -> tuple[Path, Path]:
    """The folder of the loose files, and one of the archives, in which files have other bytes, or are left out."""
    make, _, archives = KINDS[kind]
    loose, there = tmp_path / "loose", tmp_path / "packed"
    there.mkdir()
    make(loose)
    files = {
        path.relative_to(loose).as_posix(): path.read_bytes() for path in sorted(loose.rglob("*")) if path.is_file()
    }
    assert not (changes or {}).keys() - files.keys()
    files = {name: data for name, data in {**files, **(changes or {})}.items() if data is not None}
    for archive, holds in archives.items():
        pack(there / archive, {name: data for name, data in files.items() if holds(name)})
    return loose, there


def content(task: DetectionTask | SegmentationTask) -> list:
    """All that a training or a test gets of a task."""
    if isinstance(task, DetectionTask):
        found = [
            (*map(np.ndarray.tolist, (image.boxes, image.labels, image.ignore)), read_labelled(image.path).tolist())
            for image in [*task.train, *task.test]
        ]
    else:
        found = [
            tuple(map(np.ndarray.tolist, read_masked(image, len(task.classes)))) for image in [*task.train, *task.test]
        ]
    return [task.identity, task.classes, [[image.id for image in split] for split in (task.train, task.test)], found]


@pytest.mark.parametrize("kind", KINDS)
def test_archives_are_the_task_of_what_they_hold(kind, tmp_path):
    loose, there = packed(kind, tmp_path)
    expected, found = (KINDS[kind].read(root) for root in (loose, there))
    assert all(type(image.path) is Member for image in [*found.train, *found.test])
    assert content(found) == content(expected)
    sent = pickle.dumps(found.train[:1])  # as data workers are given it
    assert len(sent) < 2_000
    assert content(type(found)(found.classes, pickle.loads(sent), []))[3] == content(found)[3][:1]


def test_archives_may_lie_beside_what_was_unpacked_of_others(tmp_path):
    loose, there = packed("cityscapes", tmp_path)
    (loose / "gtFine").rename(there / "gtFine")
    (there / TRUTH).unlink()
    task = read_cityscapes(there)
    assert {type(image.path) for image in task.train} == {Member}
    expected = content(task)
    (loose / "leftImg8bit").rename(there / "leftImg8bit")
    (there / CITY).write_bytes(b"left there, cut")
    assert content(read_cityscapes(there)) == expected


def test_one_part_of_voc_may_be_unpacked_and_the_others_packed(tmp_path):
    loose, there = packed("voc", tmp_path)
    expected = content(read_voc(loose))
    for name in filter(partial(of_voc07, True), [path.relative_to(loose).as_posix() for path in loose.rglob("*.*")]):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (loose / name).rename(there / name)
    (there / TEST07).unlink()
    task = read_voc(there)
    assert content(task) == expected
    assert [{type(image.path) is Member for image in split} for split in (task.train, task.test)] == [{True}, {False}]


def test_boxes_of_an_archive_are_the_same_queries(tmp_path):
    loose, there = (instances(read_voc(root).train) for root in packed("voc", tmp_path))
    assert [box.id for box in loose] == [box.id for box in there]
    for place in range(len(loose)):
        assert np.array_equal(*(InstanceReader(boxes, 16)(place) for boxes in (loose, there)))


def told(work: Callable, archive: Path, member: str, said: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(f'{archive}, {member}')}: .*{said}") as refused:
        work()
    assert "\n" not in str(refused.value)


VOC_07, VOC_12 = "VOCdevkit/VOC2007", "VOCdevkit/VOC2012"
CITY_TRAIN = "train/bochum/bochum_000000_000019"
MISSING = [
    ("voc", TRAIN07, f"{VOC_07}/JPEGImages/000005.jpg", "no such file, though trainval.txt lists it"),
    ("voc", TEST07, f"{VOC_07}/Annotations/000002.xml", "no such file, though test.txt lists it"),
    ("voc", TEST07, f"{VOC_07}/ImageSets/Main/test.txt", "cannot be read .no such file in the archive."),
    ("voc_masks", VOC12, f"{VOC_12}/SegmentationClass/2007_000033.png", "no such file, though val.txt lists it"),
    ("ade20k", ADE, "ADEChallengeData2016/images/training/ADE_train_00000001.jpg", "no such file, though its mask"),
    ("ade20k", ADE, "ADEChallengeData2016/annotations/validation/ADE_val_00000002.png", "no such file, though its"),
    ("ade20k", ADE, "ADEChallengeData2016/objectInfo150.txt", "cannot be read .no such file in the archive."),
]


@pytest.mark.parametrize(("kind", "archive", "member", "said"), MISSING)
def test_a_member_that_an_archive_lacks_is_named(kind, archive, member, said, tmp_path):
    _, there = packed(kind, tmp_path, {member: None})
    told(lambda: KINDS[kind].read(there), there / archive, member, said)


@pytest.mark.parametrize(
    ("archive", "folder", "ends"),
    [
        (CITY, "leftImg8bit", ["_leftImg8bit.png"]),
        (TRUTH, "gtFine", ["_gtFine_instanceIds.png", "_gtFine_polygons.json"]),
    ],
)
def test_a_file_that_a_zip_of_cityscapes_lacks_is_named(archive, folder, ends, tmp_path):
    _, there = packed("cityscapes", tmp_path, dict.fromkeys(f"{folder}/{CITY_TRAIN}{end}" for end in ends))
    said = f"bochum/bochum_000000_000019{ends[0]}.* is missing"
    told(lambda: read_cityscapes(there), there / archive, f"{folder}/train", said)


BROKEN = [
    ("voc", TRAIN07, f"{VOC_07}/JPEGImages/000005.jpg", "not an image"),
    ("voc", VOC12, f"{VOC_12}/Annotations/2008_000002.xml", "no well-formed XML"),
    ("cityscapes", CITY, f"leftImg8bit/{CITY_TRAIN}_leftImg8bit.png", "not an image"),
    ("cityscapes", TRUTH, f"gtFine/{CITY_TRAIN}_gtFine_instanceIds.png", "no map of instances"),
    ("voc_masks", VOC12, f"{VOC_12}/SegmentationClass/2007_000039.png", "not a whole PNG"),
    ("voc_masks", VOC12, f"{VOC_12}/JPEGImages/2007_000039.jpg", "not an image"),
    ("ade20k", ADE, "ADEChallengeData2016/annotations/training/ADE_train_00000001.png", "not a whole PNG"),
    ("ade20k", ADE, "ADEChallengeData2016/sceneCategories.txt", "is not UTF-8"),
]


def used(kind: str, root: Path) -> None:
    """The task is read, and for a segmenter its masks are checked, as before a training."""
    task = KINDS[kind].read(root)
    if isinstance(task, SegmentationTask):
        check_masks(task.train, len(task.classes), threads=1)


@pytest.mark.parametrize(("kind", "archive", "member", "said"), BROKEN)
def test_a_member_that_is_not_what_it_should_be_is_named(kind, archive, member, said, tmp_path):
    _, there = packed(kind, tmp_path, {member: b"\xff\xfenothing of the kind"})
    told(lambda: used(kind, there), there / archive, member, said)


@pytest.mark.parametrize(("kind", "archive", "member"), [each[:3] for each in BROKEN if each[1].endswith(".zip")])
def test_bytes_of_a_zip_that_changed_are_told_by_its_check_sum(kind, archive, member, tmp_path):
    _, there = packed(kind, tmp_path)
    with zipfile.ZipFile(there / archive) as whole:
        info = whole.getinfo(member)
    data = bytearray((there / archive).read_bytes())
    data[info.header_offset + 30 + len(member) + info.compress_size // 2] ^= 255
    (there / archive).write_bytes(data)
    told(lambda: used(kind, there), there / archive, member, "damaged: ")


def test_a_logo_that_is_broken_in_the_zip_is_left_out_and_named(tmp_path):
    member = "LogoDet-3K/Clothes/Amora/3.xml"
    loose, there = packed("logodet", tmp_path, {member: b"<annotation>"})
    (loose / member).write_bytes(b"<annotation>")
    expected, found = (KINDS["logodet"].read(root) for root in (loose, there))
    assert content(found) == content(expected)
    [line] = found.skipped
    assert line.startswith(f"{there / LOGO}, {member}: no well-formed XML")


def test_an_image_that_broke_after_the_listing_is_named(tmp_path):
    _, there = packed("voc", tmp_path)
    image = read_voc(there).train[0]
    with open(there / TRAIN07, "r+b") as file:
        file.seek(image.path.offset)
        file.write(bytes(image.path.size))
    told(lambda: read_labelled(image.path), there / TRAIN07, f"VOCdevkit/{image.id}", "not an image.*never skipped")


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_archive_and_one_that_is_absent_are_named(kind, tmp_path):
    _, there = packed(kind, tmp_path)
    for archive in KINDS[kind].archives:
        whole = (there / archive).read_bytes()
        (there / archive).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=rf"^{re.escape(str(there / archive))}: (damaged|cut)"):
            KINDS[kind].read(there)
        (there / archive).unlink()
        with pytest.raises(DataError, match=f"^{re.escape(str(there))}[^\n]*{re.escape(archive.split('.')[0])}[^\n]*$"):
            KINDS[kind].read(there)
        (there / archive).write_bytes(whole)
