"""Damaged archives: refused in one line, or every image is there; nothing is lost in silence."""

import io
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from sept.data.sources.reader import Reader
from sept.data.sources.scan import scan
from sept.errors import DataError

JPEG, PNG = b"\xff\xd8\xff\xe0 a jpeg ", b"\x89PNG\r\n\x1a\n a png "
RECORD = 10_240
BITS = (1, 2, 4, 8, 16, 32, 64, 128, 0x0C, 0x55, 0xFF)


def make_tar(names: list[str], size: int = 700, format: int = tarfile.PAX_FORMAT) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w", format=format) as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            data = (PNG if name.endswith("png") else JPEG) + bytes([number + 1]) * size
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return into.getvalue()


def some(count: int) -> list[str]:
    return [f"{n:03d}.jpg" for n in range(count)]


def make_zip(method: int = zipfile.ZIP_STORED, names: tuple[str, ...] = ("a.jpg", "b/ö.png", "c.txt")) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", method) as archive:
        for number, name in enumerate(names):
            data = (PNG if name.endswith("png") else JPEG) + bytes([number + 1]) * 90
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return into.getvalue()


def contents(path: Path, data: bytes, kind: str) -> list[bytes]:
    """The bytes of every image listed; raises DataError (an ImageError: one image that is skipped with its reason)."""
    with open(path, "r+b" if path.exists() else "wb") as file:  # no new file for each flip
        file.write(data)
        file.truncate()
    reader = Reader(path.parent)
    try:
        return [reader.read(*entry[2:]) for entry in scan(kind, str(path), "s")]
    finally:
        reader.close()


def silent_losses(path: Path, kind: str, damaged: list[bytes], whole: list[bytes]) -> list[int]:
    """Numbers of the damaged archives that are read as whole ones and give other images."""
    silent = []
    for number, data in enumerate(damaged):
        try:
            told = contents(path, data, kind) == whole
        except DataError as error:
            told = path.name in str(error) and "\n" not in str(error)
        if not told:
            silent.append(number)
    return silent


def flipped(data: bytes, places: range, flips: tuple[int, ...]) -> list[bytes]:
    return [data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :] for place in places for flip in flips]


