"""Updates that are cut off: by servers that hang up, and by kills at any point."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from edgellm.edgefile import verify
from edgellm.errors import DeviceError, FormatError, InvalidArgumentError
from edgellm.fleet.source import Artefacts
from edgellm.store.store import Store
from kill_points import KillableWork

pytest.importorskip("cryptography")

from fleet.place import Fleet

MEMORY = 1 << 30
HERE = Path(__file__).parent


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


# ---- over HTTP


class Server(ThreadingHTTPServer):
    """Files of a folder. ranges: whether it knows them; cut: bytes after which it hangs up."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ranges, self.cut = folder, True, 0
        self.asked: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        server, path = self.server, self.server.folder / self.path.lstrip("/")
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        server.asked.append((self.path, self.headers.get("Range") or ""))
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        is_part = span is not None and server.ranges
        begin, end = (int(span[1]), int(span[2]) + 1) if is_part else (0, len(data))
        part = data[begin:end]
        self.send_response(206 if is_part else 200)
        if is_part:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if server.cut and len(part) > server.cut:
            part, self.close_connection = part[: server.cut], True
        try:
            self.wfile.write(part)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("ranges", [True, False])
def test_an_update_over_http(ranges: bool, fleet: Fleet) -> None:
    old, new = fleet.variant("old", [*range(8)]), fleet.variant("new", [*range(7), 9])
    with serving(fleet.folder) as server, Artefacts(server.url) as artefacts:
        server.ranges = ranges
        fleet.publish(("1.0.0", 100, old))
        assert fleet.update(artefacts).what == "new"
        fleet.publish(("1.1.0", 100, new))
        fetched = fleet.update(artefacts).fetched
        assert fetched.fetched_bytes < 90_000
        verify(fleet.device.active("m").path)
        assert ("/models/new.edge", "bytes=0-16383") in server.asked


def test_a_download_that_breaks_off_goes_on(fleet: Fleet) -> None:
    fleet.publish(("1.0.0", 100, fleet.variant("one", [*range(8)], 1_500_000)))
    with serving(fleet.folder) as server, Artefacts(server.url) as artefacts:
        server.cut = 4 << 20
        with pytest.raises(DeviceError, match="IncompleteRead"):
            fleet.update(artefacts)
        server.cut = 0
        fetched = fleet.update(artefacts).fetched
    assert fetched.kept_bytes >= 3 << 20
    with pytest.raises(DeviceError, match="no answer"):
        fleet.update(artefacts)


def test_locations_that_are_none(tmp_path: Path) -> None:
    for location in ("ftp://x/y", "file://elsewhere/x"):
        with pytest.raises(InvalidArgumentError):
            Artefacts(location)
    with pytest.raises(FormatError, match="there is no"):
        Artefacts((tmp_path / "a b").as_uri()).index()


# ---- kills

KILLED = """
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import filelock
from edgellm.fleet.device import FleetDevice
from edgellm.fleet.health import Health
from edgellm.fleet.source import Artefacts
from edgellm.store.store import Store
folder = Path(sys.argv[1])
def work(count):
    device = FleetDevice(Store(folder / "store"), "kitchen", health=lambda *_: Health(""))
    artefacts = Artefacts(str(folder / "dist"))
    device.update(artefacts, "pi", "m", memory_bytes=1 << 30, on_bytes=count)
"""


def killed_updates(fleet: Fleet, n_kills: int) -> int:
    """Updates, each killed until it ends -> kills. After every one the old or the new model is
    there, whole, and what runs is one of them."""
    rng, at, killed = np.random.default_rng(11), 0, 0
    variants = [fleet.variant(str(seed), [seed, 2, 3, 4], 9000) for seed in (10, 11, 12)]
    fleet.publish(("1.0.0", 100, variants[0]))
    fleet.update()
    store = Store(fleet.scratch / "store")
    with KillableWork(KILLED, fleet.scratch, HERE.parent) as work:
        while killed < n_kills:
            at += 1
            before, new = variants[(at - 1) % 3], variants[at % 3]
            fleet.publish((f"1.{at}.0", 100, new))
            while not work.ended_before_kill(int(rng.integers(1, 36))):
                killed += 1
                active = fleet.device.active("m")
                assert active is not None
                assert active.model.digest in (before.header_sha256, new.header_sha256)
                assert verify(active.path).metadata["edgellm.header_sha256"] == active.model.digest
            assert fleet.device.active("m").model.digest == new.header_sha256
            assert set(store.index().models) == {before.header_sha256, new.header_sha256}
            assert store.unfinished() == {}
    return killed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_kills_during_updates_leave_the_old_or_the_new_model(fleet: Fleet) -> None:
    assert killed_updates(fleet, 20) >= 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_two_hundred_kills_during_updates(fleet: Fleet) -> None:
    assert killed_updates(fleet, 200) >= 200
