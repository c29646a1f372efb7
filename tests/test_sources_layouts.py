"""Zips, parquet files and lists: what is read is what was stored, damage and tricks are refused, nothing leaks out."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sept.data.images import ImageError
from sept.data.sources import lists, parquet, zips
from sept.data.sources.files import Entry
from sept.data.sources.layouts import identify, root
from sept.data.sources.reader import Reader
from sept.data.sources.scan import scan
from sept.errors import ConfigError, DataError

HASHES = [f"{n:06x}{n:026x}" for n in (0xABC123, 0xABC124, 0x000001)]


def write(path: Path, data: bytes | str = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def make_parquet(path: Path, images: list, column: str = "image", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"label": list(range(len(images))), column: images}), path, **options)
    return path


def hf(*images: bytes | None) -> list[dict]:
    return [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(images)]


def contents(kind: str, path: Path | str, source: str = "s") -> dict[str, bytes]:
    reader = Reader(root(kind, str(path)))
    return {entry.key: reader.read(*entry[2:]) for entry in scan(kind, str(path), source)}


def some(count: int = 5) -> dict[str, bytes]:
    return {f"{n}.jpg": bytes([n]) * (400 * n + 1) + os.urandom(50) for n in range(count)}


# Zips

names = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\", exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=40, deadline=None)
@given(
    members=st.dictionaries(names.map("n{}.jpg".format), st.binary(max_size=3000), min_size=1, max_size=5),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_what_is_read_from_a_zip_is_what_was_stored(members, method, tmp_path_factory):
    path = make_zip(tmp_path_factory.mktemp("zip") / "z.zip", members, method)
    assert contents("zip", path) == {f"z/{name}": data for name, data in members.items()}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips_with_sizes_behind_the_bytes_and_zips_of_64_bits_are_read(method, tmp_path):
    class Pipe(io.RawIOBase):  # cannot seek, so the sizes and the checksum come after the bytes
        def __init__(self, file):
            self.file = file

        def writable(self):
            return True

        def write(self, data):
            return self.file.write(data)

    members = some()
    with open(tmp_path / "z.zip", "wb") as file, zipfile.ZipFile(Pipe(file), "w", method) as archive:
        for name, data in members.items():
            with archive.open(name, "w", force_zip64=name == "2.jpg") as member:
                member.write(data)
    found = contents("zip", tmp_path)
    assert found == {f"z/{name}": data for name, data in members.items()}
    flags = struct.unpack_from("<H", (tmp_path / "z.zip").read_bytes(), 6)[0]
    assert flags & 0x8


def test_zips_come_by_name_and_members_as_they_lie_and_only_visible_images_count(tmp_path):
    make_zip(tmp_path / "b.zip", {"z.JPG": b"1", "a é b.png": b"2", "notes.txt": b"n", "__MACOSX/._z.jpg": b"m"})
    make_zip(tmp_path / "a.zip", {"deep/er/x.jpeg": b"3", ".hidden/y.jpg": b"4"})
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.mkdir("folder.jpg")
    keys = ["a/deep/er/x.jpeg", "b/z.JPG", "b/a é b.png"]
    assert [entry.key for entry in scan("zip", str(tmp_path), "s")] == keys


def test_names_in_a_zip_that_leave_the_folder_are_only_keys(tmp_path):
    path = make_zip(tmp_path / "in" / "z.zip", {"../up.jpg": b"up", "/etc/abs.jpg": b"abs", "C:\\w.jpg": b"w"})
    before = sorted(tmp_path.rglob("*"))
    assert list(contents("zip", path).values()) == [b"up", b"abs", b"w"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_zip_cut_anywhere_is_refused(tmp_path):
    path = make_zip(tmp_path / "z.zip", some())
    data = path.read_bytes()
    for size in (0, 1, 29, *range(30, len(data), 97), len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"z\.zip: damaged, cut or no zip"):
            list(scan("zip", str(path), "s"))


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), stored=st.booleans())
def test_a_flipped_byte_in_a_zip_is_refused_or_changes_no_image(place, flip, stored, tmp_path_factory):
    members = some(3)
    path = tmp_path_factory.mktemp("flip") / "z.zip"
    make_zip(path, members, zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= flip
    path.write_bytes(data)
    try:
        found = contents("zip", path)
    except DataError as error:
        refused, found = str(error), {}
    else:
        refused = "z.zip"
    assert "z.zip" in refused
    assert set(found.values()) <= set(members.values())  # a name may change, or its suffix be lost; no image is another


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_bad_checksum_is_one_unusable_image(method, tmp_path):
    path = make_zip(tmp_path / "z.zip", {"a.jpg": os.urandom(500), "b.jpg": b"fine"}, method)
    first, second = scan("zip", str(path), "s")
    data = bytearray(path.read_bytes())
    data[second.offset - 100] ^= 1
    path.write_bytes(data)
    reader = Reader(tmp_path)
    with pytest.raises(ImageError, match=r"z\.zip, byte \d+: damaged"):
        reader.read(*first[2:])
    assert reader.read(*second[2:]) == b"fine"


def patched(path: Path, name: str, **fields: int) -> Path:
    """The zip with other values in the directory's record of a member."""
    places = {"flags": (8, "<H"), "method": (10, "<H"), "packed": (20, "<I"), "size": (24, "<I"), "offset": (42, "<I")}
    data = bytearray(path.read_bytes())
    start = data.rindex(b"PK\1\2", 0, data.rindex(name.encode()))
    for field, value in fields.items():
        place, form = places[field]
        struct.pack_into(form, data, start + place, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flags": 1}, "'b.jpg' is encrypted"),
        ({"method": 12}, "'b.jpg' is neither stored nor deflated"),
        ({"size": zips.MAX_MEMBER_BYTES + 1}, "'b.jpg' says it unpacks to 268,435,457 bytes"),
        ({"offset": 0}, "'[ab].jpg' runs into the next"),
        ({"packed": 100_000}, "'b.jpg' runs into the next"),
    ],
)
def test_encrypted_oddly_packed_huge_and_overlapping_members_are_refused(fields, message, tmp_path):
    path = patched(make_zip(tmp_path / "z.zip", {"a.jpg": b"1" * 99, "b.jpg": b"2" * 99}), "b.jpg", **fields)
    with pytest.raises(DataError, match=rf"z\.zip: .*{message}"):
        list(scan("zip", str(path), "s"))


