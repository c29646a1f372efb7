"""A stand-in for the Hugging Face Hub on localhost: repositories of files, served as huggingface_hub asks for them."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import constants
from timm.models import save_for_hf

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    """HEAD and GET of /OWNER/NAME/resolve/REVISION/FILE, with the headers that the client needs."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        hub = self.server.hub
        if "/resolve/" in self.path:  # beside them, the library asks for what concerns it alone
            hub.requests.append((self.command, self.path))
        if hub.silent:
            hub.closing.wait(60)
            self.close_connection = True
            return
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        if repository in hub.gated:
            self._refuse(403, "GatedRepo")
        elif repository not in hub.repositories:
            self._refuse(401, "RepoNotFound")
        elif name not in hub.repositories[repository]:
            self._refuse(404, "EntryNotFound")
        else:
            self._send(hub.repositories[repository][name], body)

    def _send(self, content, body):
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        part = content[first:]
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", self.server.hub.commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body and self.server.hub.cut is not None:
            part, self.server.hub.cut, self.close_connection = part[: self.server.hub.cut], None, True
        if body:
            self.wfile.write(part)

    def _refuse(self, status, code):
        content = json.dumps({"error": code}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("X-Repo-Commit", self.server.hub.commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: "Hub"


class Hub:
    """repositories: {"OWNER/NAME": {file: bytes}}. gated: names of those whose terms nobody
    has accepted. silent: connections are taken and nothing is answered. cut: bytes after which one download breaks."""

    def __init__(self):
        self.repositories, self.gated, self.requests = {}, set(), []
        self.silent, self.cut, self.commit = False, None, COMMIT
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def known_here(self, monkeypatch, cache):
        """This process asks this hub, with a cache of its own: the library has read the environment by now."""
        self.url_template(monkeypatch, self.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def url_template(self, monkeypatch, url):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")

    def publish(self, repository, files):
        """Another version of it, of another commit."""
        self.repositories[repository] = dict(files)
        self.commit = hashlib.sha1(files["model.safetensors"]).hexdigest()

    def environment(self, cache):
        """What a command is given to ask this hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": str(cache / "hub"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "",
        }


def published(network):
    """The files of a timm model as timm itself publishes it: config.json and model.safetensors."""
    with TemporaryDirectory() as folder:
        save_for_hf(network, folder, safe_serialization=True)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
