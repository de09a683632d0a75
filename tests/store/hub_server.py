"""A hub on this machine: what huggingface_hub asks for, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 4096  # from here on a file is in LFS, and has a SHA-256


class FakeHub(ThreadingHTTPServer):
    """repositories: name -> files. faults: file name -> what happens to its next requests, one
    each: "cut" after half of what was asked, "416", "garbage", "longer", "whole" (no range),
    "redirect", "missing". requests: (path, Range) of everything asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.refusal: tuple[int, str] | None = None  # status and X-Error-Code of every answer
        self.extra: list[dict[str, Any]] = []  # siblings that no honest hub would list
        self.requests: list[tuple[str, str | None]] = []
        self.tokens: list[str | None] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, directory: Path) -> None:
        self.repositories[name] = {p.name: p.read_bytes() for p in directory.iterdir()}

    def fetched(self, file: str) -> list[str | None]:
        """The ranges asked of one file."""
        return [span for path, span in self.requests if path.endswith(f"/{file}")]


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((path, self.headers.get("Range")))
        self.server.tokens.append(self.headers.get("Authorization"))
        if self.server.refusal is not None:
            status, code = self.server.refusal
            self._answer(status, b"{}", {"X-Error-Code": code})
        elif match := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            self._describe(match.group(1), match.group(2))
        elif match := re.fullmatch(r"/(.+)/resolve/(\w+)/(.+)", path):
            self._file(match.group(1), match.group(3))
        elif match := re.fullmatch(r"/cdn/(.+)/([^/]+)", path):
            self._send_file(self.server.repositories[match.group(1)][match.group(2)], "")
        else:
            self._answer(404, b"{}", {})

    def _describe(self, name: str, revision: str | None) -> None:
        files = self.server.repositories.get(name)
        if files is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in (None, "main", "v2", COMMIT):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            listed = [described(file, data) for file, data in files.items()]
            document = {"id": name, "sha": COMMIT, "siblings": [*listed, *self.server.extra]}
            self._answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, file: str) -> None:
        data = self.server.repositories[name].get(file)
        faults = self.server.faults[file]
        fault = faults.pop(0) if faults else ""
        if data is None or fault == "missing":
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif fault == "416":
            self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        elif fault == "redirect":
            elsewhere = f"http://localhost:{self.server.server_port}"  # another host, to a client
            self._answer(302, b"", {"Location": f"{elsewhere}/cdn/{name}/{file}"})
        elif fault == "longer":
            self._answer(200, data + b"more", {})
        else:
            self._send_file(bytes(len(data)) if fault == "garbage" else data, fault)

    def _send_file(self, data: bytes, fault: str) -> None:
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        begin = int(span.group(1)) if span and fault != "whole" else 0
        part = data[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(part)))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if fault == "cut":
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
            return
        self.wfile.write(part)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def described(file: str, data: bytes) -> dict[str, Any]:
    """An entry of "siblings"."""
    entry: dict[str, Any] = {"rfilename": file, "size": len(data)}
    entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if len(data) >= LARGE_BYTES:
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
    return entry


@contextmanager
def running() -> Iterator[FakeHub]:
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