def test_a_bomb_is_never_unpacked_beyond_its_stated_size(tmp_path):
    path = patched(make_zip(tmp_path / "z.zip", {"a.jpg": bytes(50_000_000)}), "a.jpg", size=1000)
    (entry,) = scan("zip", str(path), "s")
    assert entry.size == 1000
    with pytest.raises(ImageError, match="unpacks to other than 1,000 bytes"):
        Reader(tmp_path).read(*entry[2:])


def test_a_member_named_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.jpg", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.jpg", "2")
    with pytest.raises(DataError, match=r"z\.zip: holds the member 'a\.jpg' twice"):
        list(scan("zip", str(tmp_path), "s"))


def test_a_zip_changed_since_it_was_listed_is_refused(tmp_path):
    path = make_zip(tmp_path / "z.zip", some())
    last = list(scan("zip", str(path), "s"))[-1]
    make_zip(path, {"0.jpg": b"other"})
    with pytest.raises(DataError, match=r"z\.zip"):
        Reader(tmp_path).read(*last[2:])


# Parquet files


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("held", [1, 1 << 25])
def test_parquet_rows_are_read_in_any_order_whatever_the_row_groups(rows, held, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "HELD_BYTES", held)
    images = [f"image {n}".encode() * (n + 1) for n in range(7)]
    make_parquet(tmp_path / "train-0.parquet", hf(*images), row_group_size=rows)
    entries = list(scan("parquet", str(tmp_path), "s"))
    assert [(entry.key, entry.offset) for entry in entries] == [(f"train-0/{n}", n) for n in range(7)]
    reader = pickle.loads(pickle.dumps(Reader(tmp_path)))
    for n in (0, 1, 2, 6, 5, 5, 0, 3):
        assert reader.read(*entries[n][2:]) == images[n]
    reader.close()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_column_of_bytes_is_read_too(kind, tmp_path):
    path = tmp_path / "a b é.parquet"
    pq.write_table(pa.table({"image": pa.array([b"1", b"22", b""], kind)}), path)
    assert contents("parquet", path) == {"a b é/0": b"1", "a b é/1": b"22", "a b é/2": b""}


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_without_bytes_are_refused_before_any_is_read(statistics, tmp_path):
    images = [*hf(b"1", None, b"3"), None]
    path = make_parquet(tmp_path / "x.parquet", images, row_group_size=2, write_statistics=statistics)
    with pytest.raises(DataError, match=r"x\.parquet: 2 of 4 rows have no bytes in the column 'image'"):
        next(scan("parquet", str(path), "s"))


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path):
    path = make_parquet(tmp_path / "x.parquet", hf(b"1"), column="img")
    with pytest.raises(DataError, match=r"no column 'image' .*its columns: label, img\.bytes, img\.path"):
        list(scan("parquet", str(path), "s"))
    make_parquet(path, [1, 2])
    with pytest.raises(DataError, match="no column 'image' of image bytes"):
        list(scan("parquet", str(path), "s"))


