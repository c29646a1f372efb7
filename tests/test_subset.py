"""A packed subset gives back the pixels it was given, shrunk to its bound and no further, and notices damage."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from sept.data.subset import Subset, shrink, write_subset
from sept.errors import DataError

pixels = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))


def smooth(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / (5 + c)) + np.cos(columns / (7 + c)) for c in range(3)]
    return np.rint(127 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(images=st.lists(pixels, min_size=1, max_size=6))
def test_images_within_the_bound_come_back_unchanged(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("subset")
    facts = write_subset(folder, ((7 * n, image) for n, image in enumerate(images)), max_short_side=12)
    subset = Subset.open(folder)
    assert facts == {"images": len(images), "bytes": sum(image.size for image in images)}
    assert len(subset) == len(images)
    assert subset.ids.tolist() == [7 * n for n in range(len(images))]
    for n, image in enumerate(images):
        assert subset.image(n).dtype == np.uint8
        assert np.array_equal(subset.image(n), image)
    alike = len({image.shape for image in images}) == 1
    stacked = subset.stacked()
    assert (stacked is not None) == alike
    if stacked is not None:
        assert np.array_equal(stacked, np.stack(images))


@pytest.mark.parametrize(
    ("size", "bound", "expected"),
    [((40, 60), 20, (20, 30)), ((61, 40), 20, (30, 20)), ((40, 40), 39, (39, 39)), ((1, 50), 1, (1, 50))],
)
def test_the_shorter_side_is_bounded_and_the_shape_kept(size, bound, expected):
    assert shrink(smooth(*size), bound).shape == (*expected, 3)


def test_smaller_images_are_not_enlarged():
    image = smooth(10, 30)
    assert np.array_equal(shrink(image, 10), image)
    assert np.array_equal(shrink(image, 500), image)


def test_shrinking_is_antialiased():
    board = np.tile(np.kron([[0, 255], [255, 0]], np.ones((1, 1))), (32, 32)).astype(np.uint8)[..., None].repeat(3, 2)
    assert np.abs(shrink(board, 8).astype(int) - 127).max() <= 2  # a fine chessboard is grey from afar
    image = smooth(96, 128)
    other = resize(torch.from_numpy(image).permute(2, 0, 1), [24, 32], InterpolationMode.BICUBIC, antialias=True)
    assert np.abs(shrink(image, 24).astype(int) - other.permute(1, 2, 0).numpy()).max() <= 2


@pytest.fixture
def folder(tmp_path) -> Path:
    write_subset(tmp_path, [(3, smooth(4, 5)), (1, smooth(6, 5))], max_short_side=64)
    return tmp_path


def test_a_subset_is_mapped_read_only_and_goes_to_workers(folder):
    subset = Subset.open(folder)
    assert not subset.image(0).flags.writeable
    assert subset.image(1).base is not None
    again = pickle.loads(pickle.dumps(subset))
    assert len(pickle.dumps(subset)) < 500
    assert np.array_equal(again.image(1), smooth(6, 5))


def test_stacked_is_a_view(tmp_path):
    write_subset(tmp_path, [(n, smooth(4, 4)) for n in range(3)], max_short_side=64)
    subset = Subset.open(tmp_path)
    stacked = subset.stacked()
    assert stacked is not None
    assert np.shares_memory(stacked, subset.image(2))


@pytest.mark.parametrize("position", [-1, 2])
def test_positions_outside_are_refused(position, folder):
    with pytest.raises(IndexError, match="subset of 2"):
        Subset.open(folder).image(position)


@pytest.mark.parametrize("name", ["pixels.bin", "index.npy"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_cut_file_is_refused(name, kept, folder):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DataError, match="store repair"):
        Subset.open(folder)


def test_a_longer_or_missing_file_or_a_foreign_index_is_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_subset(other, [(3, smooth(6, 5)), (1, smooth(4, 5))], max_short_side=64)  # as many bytes in all
    index = np.load(folder / "index.npy")
    index[1, 1] += 3
    np.save(other / "index.npy", index)
    with pytest.raises(DataError, match="store repair"):
        Subset.open(other)
    with open(folder / "pixels.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="151 bytes where the index of 2 images says 150"):
        Subset.open(folder)
    (folder / "pixels.bin").unlink()
    with pytest.raises(DataError, match="no readable subset"):
        Subset.open(folder)


def test_no_image_is_refused(tmp_path):
    with pytest.raises(DataError, match="no image to pack"):
        write_subset(tmp_path, [], max_short_side=64)


def test_an_image_with_a_flipped_byte_is_never_read(folder):
    data = bytearray((folder / "pixels.bin").read_bytes())
    data[-1] ^= 1
    (folder / "pixels.bin").write_bytes(data)
    subset = Subset.open(folder)
    subset.image(0)
    with pytest.raises(DataError, match=r"pixels\.bin: image 1 is not what was packed"):
        subset.image(1)
