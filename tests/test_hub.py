"""Pushing a backbone, against a local server that speaks the part of the Hub's HTTP interface that a push needs."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sept.app.hub import FILES, push
from sept.errors import ConfigError

TOKEN = "hf_token_of_the_test"


class Hub(ThreadingHTTPServer):
    """Repositories by name: visibility and files. Small files arrive in the commit, weights by LFS, as at the Hub."""

    def __init__(self, refuse=""):
        super().__init__(("127.0.0.1", 0), Requests)
        self.refuse = refuse  # the part of a path that is answered with 403
        self.repositories, self.blobs, self.visibility = {}, {}, {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Requests(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format, *args):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_PUT(self):
        if self.server.refuse and self.server.refuse in self.path:
            return self.answer({"error": "This namespace is not yours"}, 403)
        self.server.blobs[self.path.rsplit("/", 1)[1]] = self.body()
        self.answer({})

    def do_POST(self):
        body, hub = self.body(), self.server
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid credentials"}, 401)
        elif hub.refuse and hub.refuse in self.path:
            self.answer({"error": "This namespace is not yours"}, 403)
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            self.answer({"files": [self.upload(file["path"]) for file in json.loads(body)["files"]]})
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            action = [{**o, "actions": {"upload": {"href": f"{hub.url}/blobs/{o['oid']}"}}} for o in objects]
            self.answer({"transfer": "basic", "objects": action})
        elif self.path.endswith("/commit/main"):
            self.commit([json.loads(line) for line in body.splitlines()])
        else:
            self.answer({"error": f"no {self.path} here"}, 404)

    def upload(self, path):
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        private = asked.get("private", asked.get("visibility") == "private")
        known = name in self.server.repositories
        self.server.repositories.setdefault(name, {})
        self.server.visibility.setdefault(name, "private" if private else "public")
        self.answer({"url": f"{self.server.url}/{name}", "name": name}, 409 if known else 200)

    def commit(self, lines):
        name = "/".join(self.path.split("/")[3:5])
        repository = self.server.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                blob = self.server.blobs[value["oid"]]
                assert hashlib.sha256(blob).hexdigest() == value["oid"]
                repository[value["path"]] = blob
        oid = "0" * 40
        self.answer({"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid})


@pytest.fixture
def serve():
    """Starts hubs, and stops them after the test."""
    hubs = []

    def start(**settings):
        hubs.append(Hub(**settings))
        threading.Thread(target=hubs[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return hubs[-1]

    yield start
    for hub in hubs:
        hub.shutdown()
        hub.server_close()


@pytest.fixture
def backbone(tmp_path):
    """The files of a saved backbone, and one that is none of them; sept's own reader has no part in this."""
    folder = tmp_path / "backbone"
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(range(8)))
    (folder / "config.json").write_text('{"architecture": "resnet18"}')
    (folder / "README.md").write_text("---\nlibrary_name: timm\n---\n# é\n", encoding="utf-8")
    (folder / "notes.txt").write_text("mine")
    return folder


def run(folder, *arguments, endpoint, token=TOKEN, home):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-m", "sept.app.hub", str(folder), *arguments],
        env=environment | ({"HF_TOKEN": token} if token else {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def content(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_a_pushed_backbone_arrives_byte_for_byte_in_a_private_repository(serve, backbone, tmp_path):
    hub = serve()
    done = run(backbone, "ann/swin", endpoint=hub.url, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{hub.url}/ann/swin\n"
    assert hub.repositories == {"ann/swin": content(backbone)}
    assert hub.visibility == {"ann/swin": "private"}


def test_a_second_push_takes_the_place_of_the_first(serve, backbone, tmp_path):
    hub = serve()
    hub.repositories["ann/swin"], hub.visibility["ann/swin"] = {"README.md": b"old", "LICENSE": b"MIT"}, "public"
    done = run(backbone, "ann/swin", "--public", endpoint=hub.url, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert hub.repositories == {"ann/swin": {"LICENSE": b"MIT", **content(backbone)}}


def test_only_when_asked_for_is_a_repository_public(serve, backbone, tmp_path):
    hub = serve()
    assert run(backbone, "ann/swin", "--public", endpoint=hub.url, home=tmp_path).returncode == 0
    assert hub.visibility == {"ann/swin": "public"}


def test_what_the_hub_refuses_is_told_in_one_line(serve, backbone, tmp_path):
    for refused in ("/api/repos/create", "/objects/batch", "/blobs/", "/commit/"):
        done = run(backbone, "bob/swin", endpoint=serve(refuse=refused).url, home=tmp_path)
        assert done.returncode == 70
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert line.startswith(f"{backbone} was not pushed to bob/swin: ")
        assert "403" in line
        assert "This namespace is not yours" in line


def test_a_wrong_token_is_told_in_one_line(serve, backbone, tmp_path):
    done = run(backbone, "ann/swin", endpoint=serve().url, token="hf_wrong", home=tmp_path)
    assert done.returncode == 70
    [line] = done.stderr.splitlines()
    assert "401" in line
    assert "hf_wrong" not in line


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(backbone, tmp_path):
    done = run(backbone, "ann/swin", endpoint="http://127.0.0.1:9", home=tmp_path)
    assert done.returncode == 70
    [line] = done.stderr.splitlines()
    assert "was not pushed to ann/swin: " in line


def test_without_a_token_the_way_to_get_one_is_told(backbone, tmp_path):
    done = run(backbone, "ann/swin", endpoint="http://127.0.0.1:9", token="", home=tmp_path)
    assert done.returncode == 78
    assert done.stderr == "no Hugging Face token: log in with `hf auth login`, or set HF_TOKEN\n"


@pytest.mark.parametrize("missing", FILES)
def test_a_folder_that_is_no_backbone_is_refused(backbone, missing):
    (backbone / missing).unlink()
    with pytest.raises(ConfigError, match=f"{backbone} has no {missing}: pass the folder `backbone`"):
        push(backbone, "ann/swin")


def test_cut_weights_are_not_pushed(backbone):
    path = backbone / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="not a readable safetensors file"):
        push(backbone, "ann/swin")