def test_a_parquet_file_cut_anywhere_is_refused(tmp_path):
    path = make_parquet(tmp_path / "x.parquet", hf(*some().values()))
    data = path.read_bytes()
    for size in (0, 3, 4, len(data) // 2, len(data) - 4, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"x\.parquet: damaged, cut or no parquet"):
            list(scan("parquet", str(path), "s"))


def test_a_flipped_byte_in_a_page_is_refused_where_pages_have_checksums(tmp_path):
    images = [os.urandom(2000) for _ in range(4)]
    path = make_parquet(tmp_path / "x.parquet", hf(*images), write_page_checksum=True, compression="none")
    data = bytearray(path.read_bytes())
    data[data.index(images[2]) + 1000] ^= 1
    path.write_bytes(data)
    entries = list(scan("parquet", str(path), "s"))
    with pytest.raises(DataError, match=r"x\.parquet, row 2: damaged"):
        Reader(tmp_path).read(*entries[2][2:])


def test_a_parquet_file_that_lost_rows_is_refused(tmp_path):
    path = make_parquet(tmp_path / "x.parquet", hf(b"1", b"2", b"3"))
    last = list(scan("parquet", str(path), "s"))[-1]
    make_parquet(path, hf(b"1"))
    with pytest.raises(DataError, match=r"no row 2 of 1; it changed"):
        Reader(tmp_path).read(*last[2:])


BIG_GROUP = """
import resource, sys
from sept.data.sources.reader import Reader
reader = Reader(__import__("pathlib").Path(sys.argv[1]))
reader.read("x.parquet", 0, -1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for row in range(0, 3000, 7):
    assert len(reader.read("x.parquet", row, -1)) == 100_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="ru_maxrss has other units there")
def test_a_row_group_of_300_mb_is_read_in_bounded_memory(tmp_path):
    image = os.urandom(100_000)
    table = pa.table({"image": [{"bytes": image, "path": "x"}] * 3000})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=3000, use_dictionary=False, compression="none")
    del table
    assert pq.read_metadata(tmp_path / "x.parquet").num_row_groups == 1
    command = [sys.executable, "-c", BIG_GROUP, str(tmp_path)]
    grown_kb = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown_kb < 150_000, grown_kb


# Lists


def listed(folder: Path, text: str | bytes, *images: str) -> Path:
    for image in images:
        write(folder / image, image)
    return write(folder / "list.txt", text)


def test_a_list_gives_its_order_with_unicode_spaces_and_either_line_end(tmp_path):
    images = ("b/2.JPEG", "a b/é 1.png", "z.jpg")
    path = listed(tmp_path, "\ufeff" + "\r\n".join(images) + "\n\n", *images, "not/listed.jpg")
    expected = [Entry("s", name, name, 0, len(name.encode())) for name in images]
    assert list(scan("list", str(path), "s")) == expected
    assert contents("list", path) == {name: name.encode() for name in images}


def test_a_list_is_cut_into_parts_at_any_byte_without_a_loss(tmp_path, monkeypatch):
    images = [f"{'x' * (n % 5)}{n}.jpg" for n in range(40)]
    path = listed(tmp_path, "\n".join(images), *images)
    for step in range(1, 60):
        monkeypatch.setattr(lists, "PART_BYTES", step)
        assert [entry.key for entry in scan("list", str(path), "s")] == images


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../out.jpg", "a/../../out.jpg", "a//b.jpg", "a/.", "a\\b.jpg"])
def test_listed_names_that_lead_outside_are_refused(name, tmp_path):
    write(tmp_path / "out.jpg")
    path = listed(tmp_path / "data", f"a.jpg\n{name}\n", "a.jpg", "b.jpg", "a/b.jpg")
    with pytest.raises(DataError, match=r"list\.txt, line 2: .* is no path of an image relative to the list"):
        list(scan("list", str(path), "s"))


@pytest.mark.parametrize("line", ["a.txt", "x.zip", "a.jpg\t3", "a.jpg 3", "caf\udce9.jpg"])
def test_lines_that_are_no_image_are_refused_with_their_number(line, tmp_path):
    text = ("\n" + "ok.jpg\n" + line).encode("utf-8", "surrogateescape")
    with pytest.raises(DataError, match=r"list\.txt, line 3: ") as caught:
        list(scan("list", str(listed(tmp_path, text, "ok.jpg", "a.txt", "x.zip")), "s"))
    str(caught.value).encode()


def test_a_listed_image_that_is_absent_or_twice_or_no_file_is_an_error(tmp_path):
    path = listed(tmp_path, "a.jpg\nb.jpg\n", "a.jpg")
    with pytest.raises(DataError, match=r"list\.txt, line 2: 'b\.jpg' is not there: no file "):
        list(scan("list", str(path), "s"))
    os.mkfifo(tmp_path / "b.jpg")
    with pytest.raises(DataError, match=r"line 2: 'b\.jpg' is not there"):
        list(scan("list", str(path), "s"))
    listed(tmp_path, "a.jpg\nc.jpg\na.jpg\n", "c.jpg")
    with pytest.raises(DataError, match=r"list\.txt: names 'a\.jpg' twice"):
        list(scan("list", str(path), "s"))


def test_links_among_listed_images_are_followed(tmp_path):
    target = write(tmp_path / "elsewhere.bin", b"12345")
    path = listed(tmp_path / "data", "a.jpg\n")
    (tmp_path / "data" / "a.jpg").symlink_to(target)
    assert contents("list", path) == {"a.jpg": b"12345"}


# YFCC100M


def yfcc_path(photo: str) -> str:
    return f"data/images/{photo[:3]}/{photo[3:6]}/{photo}.jpg"


def metadata(number: int, photo: str, video: bool = False) -> str:
    """A line of yfcc100m_dataset: 25 columns, text with any sign but tabs."""
    columns = [str(number), "6185218911", photo, "4e2f7a26@N00", "nick", *[f"any, thing {n}" for n in range(5, 23)]]
    return "\t".join([*columns, "jpg", "1" if video else "0"]) + "\n"


LINES = {
    "yfcc100m_dataset": lambda n, photo: metadata(n, photo),
    "yfcc100m_hash": lambda n, photo: f"61852{n}\t{photo}\n",
    "yfcc100m_subset_data.tsv": lambda n, photo: f"{n}\t61852{n}\t{photo}\n",
    "mine.txt": lambda n, photo: photo + "\n",
}


@pytest.mark.parametrize("name", LINES)
def test_yfcc_photos_are_found_by_their_hashes_and_those_that_vanished_are_counted(name, tmp_path):
    for photo in HASHES[:2]:
        write(tmp_path / yfcc_path(photo), photo)
    path = write(tmp_path / name, "".join(LINES[name](n, photo) for n, photo in enumerate(HASHES)))
    gone: list[str] = []
    where = path if name == "mine.txt" else tmp_path
    entries = list(scan("yfcc", str(where), "s", gone.append))
    assert entries == [Entry("s", yfcc_path(photo), yfcc_path(photo), 0, 32) for photo in HASHES[:2]]
    assert gone == [yfcc_path(HASHES[2])]
    assert Reader(root("yfcc", str(where))).read(*entries[1][2:]) == HASHES[1].encode()


def test_yfcc_videos_are_no_photos(tmp_path):
    write(tmp_path / yfcc_path(HASHES[0]))
    write(tmp_path / "yfcc100m_dataset", metadata(0, HASHES[0]) + metadata(1, HASHES[1], video=True))
    gone: list[str] = []
    assert len(list(scan("yfcc", str(tmp_path), "s", gone.append))) == 1
    assert not gone


def test_yfcc_without_any_photo_or_with_one_twice_is_refused(tmp_path):
    write(tmp_path / "yfcc100m_hash", f"1\t{HASHES[0]}\n2\t{HASHES[1]}\n")
    with pytest.raises(
        DataError,
        match=r"none of its 2 images is there; expected: a folder .*, and data/images/<h\[:3\]",
    ):
        list(scan("yfcc", str(tmp_path), "s"))
    write(tmp_path / yfcc_path(HASHES[0]))
    write(tmp_path / "yfcc100m_hash", f"1\t{HASHES[0]}\n2\t{HASHES[0]}\n")
    with pytest.raises(DataError, match=r"names 'data/images/.*' twice"):
        list(scan("yfcc", str(tmp_path), "s"))


@pytest.mark.parametrize("line", ["../../../../etc/passwd", "ABC", "1\t2\t3\t4", "\t".join("x" * 23), "6\t../../x"])
def test_yfcc_lines_without_a_hash_are_refused(line, tmp_path):
    write(tmp_path / yfcc_path(HASHES[0]))
    path = write(tmp_path / "yfcc100m_hash", f"1\t{HASHES[0]}\n{line}\n")
    with pytest.raises(DataError, match=r"yfcc100m_hash, line 2: .* is no hash of 32"):
        list(scan("yfcc", str(path), "s"))


# All layouts


@pytest.mark.parametrize(
    ("kind", "name", "tree"),
    [
        ("folder", "gone", "images at any depth"),
        ("webdataset", "gone", "a-000.tar"),
        ("zip", "gone.zip", "a-000.zip"),
        ("parquet", "gone-{0..3}.parquet", "a-000.parquet"),
        ("list", "gone.txt", "a text file of paths"),
        ("yfcc", "gone", "yfcc100m_dataset or yfcc100m_hash"),
    ],
)
def test_a_missing_source_is_named_with_the_layout_expected(kind, name, tree, tmp_path):
    for ask in (identify, root, lambda kind, path: list(scan(kind, path, "s"))):
        with pytest.raises(DataError, match=r"gone") as caught:
            ask(kind, str(tmp_path / name))
        assert "; expected: a " in str(caught.value)
        assert "\n" not in str(caught.value)
        assert tree in str(caught.value)


def test_an_unknown_layout_lists_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="no layout 'rar' of a source; there are folder, webdataset, zip"):
        identify("rar", str(tmp_path))


def make(kind: str, folder: Path, images: dict[str, bytes]) -> Path:
    """A source of the kind; gives its path."""
    if kind == "zip":
        make_zip(folder / "z.zip", images)
    elif kind == "parquet":
        make_parquet(folder / "x.parquet", hf(*images.values()))
    elif kind == "list":
        for name, data in images.items():
            write(folder / name, data)
        return write(folder / "list.txt", "".join(f"{name}\n" for name in images))
    elif kind == "yfcc":
        hashes = [f"{n:032x}" for n in range(len(images))]
        for photo, data in zip(hashes, images.values(), strict=True):
            write(folder / yfcc_path(photo), data)
        write(folder / "yfcc100m_hash", "".join(f"{n}\t{photo}\n" for n, photo in enumerate(hashes)))
    return folder


@pytest.mark.parametrize("kind", ["zip", "parquet", "list", "yfcc"])
def test_identity_stays_when_the_source_moves_and_changes_with_its_content(kind, tmp_path):
    images = some()
    path = make(kind, tmp_path / "old", images)
    before = identify(kind, str(path))
    assert before[1] == 0
    (tmp_path / "old").rename(tmp_path / "new")
    moved = tmp_path / "new" / path.relative_to(tmp_path / "old")
    assert identify(kind, str(moved)) == before
    assert list(contents(kind, moved).values()) == list(images.values())
    make(kind, tmp_path / "new", images | {"more.jpg": b"more"})
    assert identify(kind, str(moved)) != before


@pytest.mark.parametrize("kind", ["zip", "parquet", "list"])
def test_a_source_without_an_image_is_refused(kind, tmp_path):
    path = make(kind, tmp_path / "empty", {})
    if kind == "parquet":
        pq.write_table(pa.table({"image": pa.array([], pa.binary())}), path / "x.parquet")
    with pytest.raises(DataError, match=r"empty.*: holds no image"):
        list(scan(kind, str(path), "s"))


def test_a_large_list_is_sampled_for_its_identity(tmp_path, monkeypatch):
    from sept.data.sources import digest

    path = listed(tmp_path, "".join(f"{n:07}.jpg\n" for n in range(20_000)))
    whole = identify("list", str(path))
    monkeypatch.setattr(digest, "WHOLE_BYTES", 1000)
    sampled = identify("list", str(path))
    assert sampled != whole
    assert sampled == identify("list", str(path))
    path.write_text(path.read_text() + "1.jpg\n")
    assert identify("list", str(path)) != sampled
