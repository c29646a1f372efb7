"""Listings are complete and in one order on any disk, damage is never silent, what is read is what was stored."""

import io
import os
import pickle
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sept.data.sources import reader as sources
from sept.data.sources.digest import digest_listing
from sept.data.sources.files import Entry
from sept.data.sources.folder import list_folder
from sept.data.sources.layouts import expand_braces, find_tars
from sept.data.sources.reader import Reader
from sept.data.sources.tars import index_tar, list_tars
from sept.errors import ConfigError, DataError


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def make_tar(path: Path, members: dict[str, bytes], format: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def some_members(count: int = 6) -> dict[str, bytes]:
    return {f"{n:04d}.jpg": bytes([n + 1]) * (300 * n + 1) for n in range(count)}


# Folders


def test_folder_is_listed_at_any_depth_by_suffix_in_any_case_without_hidden_files(tmp_path):
    for name in ("b.JPG", "a/x.png", "a/deep/er/y.TiFF", "a-b.jpeg", "a.webp"):
        write(tmp_path / name, name.encode())
    for name in ("notes.txt", ".hidden.jpg", ".cache/c.jpg", "a/._x.png", "jpg", "folder.jpg/none.txt"):
        write(tmp_path / name)
    listing = list_folder(tmp_path, "web")
    keys = ["a-b.jpeg", "a.webp", "a/deep/er/y.TiFF", "a/x.png", "b.JPG"]  # "-" < "." < "/"
    assert listing == [Entry("web", key, key, 0, len(key)) for key in keys]


@settings(max_examples=20, deadline=None)
@given(
    order=st.permutations(["é.jpg", "z.jpg", "Z.jpg", "a b.jpg", "new\nline.jpg", "日本.jpg", "a/1.jpg", "a!/1.jpg"])
)
def test_listing_order_is_that_of_the_bytes_whatever_the_order_of_creation(order, tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    for name in order:
        write(root / name)
    assert [entry.key for entry in list_folder(root, "s")] == sorted(order, key=str.encode)


@pytest.mark.parametrize("make", [lambda root: None, lambda root: write(root / "readme.md")])
def test_a_missing_or_empty_folder_is_named_with_the_suffixes(make, tmp_path):
    make(tmp_path / "pool")
    with pytest.raises(DataError, match=r"pool: .*\.jpg \.jpeg .*\.tiff"):
        list_folder(tmp_path / "pool", "s")


def test_links_to_files_are_followed(tmp_path):
    target = write(tmp_path / "elsewhere" / "big.bin", b"12345")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.jpg").symlink_to(target)
    assert list_folder(tmp_path / "pool", "s") == [Entry("s", "a.jpg", "a.jpg", 0, 5)]
    assert Reader(tmp_path / "pool").read("a.jpg", 0, 5) == b"12345"


def test_links_that_would_lose_images_are_refused(tmp_path):
    write(tmp_path / "elsewhere" / "a.jpg")
    write(tmp_path / "pool" / "b.jpg")
    link = tmp_path / "pool" / "more"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="more' is a link to a folder"):
        list_folder(tmp_path / "pool", "s")
    link.unlink()
    (tmp_path / "pool" / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg"):
        list_folder(tmp_path / "pool", "s")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses such names itself")
@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"caf\xe9/a.jpg"])
def test_a_name_that_is_not_utf8_is_refused_in_readable_letters(name, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb"):
        pass
    with pytest.raises(DataError, match="not UTF-8; rename it") as caught:
        list_folder(tmp_path, "s")
    str(caught.value).encode()  # printable everywhere


# Names of tars


def test_braces_expand_in_order_and_keep_zeros():
    assert expand_braces("s-{008..011}.tar") == ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]
    assert expand_braces("{b,a}-{0..1}.tar") == ["b-0.tar", "b-1.tar", "a-0.tar", "a-1.tar"]
    assert expand_braces("plain.tar") == ["plain.tar"]


@pytest.mark.parametrize("pattern", ["s-{9..0}.tar", "s-{0...9}.tar", "s-{}.tar", "s-{5}.tar"])
def test_braces_that_mean_nothing_are_refused(pattern):
    with pytest.raises(ConfigError, match=r"s-\{"):
        expand_braces(pattern)


