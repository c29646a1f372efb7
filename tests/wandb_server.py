"""A stand-in for the server of W&B: takes runs as wandb's service sends them and keeps them as a real one would."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = 40 * "a"  # of the length of a real one
HISTORY, SUMMARY = "wandb-history.jsonl", "wandb-summary.json"


@dataclass
class Run:
    """What was sent of one run: lines of its streams, config, files."""

    config: str = "{}"
    streams: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def append(self, name: str, offset: int, lines: list[str]) -> None:
        kept = self.streams.setdefault(name, [])
        kept[offset:] = lines

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.streams.get(HISTORY, [])]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.streams.get(SUMMARY, ["{}"])[-1])


class Server(ThreadingHTTPServer):
    """Keeps runs by id. `silent`: takes requests from now on and answers none; `puzzled`: no question to its API."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, Run] = {}
        self.silent, self.puzzled = threading.Event(), threading.Event()
        self.closing = threading.Event()
        self.questions = 0
        self.views: list[dict[str, Any]] = []

    def handle_error(self, *arguments: Any) -> None:
        """A client that went away is none of a test's business."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        bucket: dict[str, Any]
        match operation:
            case "UpsertBucket":
                new = given["name"] not in self.runs
                run = self.runs.setdefault(given["name"], Run())
                run.config = given["config"] or run.config
                bucket = self._bucket(given["name"], run)
                return {"upsertBucket": {"bucket": bucket, "inserted": new}}
            case "RunResumeStatus":
                known = self.runs.get(given["name"])
                model = {"bucket": self._bucket(given["name"], known), **OWNER} if known else None
                return {"model": model}
            case "CreateRunFiles":
                urls = [{"name": name, "uploadUrl": f"{self.url}/put/{given['run']}/{name}"} for name in given["files"]]
                return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": urls}}
            case "UpsertView2":
                self.views.append(given)
                return {"upsertView": {"view": {"id": "1", "name": given["name"]}, "inserted": True}}
        return {"serverInfo": None, "viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}"}}

    def _bucket(self, name: str, run: Run) -> dict[str, Any]:
        counts = {part: len(run.streams.get(f"wandb-{part}.jsonl", [])) for part in ("history", "events")}
        tails = {part: json.dumps(run.streams.get(f"wandb-{part}.jsonl", [])[-1:]) for part in counts}
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "description": "",
            "sweepName": None,
            "config": run.config,
            "wandbConfig": json.dumps({"t": 1}),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": counts["history"],
            "eventsLineCount": counts["events"],
            "logLineCount": 0,
            "historyTail": tails["history"],
            "eventsTail": tails["events"],
            "tags": [],
            "project": {"id": "p", "name": "sept", "entity": {"id": "e", "name": "me"}},
        }


OWNER = {"name": "sept", "entity": {"id": "e", "name": "me"}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        _, _, run, name = self.path.split("/", 3)
        self.server.runs[run].files[name] = self._body()
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/graphql":
            asked = json.loads(body)
            operation = re.match(r"\s*(?:query|mutation)\s+(\w+)", asked["query"])
            name = operation.group(1) if operation else ""
            self._reply({"data": self.server.answer(name, asked.get("variables") or {})})
            return
        if self.path.endswith("/file_stream"):
            run = self.server.runs[self.path.split("/")[-2]]
            for name, part in (json.loads(body).get("files") or {}).items():
                run.append(name, part["offset"], part["content"])
        self._reply({"exitcode": None, "limits": {}})

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _reply(self, told: dict[str, Any]) -> None:
        self.server.questions += 1
        if self.server.silent.is_set() or (self.server.puzzled.is_set() and self.path == "/graphql"):
            self.server.closing.wait()
            return
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