def directory(data: bytes) -> range:
    return range(data.index(b"PK\1\2"), len(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_flipped_byte_of_a_zips_directory_or_end_loses_an_image_in_silence(method, tmp_path):
    data = make_zip(method)
    whole = contents(tmp_path / "z.zip", data, "zip")
    assert len(whole) == 2
    damaged = random.Random(1).sample(flipped(data, directory(data), (0x01, 0x20, 0x80)), 300)
    assert silent_losses(tmp_path / "z.zip", "zip", damaged, whole) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_byte_of_a_zips_directory_in_other_values_loses_an_image_in_silence(method, tmp_path):
    data = make_zip(method, tuple(f"{n}.jpg" for n in range(5)))
    whole = contents(tmp_path / "z.zip", data, "zip")
    damaged = flipped(data, directory(data), BITS)
    assert silent_losses(tmp_path / "z.zip", "zip", damaged, whole) == []


def test_a_directory_record_that_swallows_others_is_refused(tmp_path):
    """A comment's length that grew by the records behind it: zipfile gives one member of forty."""
    data = bytearray(make_zip(names=tuple(some(40))))
    first = data.index(b"PK\1\2")
    rest = data.index(b"PK\5\6") - data.index(b"PK\1\2", first + 1)
    struct.pack_into("<H", data, first + 32, rest)
    path = tmp_path / "z.zip"
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 1
    with pytest.raises(DataError, match=r"z\.zip: damaged: its directory names 1 members and its end record counts 40"):
        list(scan("zip", str(path), "s"))


@pytest.mark.slow
def test_zips_of_more_members_than_16_bits_count_are_read(tmp_path):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(65_537):
            archive.writestr(zipfile.ZipInfo(f"{number}.txt" if number else "0.jpg"), b"")
    assert len(list(scan("zip", str(path), "s"))) == 1  # counted in the 64-bit record


def test_a_link_in_a_zip_is_left_out_and_an_image_called_one_is_not(tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    path = tmp_path / "z.zip"
    for content in (b"../elsewhere/a.jpg", JPEG * 10, JPEG * 1000):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jpg", JPEG)
            archive.writestr(link, content)
        if content.startswith(JPEG):
            with pytest.raises(DataError, match=r"'link\.jpg' is called a link and holds an image"):
                list(scan("zip", str(path), "s"))
        else:
            assert [entry.key for entry in scan("zip", str(path), "s")] == ["z/a.jpg"]


LONG = "n" * 110


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_no_flipped_byte_of_a_tars_headers_loses_an_image_in_silence(format, tmp_path):
    """Of a header, of the long name before one (which has no checksum), and of the end."""
    data = make_tar(["a.jpg", f"{LONG}/b.png", "ä/c.jpg", f"{LONG}/d.txt"], 90, format)
    path = tmp_path / "t.tar"
    whole = contents(path, data, "webdataset")
    assert len(whole) == 3
    with tarfile.open(path) as tar:
        headers = [range(member.offset, member.offset_data) for member in tar.getmembers()]
    used = [place for header in headers for place in header if data[place]]
    damaged = [each for place in used for each in flipped(data, range(place, place + 1), (0x01, 0x0C, 0x80))]
    damaged = random.Random(1).sample(damaged, 300)
    assert silent_losses(path, "webdataset", damaged, whole) == []


@pytest.mark.slow
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_no_byte_of_a_tars_headers_in_other_values_loses_an_image_in_silence(format, tmp_path):
    data = make_tar([f"{LONG}/b.png", "ä/c.jpg"], 90, format)
    whole = contents(tmp_path / "t.tar", data, "webdataset")
    end = len(data.rstrip(b"\0"))
    places = [place for place in range(end + 1024) if data[place] or place % 7 == 0]
    pixels = [range(data.index(image), data.index(image) + len(image)) for image in whole]
    heads = [place for place in places if not any(place in each for each in pixels)]
    damaged = [each for place in heads for each in flipped(data, range(place, place + 1), BITS)]
    assert silent_losses(tmp_path / "t.tar", "webdataset", damaged, whole) == []


def test_other_files_that_hold_images_are_left_out_as_before(tmp_path):
    """Thumbnails and raw photographs have JPEG's and TIFF's first bytes, and a suffix of their own."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as tar:
        for name, data in (
            ("ä.jpg", JPEG),
            ("ä.thm", JPEG),
            ("ä.nef", b"II*\0"),
            ("ä.dng", b"II*\0"),
            ("ä/.x.jpg", JPEG),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert contents(tmp_path / "t.tar", into.getvalue(), "webdataset") == [JPEG]


def test_a_tar_whose_tail_is_zeros_is_refused_wherever_the_zeros_begin(tmp_path):
    """Between members, in a header, in pixels, in padding; up to the last record they look like its padding."""
    data = make_tar(some(40))
    path = tmp_path / "t.tar"
    whole = contents(path, data, "webdataset")
    end = len(data) - len(data) % RECORD
    for first in [*range(512, end - RECORD - 2048, 512), *random.Random(0).sample(range(1, end - RECORD - 2048), 60)]:
        with pytest.raises(DataError, match=r"t\.tar: damaged|t\.tar: holds the"):
            contents(path, data[:first] + bytes(len(data) - first), "webdataset")
    assert contents(path, data, "webdataset") == whole


@pytest.mark.parametrize("zeros", [512, 1024, 5 * RECORD])
def test_zeros_amid_a_tar_are_no_end(zeros, tmp_path):
    data = make_tar(some(80))
    with pytest.raises(DataError, match=r"t\.tar: damaged at byte 6,144, after member '003\.jpg'.*zeros"):
        contents(tmp_path / "t.tar", data[:6144] + bytes(zeros) + data[6144 + zeros :], "webdataset")


def test_a_tar_that_ends_at_a_members_edge_without_two_zero_blocks_is_cut(tmp_path):
    data = make_tar(some(3))
    end = len(data.rstrip(b"\0"))
    end += -end % 512
    for zeros in (0, 512):
        with pytest.raises(DataError, match=r"t\.tar: cut off at byte"):
            contents(tmp_path / "t.tar", data[: end + zeros], "webdataset")
    assert len(contents(tmp_path / "t.tar", data[: end + 1024], "webdataset")) == 3  # as Go's and Rust's writers end


@pytest.mark.parametrize("count", range(0, 18, 3))
@pytest.mark.parametrize("blocks", [1, 7, 8, 20])
def test_tars_of_smaller_records_end_as_they_are_written(blocks, count, tmp_path):
    data = make_tar([*some(count), "last.jpg"])
    end = len(data.rstrip(b"\0"))
    end += -end % 512 + 1024
    padded = data[:end] + bytes(-end % (512 * blocks))
    assert len(contents(tmp_path / "t.tar", padded, "webdataset")) == count + 1


def test_more_zeros_than_a_record_are_refused_with_the_way_out(tmp_path):
    data = make_tar(some(3))
    for more in (RECORD, 64 * RECORD, 100):
        with pytest.raises(DataError, match=r"t\.tar: damaged at byte .* zeros to the end of the file.*fetch it again"):
            contents(tmp_path / "t.tar", data + bytes(more), "webdataset")


def test_tars_joined_by_cat_are_refused(tmp_path):
    with pytest.raises(DataError, match="two tars in one file"):
        contents(tmp_path / "t.tar", make_tar(["1.jpg"]) + make_tar(["2.jpg"]), "webdataset")


def test_a_thousand_extended_headers_are_damage(tmp_path):
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 5
    headers = (long.tobuf(tarfile.GNU_FORMAT) + b"x.jpg" + bytes(507)) * 3000
    with pytest.raises(DataError, match=r"t\.tar: damaged"):
        contents(tmp_path / "t.tar", headers + bytes(1024), "webdataset")