def test_tars_are_found_by_folder_glob_braces_and_name(tmp_path):
    folder = tmp_path / "odd [name]"
    for name in ("s-2.tar", "s-1.tar", "t-1.tar", "s-3.txt"):
        write(folder / name)
    names = lambda pattern: [path.name for path in find_tars(str(pattern))]  # noqa: E731
    assert names(folder) == ["s-1.tar", "s-2.tar", "t-1.tar"]
    assert names(folder / "s-*.tar") == ["s-1.tar", "s-2.tar"]
    assert names(folder / "s-{1..2}.tar") == ["s-1.tar", "s-2.tar"]
    assert names(folder / "t-1.tar") == ["t-1.tar"]


def test_missing_tars_are_named_and_counted(tmp_path):
    write(tmp_path / "s-000.tar")
    with pytest.raises(DataError, match=r"s-001\.tar: no such tar \(2 of 3 of"):
        find_tars(str(tmp_path / "s-{000..002}.tar"))
    for pattern in (tmp_path / "empty-*.tar", tmp_path / "none.tar"):
        with pytest.raises(DataError, match=r"no such tar|no tar found"):
            find_tars(str(pattern))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no tar found"):
        find_tars(str(tmp_path / "folder"))


# Tars

member_names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), max_size=120).map("n{}.jpg".format)


@settings(max_examples=60, deadline=None)
@given(
    members=st.dictionaries(member_names, st.binary(max_size=1500), min_size=1, max_size=6),
    format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
@example(members={"x" * 300 + ".jpg": b"long", "日本/é.png": b""}, format=tarfile.GNU_FORMAT)
def test_what_is_read_is_what_was_stored(members, format, tmp_path_factory):
    path = make_tar(tmp_path_factory.mktemp("tar") / "s.tar", members, format)
    listing = list_tars([path], "s")
    assert [entry.key for entry in listing] == [f"s/{name}" for name in members]
    reader = Reader(path.parent)
    assert [reader.read(entry.shard, entry.offset, entry.size) for entry in listing] == list(members.values())


def test_tars_are_listed_in_the_order_given_and_only_regular_visible_images_count(tmp_path):
    first = make_tar(tmp_path / "b.tar", {"./1.jpg": b"1", "1.json": b"{}", "__MACOSX/._1.jpg": b"m"})
    with tarfile.open(first, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("special.jpg")
            info.type, info.linkname = kind, "1.jpg"
            tar.addfile(info)
    second = make_tar(tmp_path / "a.tar", {"2.jpg": b"22"})
    listing = list_tars([first, second], "s")
    assert [(entry.key, entry.shard, entry.size) for entry in listing] == [
        ("b/./1.jpg", "b.tar", 1),
        ("a/2.jpg", "a.tar", 2),
    ]


def test_names_that_leave_the_folder_are_only_keys(tmp_path):
    (tmp_path / "in").mkdir()
    path = make_tar(tmp_path / "in" / "s.tar", {"../up.jpg": b"up", "/etc/abs.jpg": b"abs"})
    before = sorted(tmp_path.rglob("*"))
    listing = list_tars([path], "s")
    assert [entry.key for entry in listing] == ["s/../up.jpg", "s//etc/abs.jpg"]
    assert [Reader(path.parent).read(*entry[2:]) for entry in listing] == [b"up", b"abs"]
    assert sorted(tmp_path.rglob("*")) == before


def test_names_in_a_tar_that_are_not_utf8_are_escaped(tmp_path):
    path = make_tar(tmp_path / "s.tar", {"cafe.jpg": b"1"}, tarfile.GNU_FORMAT)
    info = tarfile.TarInfo("caf\udce9.jpg")
    info.size = 1
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + b"1" + bytes(511) + bytes(1024))
    (entry,) = list_tars([path], "s")
    assert entry.key == "s/caf\\xe9.jpg"
    assert Reader(tmp_path).read(*entry[2:]) == b"1"


def test_a_tar_cut_anywhere_is_refused(tmp_path):
    path = make_tar(tmp_path / "s.tar", some_members())
    data = path.read_bytes()
    end = list_tars([path], "s")[-1]
    closing = end.offset + -(-end.size // 512) * 512  # where the zero blocks begin
    for size in (*range(0, closing, 512), int(len(data) * 0.5), end.offset + 1, closing - 1, closing, closing + 511):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"s\.tar: "):
            list_tars([path], "s")


def test_a_cut_names_the_tar_the_byte_and_the_last_good_member(tmp_path):
    path = make_tar(tmp_path / "s.tar", some_members())
    third = list_tars([path], "s")[2]
    path.write_bytes(path.read_bytes()[: third.offset - 512])
    with pytest.raises(DataError, match=rf"s\.tar: cut off at byte {third.offset - 512:,}, after member '0001\.jpg'"):
        list_tars([path], "s")


@settings(max_examples=300, deadline=None)
@given(member=st.integers(0, 5), byte=st.integers(0, 511), flip=st.integers(1, 255))
def test_a_flipped_header_byte_is_refused_or_changes_nothing(member, byte, flip, tmp_path_factory):
    path = make_tar(tmp_path_factory.mktemp("flip") / "s.tar", some_members())
    whole = list_tars([path], "s")
    data = bytearray(path.read_bytes())
    data[whole[member].offset - 512 + byte] ^= flip
    path.write_bytes(data)
    before = f"after member '{member - 1:04d}.jpg'" if member else "after its start"
    try:
        listing = list_tars([path], "s")
    except DataError as refused:
        message = str(refused)
    else:
        message = f"s.tar: {before}"
        assert listing == whole
    assert "s.tar: " in message
    assert before in message


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_flipped_byte_in_an_extended_header_loses_no_image(format, tmp_path):
    members = {f"{'n' * 120}{n}.jpg": b"data" for n in range(3)}
    path = make_tar(tmp_path / "s.tar", members, format)
    data = path.read_bytes()
    places = {entry.offset for entry in list_tars([path], "s")}
    for place in range(0, min(places) - 512, 7):
        damaged = bytearray(data)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        try:
            listing = list_tars([path], "s")
        except DataError:
            continue
        found = {entry.offset for entry in listing}
        with tarfile.open(path) as tar:
            renamed = [name for name in tar.getnames() if not name.endswith(".jpg")]
        assert len(found) + len(renamed) == 3, place  # a damaged name may hide a suffix, never a member
        assert found <= places


def test_a_zeroed_block_is_not_taken_for_the_end(tmp_path):
    path = make_tar(tmp_path / "s.tar", some_members())
    header = list_tars([path], "s")[3].offset - 512
    data = bytearray(path.read_bytes())
    data[header : header + 512] = bytes(512)
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"damaged at byte {header:,}, after member '0002\.jpg'"):
        list_tars([path], "s")


