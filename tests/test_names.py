"""One rule for names at every place: suffixes in any case, hidden files never, "./a.png" is a.png."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sept.data.listed import stems
from sept.data.names import any_case, is_hidden, is_image, leads_outside, plain
from sept.data.sources.layouts import identify
from sept.data.sources.scan import scan
from sept.data.tasks import csv_list
from sept.errors import DataError


def test_suffixes_count_in_any_case():
    assert all(is_image(name) for name in ("a.JPG", "b/c.TiFf", "x.jpeg", ".png", "d.JFIF", "e.jpe", "f.apng"))
    assert not any(is_image(name) for name in ("a.jpg.txt", "jpg", "a.jpgx", ""))
    assert any_case("a-*.ZIP", ".zip") == "a-*.[zZ][iI][pP]"
    assert any_case("a*", ".zip") == "a*"


def test_a_dot_before_any_part_hides_and_a_dot_alone_does_not():
    assert all(is_hidden(name) for name in ("._a.png", "a/.git/b.png", "./._a.png", "...", "__MACOSX/._a.png"))
    assert not any(is_hidden(name) for name in ("./a.png", "../a.png", "a.b/c.png", "a./b.png"))


def test_dots_that_lead_nowhere_are_dropped_and_nothing_else_is():
    assert [plain(name) for name in ("./a.png", "././b/./c.png", "a.png")] == ["a.png", "b/c.png", "a.png"]
    for name in ("/a.png", "..", ".", "", "./..", ".//etc/a.png", "a//b.png", "b/../a.png", "a.png/", "a/."):
        assert leads_outside(plain(name)), name


def archive(path: Path, kind: str, images: list[str]) -> None:
    """One of the images, each of which holds its own name."""
    if kind == "parquet":
        pq.write_table(pa.table({"image": [name.encode() for name in images]}), path)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as into:
            for name in images:
                into.writestr(name, name)
    else:
        with tarfile.open(path, "w") as tar:
            for name in images:
                member = tarfile.TarInfo(name)
                member.size = len(name)
                tar.addfile(member, io.BytesIO(name.encode()))


KINDS = {"webdataset": "tar", "zip": "zip", "parquet": "parquet"}


@pytest.fixture(params=KINDS)
def mixed(request, tmp_path):
    """Kind and folder of two archives, one in capitals, beside files that macOS and half-done copies leave."""
    suffix = KINDS[request.param]
    archive(tmp_path / f"a.{suffix}", request.param, ["1.png", "2.PNG"])
    archive(tmp_path / f"B.{suffix.upper()}", request.param, ["3.png"])
    for name in (f"._a.{suffix}", f"._B.{suffix.upper()}", f".a.{suffix}.Xy12"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(200))
    return request.param, tmp_path, suffix


@pytest.mark.parametrize("pattern", ["", "*.{suffix}", "*.{capitals}", "[aB].{suffix}"])
def test_archives_count_whatever_the_case_of_their_suffix_and_hidden_ones_never(pattern, mixed):
    kind, folder, suffix = mixed
    path = str(folder / pattern.format(suffix=suffix, capitals=suffix.upper()))
    entries = list(scan(kind, path, "s"))
    assert [entry.shard for entry in entries] == [f"B.{suffix.upper()}", f"a.{suffix}", f"a.{suffix}"]
    assert identify(kind, path) == identify(kind, str(folder))


def test_remote_archives_are_found_by_the_same_rule(mixed):
    fsspec = pytest.importorskip("fsspec")
    kind, folder, suffix = mixed
    memory = fsspec.filesystem("memory")
    try:
        for path in folder.iterdir():
            memory.pipe(f"/names/{path.name}", path.read_bytes())
        for url in ("memory://names", f"memory://names/*.{suffix}"):
            assert [entry[1:] for entry in scan(kind, url, "s")] == [e[1:] for e in scan(kind, str(folder), "s")]
    finally:
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]


def test_archives_that_differ_in_the_case_of_their_suffix_alone_are_refused(tmp_path):
    for name in ("a.zip", "a.ZIP"):
        archive(tmp_path / name, "zip", ["1.png"])
    if len(os.listdir(tmp_path)) == 2:
        with pytest.raises(DataError, match=r"'a\.ZIP' and 'a\.zip' differ in their suffix's case alone; rename one"):
            identify("zip", str(tmp_path))


@pytest.mark.parametrize("kind", ["webdataset", "zip"])
def test_a_member_under_two_spellings_of_its_name_is_refused(kind, tmp_path):
    archive(tmp_path / f"a.{KINDS[kind]}", kind, ["x/1.png", "./x/1.png"])
    with pytest.raises(DataError, match="twice; repack"):
        list(scan(kind, str(tmp_path), "s"))


def test_a_list_made_by_find_is_read(tmp_path):
    for name in ("a.png", "b/c.JPG", "._a.png", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.txt").write_text("./a.png\n./._a.png\n./b/c.JPG\n./.cache/d.png\n./.DS_Store\n")
    assert [entry.key for entry in scan("list", str(tmp_path / "list.txt"), "s")] == ["a.png", "b/c.JPG"]
    (tmp_path / "list.txt").write_text("./a.png\na.png\n")
    with pytest.raises(DataError, match=r"names 'a\.png' twice"):
        list(scan("list", str(tmp_path / "list.txt"), "s"))


def test_a_csv_file_follows_the_rule(tmp_path):
    names = ["a.png", "b.PNG", "c.png", "d.png", "._a.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"./{n},{'uv'[i % 2]}\n" for i, n in enumerate(names)))
    task = csv_list.read(tmp_path / "t.csv", 0.5, 0)
    assert sorted(example.id for example in task.train + task.test) == ["a.png", "b.PNG", "c.png", "d.png"]


def test_a_file_of_an_official_data_set_in_another_case_is_refused_not_left_out(tmp_path):
    for name in ("a.jpg", "b.JPG", "._c.JPG", "d.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"b\.JPG: the data set's files end in \.jpg; rename it"):
        stems(tmp_path, ".jpg", "unpack it")
    (tmp_path / "b.JPG").unlink()
    assert stems(tmp_path, ".jpg", "unpack it") == {"a"}
