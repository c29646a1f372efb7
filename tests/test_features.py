"""The feature store: exactly once, resumable, and loud about damage."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sept.errors import DataError, NonFiniteError, StorageError
from sept.retrieval import embedding
from sept.retrieval.embedding import Allowed, embed, embed_shard, missing
from sept.retrieval.features import Features
from sept.retrieval.shards import Skip, publish, publish_json, read_json, read_shard

ROWS, DIM, PER_SHARD = 23, 5, 7  # 4 shards, the last one short
UNREADABLE = (3, 14)


def vectors_of(first: int, last: int) -> np.ndarray:
    """(last - first, DIM) float32 of unit length, a function of the row alone."""
    drawn = np.stack([np.random.default_rng(row).standard_normal(DIM) for row in range(first, last)])
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


class Encoder:
    """Gives those vectors, skips the unreadable rows, remembers its calls, and dies at a row if told to."""

    def __init__(self, unreadable: tuple[int, ...] = UNREADABLE, dies_at: int | None = None) -> None:
        self.unreadable, self.dies_at = unreadable, dies_at
        self.calls: list[tuple[int, int]] = []

    def __call__(self, first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
        self.calls.append((first, last))
        if self.dies_at is not None and first <= self.dies_at < last:
            raise KeyboardInterrupt
        vectors = vectors_of(first, last)
        skipped = [row for row in self.unreadable if first <= row < last]
        vectors[[row - first for row in skipped]] = 0
        return vectors, [Skip(row, f"{row}.jpg", "truncated") for row in skipped]


def expected() -> np.ndarray:
    vectors = vectors_of(0, ROWS).astype(np.float16)
    vectors[list(UNREADABLE)] = 0
    return vectors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    embed(tmp_path / "features", ROWS, Encoder(), 0.1, PER_SHARD)
    return tmp_path / "features"


def test_what_was_embedded_is_read_back(tmp_path: Path) -> None:
    done: list[int] = []
    facts = embed(tmp_path, ROWS, Encoder(), 0.1, PER_SHARD, done.append)
    assert facts == {"rows": 23, "embedded": 21, "skipped": 2, "dim": 5}
    assert done == [7, 14, 21, 23]
    features = Features.open(tmp_path)
    assert (features.rows, features.dim, features.embedded) == (23, 5, 21)
    assert features.skipped.tolist() == [3, 14]
    features.verify()
    rows = [22, 0, 7, 7, 6, 14]
    assert features.take(rows).dtype == np.float32
    np.testing.assert_array_equal(features.take(rows), expected()[rows])
    assert features.take([]).shape == (0, 5)


@pytest.mark.parametrize("max_rows", [1, 3, 7, 100])
def test_blocks_give_every_row_once_in_order(folder: Path, max_rows: int) -> None:
    blocks = list(Features.open(folder).blocks(max_rows))
    assert [first for first, _ in blocks] == np.cumsum([0] + [len(block) for _, block in blocks])[:-1].tolist()
    assert max(len(block) for _, block in blocks) <= max_rows
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), expected())


@pytest.mark.parametrize("row", [-1, ROWS])
def test_a_row_outside_the_pool_is_refused(folder: Path, row: int) -> None:
    with pytest.raises(IndexError, match=r"holds 0\.\.22"):
        Features.open(folder).take([0, row])


def test_a_killed_embedding_goes_on_where_it_was(tmp_path: Path, folder: Path) -> None:
    killed, rest = Encoder(dies_at=16), Encoder()
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path / "again", ROWS, killed, 0.1, PER_SHARD)
    with pytest.raises(DataError, match=r"features\.json"):
        Features.open(tmp_path / "again")
    embed(tmp_path / "again", ROWS, rest, 0.1, PER_SHARD)
    assert killed.calls == [(0, 7), (7, 14), (14, 21)]
    assert rest.calls == [(14, 21), (21, 23)]
    for file in sorted(folder.iterdir()):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    assert len(list(folder.iterdir())) == len(list((tmp_path / "again").iterdir())) == 9


def test_a_shard_without_its_commit_mark_or_cut_short_is_made_again(folder: Path) -> None:
    (folder / "shard-000001.json").unlink()
    (folder / "shard-000003.json").write_text('{"first_row": 21')
    data = folder / "shard-000002.npy"
    data.write_bytes(data.read_bytes()[:-1])
    again = Encoder()
    embed(folder, ROWS, again, 0.1, PER_SHARD)
    assert again.calls == [(7, 14), (14, 21), (21, 23)]
    np.testing.assert_array_equal(Features.open(folder).take(range(ROWS)), expected())


@pytest.mark.parametrize("per_shard", [PER_SHARD - 1, PER_SHARD + 1])
def test_a_shard_cut_otherwise_is_not_taken_for_another(folder: Path, per_shard: int) -> None:
    again = Encoder()
    embed(folder, ROWS, again, 0.1, per_shard)
    assert again.calls[0] == (0, per_shard)
    np.testing.assert_array_equal(Features.open(folder).take(range(ROWS)), expected())


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_shard_of_the_wrong_size_is_named_on_open(folder: Path, change) -> None:
    data = folder / "shard-000002.npy"
    data.write_bytes(change(data.read_bytes()))
    with pytest.raises(DataError, match=r"shard-000002\.npy"):
        Features.open(folder)


def test_a_changed_byte_is_found_by_verify(folder: Path) -> None:
    data = folder / "shard-000001.npy"
    content = bytearray(data.read_bytes())
    content[-5] ^= 1
    data.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-000001\.npy.*sha256"):
        Features.open(folder).verify()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("shard-000001.json", {"first_row": 6}),
        ("shard-000001.json", {"skipped": [{"row": 20, "key": "20.jpg", "reason": "lost"}]}),
        ("shard-000003.json", {"dim": 4}),
        ("features.json", {"rows": 22}),
        ("features.json", {"skipped": 1}),
        ("features.json", {"shards": 3}),
        ("features.json", {"shards": 5}),
    ],
)
def test_marks_that_do_not_add_up_are_refused(folder: Path, name: str, change: dict) -> None:
    mark = folder / name
    publish_json(mark, {**read_json(mark, set()), **change})
    with pytest.raises(DataError, match=r"shard-00000|features\.json"):
        Features.open(folder)


def test_a_lost_mark_is_named(folder: Path) -> None:
    (folder / "shard-000002.json").unlink()
    with pytest.raises(DataError, match=r"shard-000002\.json"):
        Features.open(folder)


def test_too_many_unreadable_images_stop_it_early_and_are_named(tmp_path: Path) -> None:
    encode = Encoder(unreadable=(1, 2, 8, 9, 15))
    with pytest.raises(DataError, match=r"4 of the pool's 23 .*max_unreadable=0\.1: '1\.jpg' \(truncated\); '2\.jpg'"):
        embed(tmp_path, ROWS, encode, 0.1, PER_SHARD)
    assert encode.calls == [(0, 7), (7, 14)]
    again = Encoder(unreadable=(1, 2))  # the others were repaired
    assert embed(tmp_path, ROWS, again, 0.1, PER_SHARD)["skipped"] == 2
    assert again.calls[0] == (7, 14)


def test_too_many_in_the_shards_of_several_processes_stop_one_of_them(tmp_path: Path) -> None:
    """Neither has more than is allowed, of 200 images 20."""
    one, other = (Allowed(tmp_path, 200, 0.1, 2) for _ in range(2))
    encode = Encoder(unreadable=tuple(range(0, 200, 2)))
    with pytest.raises(DataError, match="21 of the pool's 200 images"):
        [embed_shard(index, encode, (one, other)[index % 2]) for index in range(100)]
    assert len(encode.calls) <= 22


def test_other_shards_are_not_read_at_every_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(embedding, "read_shard", lambda folder, index: read.append(index) or read_shard(folder, index))
    shards = 60
    embed(tmp_path, 2 * shards, Encoder(unreadable=tuple(range(0, 2 * shards, 2))), 0.9, 2)
    assert len(read) < 12 * shards  # at every skip it were as many as shards times shards


def test_a_stricter_ceiling_holds_for_what_is_already_there(folder: Path) -> None:
    with pytest.raises(DataError, match="2 of the pool's 23 images"):
        embed(folder, ROWS, Encoder(), 0.0, PER_SHARD)


def wrong(change):
    def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
        return change(*Encoder()(first, last))

    return encode


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v, s: (v[1:], s), DataError, "rows 0..6 were requested"),
        (lambda v, s: (v * 1.01, s), DataError, "pool row 0 has length 1.01, expected 1"),
        (
            lambda v, s: (v * np.where(np.arange(7) == 5, 0, 1)[:, None].astype("f4"), s),
            DataError,
            "pool row 5 has length 0",
        ),
        (lambda v, s: (v, []), DataError, "pool row 3 has length 0, expected 1"),
        (lambda v, s: (v, [Skip(2, "2.jpg", "lost")]), DataError, "pool row 2 has length 1, expected 0"),
        (lambda v, s: (v, s + s), DataError, "name a row twice"),
        (lambda v, s: (v, [Skip(7, "7.jpg", "lost")]), DataError, "or one outside"),
        (lambda v, s: (np.where(np.arange(7)[:, None] == 6, np.nan, v), s), NonFiniteError, "pool row 6"),
    ],
)
def test_wrong_vectors_are_never_stored(tmp_path: Path, change, error, message: str) -> None:
    with pytest.raises(error, match=message):
        embed(tmp_path, ROWS, wrong(change), 0.2, PER_SHARD)
    assert not list(tmp_path.iterdir())


def test_dimensions_that_change_between_shards_are_refused(tmp_path: Path) -> None:
    def encode(first: int, last: int) -> tuple[np.ndarray, list[Skip]]:
        return np.eye(last - first, 4 if first else 5, dtype=np.float32)[np.zeros(last - first, dtype=int)], []

    with pytest.raises(DataError, match=r"its shards have \[4, 5\] dimensions"):
        embed(tmp_path, ROWS, encode, 0.1, PER_SHARD)


def test_an_empty_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lists no images"):
        embed(tmp_path, 0, Encoder(), 0.1)


def test_file_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    key = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    embed(tmp_path, 1, lambda first, last: (np.zeros((1, 4), np.float32), [Skip(0, key, "lost")]), 1.0)
    assert Features.open(tmp_path).shards[0].skipped == [Skip(0, key, "lost")]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def full(file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "kept"
    publish(path, lambda file: file.write(b"old"))
    with pytest.raises(StorageError, match="kept: No space left"):
        publish(path, full)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_block_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sept.retrieval.shards.CHECKED_ROWS", 3)
    embed(tmp_path / "again", ROWS, Encoder(), 0.1, PER_SHARD)
    data = tmp_path / "again" / "shard-000001.npy"
    content = bytearray(data.read_bytes())
    content[-2 * DIM * 4] ^= 1  # of the fourth row from its end, the second block's first
    data.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-000001\.npy.*sha256, first in rows 10\.\.12 \(1 of 3 blocks\)"):
        Features.open(tmp_path / "again").verify()


@pytest.mark.parametrize("byte", [-1, -2 * DIM * 7])  # of the last and the first row of a shard
@pytest.mark.parametrize(
    "read",
    [
        lambda features: list(features.blocks(100)),
        lambda features: list(features.blocks(2)),
        lambda features: features.take(range(features.rows)),
        lambda features: features.take([7, 13]),
    ],
    ids=["shards", "pairs", "all", "a few"],
)
def test_a_flipped_byte_is_never_read(
    read: Callable[[Features], object], byte: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sept.retrieval.shards.CHECKED_ROWS", 3)
    embed(tmp_path / "again", ROWS, Encoder(), 0.1, PER_SHARD)
    features = Features.open(tmp_path / "again")
    read(features)
    data = tmp_path / "again" / "shard-000001.npy"
    content = bytearray(data.read_bytes())
    content[byte] ^= 16
    data.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-000001\.npy: its rows .* are not those that were written"):
        read(Features.open(tmp_path / "again"))


def test_a_shard_that_was_damaged_after_its_commit_is_embedded_again(tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    embed(folder, ROWS, Encoder(), 0.1, PER_SHARD)
    (folder / "features.json").unlink()  # the last thing that an embedding writes
    data = folder / "shard-000002.npy"
    whole = data.read_bytes()
    data.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert missing(folder, ROWS, PER_SHARD) == [2]
    embed(folder, ROWS, Encoder(), 0.1, PER_SHARD)
    assert data.read_bytes() == whole


def test_a_mark_that_was_damaged_after_its_commit_is_made_again(tmp_path: Path) -> None:
    """Check sums, the residual that bounds a search, and the skips are told by the mark alone."""
    embed(tmp_path, ROWS, Encoder(), 0.1, PER_SHARD)
    mark = tmp_path / "shard-000000.json"
    whole = mark.read_bytes()
    for place in range(0, len(whole), 3):
        mark.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert missing(tmp_path, ROWS, PER_SHARD) == [0], (place, mark.read_text(errors="replace"))
    embed(tmp_path, ROWS, Encoder(), 0.1, PER_SHARD)
    assert mark.read_bytes() == whole


@pytest.mark.parametrize("rows", [[3, 4, 5], [0, 2, 4, 6], [0, 22], [8, 1, 8]])
def test_rows_are_the_same_taken_in_stretches_or_singly(folder: Path, rows: list[int]) -> None:
    taken = Features.open(folder).take_half(rows)
    assert taken.dtype == np.float16
    np.testing.assert_array_equal(taken, expected()[rows])


def test_a_shard_that_was_cut_short_after_opening_is_named(folder: Path) -> None:
    features = Features.open(folder)
    data = folder / "shard-000000.npy"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"shard-000000\.npy"):
        list(features.blocks(100))


def test_every_nth_shard_is_a_pool_of_its_own(folder: Path) -> None:
    whole = Features.open(folder)
    some = whole.every(2)  # rows 0 to 6 and 14 to 20
    rows = [*range(7), *range(14, 21)]
    assert (some.rows, some.embedded, some.skipped.tolist()) == (14, 12, [3, 7])
    np.testing.assert_array_equal(some.take(range(14)), whole.take(rows))
    assert [first for first, _ in some.blocks(100)] == [0, 7]