def test_two_tars_in_one_file_are_refused(tmp_path):
    one = make_tar(tmp_path / "a.tar", some_members(2)).read_bytes()
    path = write(tmp_path / "both.tar", one + one)
    with pytest.raises(DataError, match="damaged at byte"):
        list_tars([path], "s")


def test_compressed_empty_and_other_files_are_refused(tmp_path):
    with tarfile.open(tmp_path / "zip.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    write(tmp_path / "text.tar", b"hello " * 500)
    write(tmp_path / "zero.tar", b"")
    for name in ("zip", "text", "zero"):
        with pytest.raises(DataError, match=rf"{name}\.tar: .*no uncompressed tar, after its start"):
            list_tars([tmp_path / f"{name}.tar"], "s")
    with pytest.raises(DataError, match="no image in 1 tars"):
        list_tars([make_tar(tmp_path / "none.tar", {"a.txt": b"1"})], "s")


def test_a_negative_size_does_not_read_backwards_for_ever(tmp_path):
    first = tarfile.TarInfo("a.jpg").tobuf(tarfile.GNU_FORMAT)
    info = tarfile.TarInfo("b.jpg")
    info.size = -1024
    path = write(tmp_path / "s.tar", first + first + info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DataError, match=r"s\.tar: "):
        list_tars([path], "s")


def test_a_sparse_member_is_refused(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,4",
        "GNU.sparse.size": "8",
    }
    info.size = 4
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"1234"))
    with pytest.raises(DataError, match=r"after member 'a\.jpg' .*sparse"):
        list_tars([path], "s")


def test_tars_of_a_source_lie_in_one_folder_and_are_listed_once(tmp_path):
    a = make_tar(tmp_path / "s.tar", some_members(1))
    (tmp_path / "other").mkdir()
    b = make_tar(tmp_path / "other" / "s.tar", some_members(1))
    with pytest.raises(DataError, match="several folders"):
        list_tars([a, b], "s")
    with pytest.raises(DataError, match="listed twice"):
        list_tars([a, a], "s")


def test_a_member_named_twice_is_refused(tmp_path):
    path = make_tar(tmp_path / "s.tar", some_members(2))
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("0001.jpg"), io.BytesIO(b""))
    with pytest.raises(DataError, match=r"s\.tar: holds the member '0001\.jpg' twice"):
        list_tars([path], "s")


