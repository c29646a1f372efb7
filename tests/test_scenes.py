"""Scenes of the embedded world: pure drawing, honest boxes, a pool that holds them, a detection task of real files."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sept.data.detection.annotation import read_annotation
from sept.data.detection.patterns_boxes import read_patterns_boxes
from sept.data.patterns.boxed import annotation, class_name, draw_boxed_task
from sept.data.patterns.domains import DOMAINS, TARGETS, classes
from sept.data.patterns.drawing import MIXTURES, draw_pool
from sept.data.patterns.scenes import GAP, IMAGE, PLACES, WALL, Board, draw_scene
from sept.errors import ConfigError, DataError

IMAGES, SEED, SIDE = 600, 3, 64
TARGET = TARGETS[2]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("pool")
    return folder, draw_pool(folder, "patterns_scenes", IMAGES, 32, SEED, 1)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    assert draw_boxed_task(folder, TARGET, 2, 1, SIDE, SEED, 1) == {"train": 32, "test": 16}
    return folder


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(PLACES)), st.integers(0, 15), st.integers(0, 9), st.integers(0, 10**12))
def test_a_scene_is_a_pure_function_of_its_arguments(domain, label, seed, index):
    pixels, boards = draw_scene(domain, label, SIDE, seed, index)
    again, same = draw_scene(domain, label, SIDE, seed, index)
    assert (pixels.shape, pixels.dtype) == ((SIDE, SIDE, 3), np.uint8)
    np.testing.assert_array_equal(pixels, again)
    assert boards == same
    assert not np.array_equal(pixels, draw_scene(domain, label, SIDE, seed, index + 1)[0])
    assert not np.array_equal(pixels, draw_scene(domain, label, SIDE, seed + 1, index)[0])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PLACES)), st.integers(0, 15), st.sampled_from([32, 64, 96]), st.integers(0, 10**6))
def test_boards_of_a_whole_wall_are_apart_and_inside_and_the_first_has_the_label(domain, label, side, index):
    _, boards = draw_scene(domain, label, side, 0, index)
    assert (boards[0].domain, boards[0].label) == (domain, label)
    assert all(other.domain in (domain, *DOMAINS) and 0 <= other.label < classes(other.domain) for other in boards)
    boxes = np.array([board.box for board in boards])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= side).all()
    gaps = np.maximum(boxes[:, None, :2] - boxes[None, :, 2:], boxes[None, :, :2] - boxes[:, None, 2:]).max(2)
    gaps[np.diag_indices(len(boxes))] = side
    assert gaps.min() >= GAP * side / WALL - 1


def test_a_box_holds_its_board_and_nothing_else():
    """Gears hang on dark boards: what changes with the label is inside the box of the first board."""
    for index in range(5):
        one, boards = draw_scene(TARGET, 0, SIDE, 0, index)
        left, top, right, bottom = boards[0].box
        crop = one[top:bottom, left:right].astype(int)
        dark = (crop.max(2) < 90).mean(), (np.abs(crop - (54, 58, 66)).sum(2) < 90).mean()
        assert min(dark) > 0.2, (index, dark)


def test_a_near_camera_shows_fewer_and_larger_boards():
    far = [board for i in range(40) for board in draw_scene("bugs", 0, 32, 0, i)[1]]
    near = [board for i in range(40) for board in draw_scene("bugs", 0, 32, 0, i, (IMAGE, IMAGE))[1]]
    assert 0 < len(near) < len(far)
    assert 1.3 * mean_area(far) < mean_area(near)


def mean_area(boards: list[Board]) -> float:
    return float(np.mean([(right - left) * (bottom - top) for left, top, right, bottom in (b.box for b in boards)]))


def test_a_pool_with_scenes_holds_the_same_single_images_as_one_without(tmp_path, pool):
    folder, counts = pool
    scenes = int(IMAGES * MIXTURES["patterns_scenes"].scenes)
    assert counts["scenes"] == scenes == IMAGES - sum(counts[d] for d in DOMAINS)
    plain = draw_pool(tmp_path, "patterns", IMAGES - scenes, 32, SEED, 1)
    assert plain == counts | {"wild": counts["wild"] - scenes, "scenes": 0}
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scenic = {(r["shard"], r["member"]): r["domain"] for r in rows if r["domain"].endswith(" scene")}
    assert len(rows) == IMAGES
    assert len(scenic) == scenes
    assert {domain.removesuffix(" scene") for domain in scenic.values()} == set(PLACES)
    assert all(shard.startswith("wild-") for shard, _ in scenic)
    singles, others = members(folder, set(scenic)), members(tmp_path, set())
    assert sorted(singles) == sorted(others)


def members(folder: Path, without: set[tuple[str, str]]) -> list[bytes]:
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [tar.extractfile(m).read() for m in tar if (path.name, m.name) not in without]
    return found


def test_pools_and_tasks_do_not_depend_on_the_number_of_workers(tmp_path, pool, task):
    draw_pool(tmp_path / "pool", "patterns_scenes", IMAGES, 32, SEED, 2)
    assert bytes_of(tmp_path / "pool") == bytes_of(pool[0])
    draw_boxed_task(tmp_path / "task", TARGET, 2, 1, SIDE, SEED, 2)
    assert bytes_of(tmp_path / "task") == bytes_of(task)


def test_a_task_is_read_back_as_it_was_drawn(task):
    read = read_patterns_boxes(task)
    assert (len(read.train), len(read.test), read.clipped) == (32, 16, 0)
    assert read.classes == [class_name(TARGET, label) for label in range(16)]
    for image in (*read.train, *read.test):
        split, n, label = image.path.stem.split("_")
        index = (1 if split == "trainval" else 2) * (1 << 40) + int(n)
        pixels, boards = draw_scene(TARGET, int(label), SIDE, SEED, index)
        mine = [board for board in boards if board.domain == TARGET]
        np.testing.assert_array_equal(image.boxes, np.array([board.box for board in mine], np.float32))
        assert image.labels.tolist() == [board.label for board in mine]
        assert not image.ignore.any()
        with Image.open(io.BytesIO(image.path.read_bytes())) as stored:
            assert (stored.format, stored.size) == ("JPEG", (SIDE, SIDE))
            assert np.abs(np.asarray(stored).astype(int) - pixels).mean() < 12
    assert {label for image in read.train for label in image.labels.tolist()} == set(range(16))


def test_several_objects_hang_in_most_scenes(task):
    counts = [len(image.boxes) for image in read_patterns_boxes(task).train]
    assert min(counts) >= 1
    assert np.mean(np.array(counts) > 1) > 0.8


def test_a_task_shares_no_image_with_the_pool_nor_train_with_test(pool, task):
    images = [data for name, data in bytes_of(task).items() if name.endswith(".jpg")]
    assert len(set(images)) == len(images) == 48
    assert not set(images) & set(members(pool[0], set()))


def test_boxes_count_from_one_in_the_annotation(tmp_path):
    path = tmp_path / "a.xml"
    path.write_bytes(annotation("a.jpg", 40, [Board("gears", 7, (0, 5, 20, 40))]))
    found = read_annotation(path)
    assert found.size == (40, 40)
    assert [tuple(each) for each in found.objects] == [("gears-07", (1.0, 6.0, 20.0, 40.0), False)]


def damaged(task: Path, folder: Path, name: str, change) -> Path:
    for path, data in bytes_of(task).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    change(folder / name)
    return folder


def replace(old: bytes, new: bytes):
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new, 1))


TRAINVAL = "ImageSets/Main/trainval.txt"


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("classes.txt", Path.unlink, "classes.txt: no list"),
        ("classes.txt", lambda p: p.write_bytes(b""), "classes.txt: is empty"),
        ("classes.txt", replace(b"gears-03", b"gears-02"), "classes.txt: line 4, 'gears-02', is there twice"),
        ("classes.txt", replace(b"gears-00\n", b""), "'gears-00' is none of the 15 classes"),
        (TRAINVAL, lambda p: p.write_bytes(b"\xff\n"), "trainval.txt: no list of names can be read there"),
        (TRAINVAL, replace(b"trainval_0000_00", b"../../etc/passwd"), "is no bare name"),
        (TRAINVAL, replace(b"trainval_0000_00", b"trainval_0009_00"), "trainval_0009_00"),
        (TRAINVAL, replace(b"trainval_0000_00", b"test_0000_00"), "'test_0000_00' is in trainval.txt, too"),
        ("JPEGImages/test_0000_05.jpg", Path.unlink, "test_0000_05.jpg"),
        ("JPEGImages/test_0000_05.jpg", lambda p: p.write_bytes(b"no image"), "test_0000_05.jpg"),
        ("Annotations/test_0000_05.xml", replace(b"</size>", b""), "test_0000_05.xml: no well-formed XML"),
        ("Annotations/test_0000_05.xml", replace(b"<width>64", b"<width>63"), "test_0000_05.xml: is for 63 x 64"),
    ],
)
def test_damage_is_told_with_the_file(tmp_path, task, name, change, told):
    with pytest.raises(DataError) as caught:
        read_patterns_boxes(damaged(task, tmp_path, name, change))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_box_over_the_edge_is_cut_and_counted(tmp_path, task):
    first = next(iter(sorted(name for name in bytes_of(task) if name.endswith(".xml"))))
    xmax = read_annotation(task / first).objects[0].box[2]
    change = replace(b"<xmax>%d" % xmax, b"<xmax>80")
    assert read_patterns_boxes(damaged(task, tmp_path, first, change)).clipped == 1


def test_impossible_requests_are_told_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="bugs"):
        draw_boxed_task(tmp_path, "bugs", 1, 1, SIDE, 0, 1)
    with pytest.raises(ConfigError, match=r"images=235 .* 236 or more"):
        draw_pool(tmp_path, "patterns_scenes", 235, 32, 0, 1)
