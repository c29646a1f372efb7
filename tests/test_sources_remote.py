"""Archives behind URLs: read by ranges, tried again, and never downloaded whole."""

import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sept.data.sources import remote
from sept.data.sources.layouts import identify, root
from sept.data.sources.reader import Reader
from sept.data.sources.scan import scan
from sept.errors import ConfigError, DataError


class Server(ThreadingHTTPServer):
    """Serves `files` by ranges; fails `failures` times first, ignores ranges when told so, and counts bytes sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.failures, self.ranges, self.sent = 0, True, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        data = self.server.files.get(self.path.lstrip("/"))
        if body and self.server.failures:
            self.server.failures -= 1
            return self.send_error(503)
        if data is None:
            return self.send_error(404)
        asked = self.headers.get("Range")
        part = data
        if asked and self.server.ranges:
            first, last = asked.removeprefix("bytes=").split("-")
            part = data[int(first) : int(last) + 1]
        self.send_response(206 if part is not data else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            self.server.sent += len(part)
            self.wfile.write(part)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "WAIT_S", 0.01)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def parquet(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    images = [{"bytes": data, "path": name} for name, data in members.items()]
    pq.write_table(pa.table({"image": images}), stream)
    return stream.getvalue()


MAKE = {"webdataset": ("tar", tar), "zip": ("zip", zipped), "parquet": ("parquet", parquet)}
FIRST = {"é 1.jpg": b"one", "x" * 150 + ".jpg": b"2" * 3000}
SECOND = {"3.JPG": b"three"}


@pytest.mark.parametrize("kind", MAKE)
def test_archives_behind_http_are_those_on_the_disk(kind, server, tmp_path):
    suffix, make = MAKE[kind]
    for name, members in ((f"a-0.{suffix}", FIRST), (f"a-1.{suffix}", SECOND)):
        server.files[f"shards/{name}"] = make(members)
        (tmp_path / name).write_bytes(make(members))
    url = f"{server.url}/shards/a-{{0..1}}.{suffix}"
    assert root(kind, url) == f"{server.url}/shards"
    assert identify(kind, url) == identify(kind, str(tmp_path))
    entries = list(scan(kind, url, "s"))
    assert entries == list(scan(kind, str(tmp_path), "s"))
    reader = Reader(root(kind, url))
    assert [reader.read(*entry[2:]) for entry in entries] == [*FIRST.values(), *SECOND.values()]
    reader.close()


def test_a_tar_is_indexed_and_read_without_being_downloaded(server):
    server.files["big.tar"] = tar({f"{n}.jpg": bytes(1_000_000) for n in range(20)})
    entries = list(scan("webdataset", f"{server.url}/big.tar", "s"))
    assert len(entries) == 20
    assert server.sent < 21 * (1 << 16)
    server.sent = 0
    Reader(server.url).read(*entries[7][2:])
    assert server.sent == 1_000_000


def test_a_failing_server_is_tried_three_times(server):
    server.files["a.tar"] = tar(SECOND)
    url = f"{server.url}/a.tar"
    server.failures = 2
    (entry,) = scan("webdataset", url, "s")
    server.failures = 2
    reader = Reader(server.url)
    assert reader.read(*entry[2:]) == b"three"
    server.failures = 3
    with pytest.raises(DataError, match=r"http://.*/a\.tar: cannot be read in 3 tries"):
        reader.read(*entry[2:])
    assert reader.read(*entry[2:]) == b"three"


def test_missing_shards_and_servers_that_ignore_ranges_are_named(server):
    server.files["a-0.tar"] = tar(FIRST)
    with pytest.raises(DataError, match=r"http.*/a-1\.tar: cannot be read \(FileNotFoundError.*; expected:"):
        identify("webdataset", f"{server.url}/a-{{0..1}}.tar")
    server.ranges = False
    server.files["a-0.tar"] = tar({f"{n}.jpg": bytes(200_000) for n in range(3)})
    with pytest.raises(DataError, match="sends the whole file for a part of it; copy it here"):
        list(scan("webdataset", f"{server.url}/a-0.tar", "s"))


def test_a_remote_tar_that_is_cut_is_refused(server):
    server.files["a.tar"] = tar(FIRST)[:1500]
    with pytest.raises(DataError, match=r"http://.*/a\.tar: (damaged|cut)"):
        list(scan("webdataset", f"{server.url}/a.tar", "s"))


@pytest.fixture
def memory():
    import fsspec

    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def test_a_remote_folder_and_a_glob_list_their_tars_by_name(memory):
    for name, members in (("b-1.tar", SECOND), ("b-0.tar", FIRST), ("c.tar", {"c.jpg": b"c"}), ("b-2.txt", {})):
        memory.pipe(f"/pool/{name}", tar(members))
    keys = [f"b-0/{name}" for name in FIRST] + ["b-1/3.JPG"]
    assert [entry.key for entry in scan("webdataset", "memory://pool/b-*.tar", "s")] == keys
    for folder in ("memory://pool", "memory://pool/"):
        assert [entry.key for entry in scan("webdataset", folder, "s")] == [*keys, "c/c.jpg"]
    with pytest.raises(DataError, match="no tar found"):
        root("webdataset", "memory://pool/d-*.tar")


def test_urls_are_for_archives_and_for_protocols_there_are(tmp_path: Path):
    with pytest.raises(ConfigError, match="a URL names webdataset, zip, parquet files; copy a folder source"):
        root("folder", "https://example.org/images")
    with pytest.raises(ConfigError, match=r"nothing://x/a\.tar: cannot be reached \(Protocol not known"):
        identify("webdataset", "nothing://x/a.tar")