def test_a_tar_is_indexed_as_it_is_read(tmp_path):
    path = make_tar(tmp_path / "s.tar", some_members())
    whole = list_tars([path], "s")
    path.write_bytes(path.read_bytes()[: whole[3].offset])
    stream = index_tar(path, "s")
    assert [next(stream) for _ in range(3)] == whole[:3]
    with pytest.raises(DataError):
        list(stream)


# Digest


def listed(kind: str, root: Path) -> list[Entry]:
    return list_folder(root, "s") if kind == "folder" else list_tars(find_tars(str(root)), "s")


def make_source(kind: str, root: Path) -> None:
    root.mkdir()
    if kind == "folder":
        for name, data in some_members().items():
            write(root / "c" / name, data)
    else:
        make_tar(root / "a.tar", some_members(3))
        make_tar(root / "b.tar", some_members(6))


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_digest_stays_when_the_source_moves_and_changes_when_it_is_edited(kind, tmp_path):
    make_source(kind, tmp_path / "old")
    before = digest_listing(listed(kind, tmp_path / "old"), tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    root = tmp_path / "new"
    entries = listed(kind, root)
    assert digest_listing(entries, root) == before
    for entry in (entries[0], entries[-1]):  # same names, same sizes, another byte
        shard = root / entry.shard
        data = bytearray(shard.read_bytes())
        data[entry.offset + entry.size - 1] ^= 1
        original = shard.read_bytes()
        shard.write_bytes(data)
        assert digest_listing(listed(kind, root), root) != before
        assert digest_listing(listed(kind, root), root, sample=False) == digest_listing(entries, root, sample=False)
        shard.write_bytes(original)
    assert digest_listing(entries, root) == before
    assert digest_listing(entries[:-1], root) != before
    assert digest_listing(entries[::-1], root) != before


def test_digest_knows_keys_and_sizes_apart(tmp_path):
    def of(*pairs: tuple[str, int]) -> str:
        entries = [Entry("s", key, "s.tar", 0, size) for key, size in pairs]
        return digest_listing(entries, tmp_path, sample=False)

    assert (
        len({of(("a", 1), ("b", 2)), of(("a", 12), ("b", 2)), of(("a1", 1), ("b", 2)), of(("a 1", 1), ("b", 2))}) == 4
    )


GOLDEN_DIGEST = "303b3a25fc41e4ceacdb8f9c9b766399b99357daf65aa693a0889572b67cf0ea"


def test_digest_is_stable_across_versions(tmp_path):
    """A changed digest asks everybody to embed their pools again."""
    make_source("folder", tmp_path / "s")
    assert digest_listing(list_folder(tmp_path / "s", "s"), tmp_path / "s") == GOLDEN_DIGEST


# Reader


def test_reader_survives_pickling_and_bounds_its_descriptors(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "OPEN_FILES", 4)
    contents = {f"{n}.jpg": b"%02d" % n for n in range(20)}
    for name, data in contents.items():
        write(tmp_path / name, data)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    reader = Reader(tmp_path)
    assert {name: reader.read(name, 0, 1) + reader.read(name, 1, 1) for name in contents} == contents
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before + 4
    again = pickle.loads(pickle.dumps(reader))
    assert again.read("7.jpg", 0, 2) == b"07"
    reader.close()
    assert reader.read("3.jpg", 0, 2) == b"03"
    del reader, again
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_reader_keeps_the_shards_in_use_open(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "OPEN_FILES", 2)
    for name in ("hot.tar", "1.jpg", "2.jpg", "3.jpg"):
        write(tmp_path / name, b"12345")
    reader = Reader(tmp_path)
    for name in ("hot.tar", "1.jpg", "hot.tar", "2.jpg", "hot.tar", "3.jpg"):
        reader.read(name, 0, 5)
    (tmp_path / "hot.tar").unlink()  # only a descriptor still open can read it
    assert reader.read("hot.tar", 1, 2) == b"23"


def test_reader_refuses_files_that_are_gone_or_shorter(tmp_path):
    write(tmp_path / "a.jpg", b"12345")
    reader = Reader(tmp_path)
    with pytest.raises(DataError, match=r"a\.jpg: 3 of 4 bytes at offset 2; the file changed"):
        reader.read("a.jpg", 2, 4)
    with pytest.raises(DataError, match=r"b\.jpg: cannot be read \(No such file"):
        reader.read("b.jpg", 0, 1)
