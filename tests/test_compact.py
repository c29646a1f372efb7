"""The int8 copy of a feature store stays within its residual, and belongs to the vectors it was made of."""

from pathlib import Path

import numpy as np
import pytest

from sept.errors import DataError
from sept.retrieval.compact import Compact, build, scales_of
from sept.retrieval.embedding import embed
from sept.retrieval.features import Features


def store(folder: Path, seed: int = 0, rows: int = 300, dim: int = 96) -> Features:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embed(folder, rows, lambda a, b: (vectors[a:b], []), 0.0, rows_per_shard=100)
    return Features.open(folder)


def copied(compact: Compact, first: int, rows: int) -> np.ndarray:
    dim = compact.features.dim
    whole, scales = np.empty((rows, dim), np.int8), np.empty((rows, scales_of(dim)), np.float16)
    compact.read(first, whole, scales)
    return whole * scales.astype(np.float32).repeat(dim // scales_of(dim), axis=1)


def test_a_copy_is_off_by_its_residual_at_most(tmp_path: Path) -> None:
    features = store(tmp_path / "features")
    facts = build(tmp_path / "int8", features)
    compact = Compact.open(tmp_path / "int8", features)
    off = np.linalg.norm(copied(compact, 130, 50) - features.take(np.arange(130, 180)), axis=1)
    assert 0 < off.max() <= compact.residual == facts["residual"] < 0.02
    assert facts["rows"] == 300


def test_building_again_writes_only_what_is_missing(tmp_path: Path) -> None:
    features = store(tmp_path / "features")
    build(tmp_path / "int8", features)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "int8").iterdir()}
    (tmp_path / "int8" / "shard-000001.json").unlink()
    build(tmp_path / "int8", features)
    again = {path.name for path, time in written.items() if path.stat().st_mtime_ns != time}
    assert again == {"shard-000001.json", "shard-000001.int8", "shard-000001.scales"}


def test_a_copy_of_other_vectors_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "int8", store(tmp_path / "features"))
    with pytest.raises(DataError, match=r"shard-000000.json: of other vectors"):
        Compact.open(tmp_path / "int8", store(tmp_path / "others", seed=1))


@pytest.mark.parametrize("name", ["shard-000002.int8", "shard-000002.scales"])
def test_a_cut_copy_is_named(tmp_path: Path, name: str) -> None:
    features = store(tmp_path / "features")
    build(tmp_path / "int8", features)
    path = tmp_path / "int8" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{name}: \d+ bytes, expected"):
        Compact.open(tmp_path / "int8", features)


@pytest.mark.parametrize(("dim", "scales"), [(1, 1), (24, 1), (33, 3), (37, 37), (768, 24)])
def test_scales_divide_a_row_evenly(dim: int, scales: int) -> None:
    assert scales_of(dim) == scales


@pytest.mark.parametrize("name", ["shard-000002.int8", "shard-000002.scales"])
def test_a_flipped_byte_is_never_read_and_a_build_that_goes_on_copies_it_again(tmp_path: Path, name: str) -> None:
    features, path = store(tmp_path / "features"), tmp_path / "int8" / name
    build(tmp_path / "int8", features)
    whole = path.read_bytes()
    path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    with pytest.raises(DataError, match=rf"{name}: its rows 0\.\.99 are not those that were written"):
        copied(Compact.open(tmp_path / "int8", features), 210, 50)
    build(tmp_path / "int8", features)
    assert path.read_bytes() == whole
