"""Updates of a device: what they transfer, who gets what, the way back, and kills at any point."""

from __future__ import annotations

import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from edgellm.edgechunks import chunk_digests
from edgellm.edgefile import read_header, verify
from edgellm.errors import DeviceError, FormatError, IntegrityError, InvalidArgumentError
from edgellm.fleet.delta import fetch_file
from edgellm.fleet.device import FleetDevice
from edgellm.fleet.health import Health, check_health
from edgellm.fleet.index import Release, Variant
from edgellm.fleet.rollout import bucket, choose
from edgellm.fleet.source import Artefacts
from edgellm.fleet.state import Known, State, read_state, write_state
from edgellm.locate import resolve
from edgellm.store.store import Store
from kill_points import KillableWork

pytest.importorskip("cryptography")

from fleet.signing import index_of, layered_edge, publish, put, variant_of

MEMORY = 1 << 30
HERE = Path(__file__).parent


def well(*_: object) -> Health:
    return Health("", 10.0)


def ill(*_: object) -> Health:
    return Health("scores: others than where it was made", 10.0)


class Fleet:
    """A folder of artefacts, and a device that gets them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch = folder / "dist", folder
        self.folder.mkdir()
        self.device = FleetDevice(Store(folder / "store"), "kitchen", device_id="me", health=well)
        self.artefacts = Artefacts(str(self.folder))
        self.sequence = 0

    def variant(self, name: str, seeds: list[int], n_bytes: int = 50_000) -> Variant:
        path = layered_edge(self.scratch / f"{name}.edge", seeds, n_bytes)
        return variant_of(self.folder, name, path, None)

    def publish(self, *releases: tuple[str, int, Variant]) -> None:
        self.sequence += 1
        publish(self.folder, index_of(*releases, sequence=self.sequence), None)

    def update(self, artefacts: Artefacts | None = None):
        return self.device.update(artefacts or self.artefacts, "pi", "m", memory_bytes=MEMORY)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def layers_bytes(variant: Variant, folder: Path, names: list[str]) -> int:
    header = read_header(folder / variant.file.name)
    return sum(header.tensors[name].stored_bytes for name in names)


# ---- transfer


def test_three_changed_layers_transfer_little_more_than_their_bytes(fleet: Fleet) -> None:
    old = fleet.variant("old", [*range(20)], 150_000)
    fleet.publish(("1.0.0", 100, old))
    first = fleet.update()
    assert first.what == "new"
    assert first.fetched is not None
    assert first.fetched.fetched_bytes >= old.file.n_bytes - 4096
    seeds = [100, *range(1, 9), 101, *range(10, 19), 102]
    new = fleet.variant("new", seeds, 150_000)
    fleet.publish(("1.1.0", 100, new), ("1.0.0", 100, old))
    fetched = fleet.update().fetched
    assert fetched is not None
    changed = layers_bytes(new, fleet.folder, ["layers.0", "layers.9", "layers.19"])
    assert fetched.fetched_bytes + fetched.table_bytes <= 1.1 * changed
    assert fetched.copied_bytes >= 17 * 150_000
    verify(fleet.device.active("m").path)


def test_layers_that_moved_are_found_where_they_were(fleet: Fleet) -> None:
    """A layer in front, and one gone: every offset is another."""
    fleet.publish(("1.0.0", 100, fleet.variant("old", [*range(12)])))
    fleet.update()
    fleet.publish(("1.1.0", 100, fleet.variant("new", [50, *range(1, 12)])))
    fetched = fleet.update().fetched
    assert fetched.copied_bytes >= 11 * 50_000
    assert fetched.fetched_bytes < 90_000


def test_a_large_tensor_is_fetched_in_pieces_of_it(fleet: Fleet) -> None:
    old = fleet.variant("old", [1], 3 << 20)
    path = fleet.scratch / "new.edge"
    data = bytearray((fleet.scratch / "old.edge").read_bytes())
    start = read_header(fleet.scratch / "old.edge").data_start
    from edgellm.edgefile import EdgeWriter

    blob = data[start : start + (3 << 20)]
    blob[(1 << 20) + 5] ^= 1
    with EdgeWriter(path, spec={"arch": "none"}) as writer:
        writer.plan("layers.0", "blob", format="U8", shape=(len(blob),))
        writer.add("layers.0", bytes(blob))
    fleet.publish(("1.0.0", 100, old))
    fleet.update()
    fleet.publish(("1.1.0", 100, variant_of(fleet.folder, "new", path, None)))
    assert fleet.update().fetched.fetched_bytes < (1 << 20) + 40_000


def test_an_unfinished_file_goes_on_whatever_is_in_it(fleet: Fleet, tmp_path: Path) -> None:
    variant = fleet.variant("one", [*range(8)])
    whole = (fleet.folder / variant.file.name).read_bytes()
    part = tmp_path / "part"
    for damage in (whole[:200_000], bytes(len(whole)), whole[:100_000] + bytes(300_000) + b"x"):
        part.write_bytes(damage)
        found = fetch_file(fleet.artefacts, variant, part, [])
        assert part.read_bytes() == whole
        assert found.kept_bytes + found.fetched_bytes >= len(whole) - 4096
    assert fetch_file(fleet.artefacts, variant, part, []).kept_bytes > 390_000


def test_files_that_cannot_be_read_help_nobody_and_hurt_nobody(
    fleet: Fleet, tmp_path: Path
) -> None:
    variant = fleet.variant("one", [1, 2])
    junk = tmp_path / "junk.edge"
    junk.write_bytes(b"junk" * 9000)
    found = fetch_file(fleet.artefacts, variant, tmp_path / "part", [junk, tmp_path / "none"])
    assert found.copied_bytes == 0


# ---- who gets what


def test_a_share_of_devices_are_canaries_and_stay_so() -> None:
    buckets = [bucket(f"device{at}", "m", "1.1.0") for at in range(20_000)]
    for percent in (1, 10, 50):
        share = sum(one < percent for one in buckets) / len(buckets)
        assert share == pytest.approx(percent / 100, abs=0.01)
    again = [bucket(f"device{at}", "m", "1.1.0") for at in range(100)]
    assert again == buckets[:100]
    others = [bucket(f"device{at}", "m", "1.2.0") for at in range(20_000)]
    both = sum(a < 10 and b < 10 for a, b in zip(buckets, others, strict=True))
    assert both / 20_000 == pytest.approx(0.01, abs=0.004)


def test_the_first_that_fits_is_chosen(fleet: Fleet) -> None:
    large = replace(fleet.variant("large", [1]), recipe="large", memory_bytes=9 << 20)
    small = replace(fleet.variant("small", [2]), recipe="small", memory_bytes=1 << 20)
    releases = [Release("2.0.0", 0, (small,)), Release("1.0.0", 100, (large, small))]

    def chosen(memory_bytes: int, refused: tuple[str, ...] = ()):
        return choose(releases, "me", "m", memory_bytes=memory_bytes, refused=refused)

    assert chosen(10 << 20).variant == large
    assert chosen(2 << 20).variant == small
    assert "needs 9 MiB of memory, 2 are available" in chosen(2 << 20).notes[1]
    assert chosen(10 << 20, (large.file.sha256,)).variant == small
    assert chosen(100).variant is None


def test_a_canary_that_is_not_this_device_gets_the_version_before(fleet: Fleet) -> None:
    share = int(bucket("me", "m", "1.1.0"))
    old, new = fleet.variant("old", [1]), fleet.variant("new", [2])
    fleet.publish(("1.1.0", share, new), ("1.0.0", 100, old))
    assert fleet.update().version == "1.0.0"
    fleet.publish(("1.1.0", share + 1, new), ("1.0.0", 100, old))
    assert fleet.update().version == "1.1.0"


# ---- slots


def test_two_slots_and_the_way_back(fleet: Fleet) -> None:
    one, two, three = (fleet.variant(str(at), [at]) for at in (1, 2, 3))
    fleet.publish(("1.0.0", 100, one))
    assert fleet.update().what == "new"
    assert fleet.update().what == "same"
    for version, variant in (("1.1.0", two), ("1.2.0", three)):
        fleet.publish((version, 100, variant))
        assert fleet.update().version == version
    store = Store(fleet.scratch / "store")
    assert set(store.index().models) == {two.header_sha256, three.header_sha256}
    assert {path.stem for path in (store.directory / "objects").iterdir()} == set(
        store.index().models
    )
    back = fleet.device.roll_back("m", "the boss said so")
    assert (back.what, back.version) == ("again", "1.1.0")
    assert set(store.index().models) == {two.header_sha256}
    assert fleet.update().what == "none"  # what was rolled back is not taken again
    fleet.publish(("1.3.0", 100, one))
    assert fleet.update().version == "1.3.0"
    with pytest.raises(FormatError, match="has no kitchen/x"):
        fleet.device.check("x")


def test_a_switch_to_the_other_slot_fetches_nothing(fleet: Fleet) -> None:
    one, two = fleet.variant("1", [1]), fleet.variant("2", [2])
    for version, variant in (("1.0.0", one), ("1.1.0", two)):
        fleet.publish((version, 100, variant))
        fleet.update()
    fleet.publish(("1.0.0", 100, one))
    done = fleet.update()
    assert (done.what, done.version, done.fetched) == ("again", "1.0.0", None)


def test_what_fails_its_health_check_does_not_run(fleet: Fleet) -> None:
    one, two = fleet.variant("1", [1]), fleet.variant("2", [2])
    fleet.publish(("1.0.0", 100, one))
    fleet.update()
    fleet.device._health = ill
    fleet.publish(("1.1.0", 100, two), ("1.0.0", 100, one))
    done = fleet.update()
    assert (done.what, done.version) == ("refused", "1.0.0")
    assert done.health.failure.startswith("scores")
    fleet.device._health = well
    assert fleet.update().version == "1.0.0"  # not tried again
    known = fleet.device.state.known[two.header_sha256]
    assert (known.version, known.measured_tokens_per_s) == ("1.1.0", 10.0)
    assert set(Store(fleet.scratch / "store").index().models) == {one.header_sha256}


def test_what_fails_later_gives_way_to_what_ran_before(fleet: Fleet) -> None:
    for version, seed in (("1.0.0", 1), ("1.1.0", 2)):
        fleet.publish((version, 100, fleet.variant(version, [seed])))
        fleet.update()
    assert fleet.device.check("m").what == "same"

    def breaks(*_: object) -> Health:
        raise IntegrityError("damaged", code="leaf_hash")

    fleet.device._health = breaks
    done = fleet.device.check("m")
    assert (done.what, done.version) == ("again", "1.0.0")
    with pytest.raises(FormatError, match="nothing to go back to"):
        fleet.device.check("m")


def test_a_real_model_is_checked_by_its_own_scores(demo_path: Path, tmp_path: Path) -> None:
    """Whole: it passes. Promised faster than any machine is: it does not."""
    assert check_health(demo_path, None, 0.25).failure == ""
    slow = check_health(demo_path, 1e9, 0.25)
    assert "less than 25% of the planned" in slow.failure
    damaged = tmp_path / "demo.edge"
    shutil.copyfile(demo_path, damaged)
    with damaged.open("r+b") as file:
        file.seek(100_000)
        file.write(b"\0\1\2\3")
    assert "damaged" in check_health(damaged, None, 0.25).failure


def test_the_name_of_a_fleets_model_is_what_runs(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELLM_HOME", str(fleet.scratch))
    for version, seed in (("1.0.0", 1), ("1.1.0", 2)):
        fleet.publish((version, 100, fleet.variant(version, [seed])))
        fleet.update()
        assert resolve("kitchen/m") == resolve("kitchen/m:active") == fleet.device.active("m").path
    fleet.device.roll_back("m", "")
    assert resolve("kitchen/m") == fleet.device.active("m").path


# ---- state


def test_the_state_is_kept_and_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fleets" / "kitchen.json"
    first = read_state(path, "")
    assert re.fullmatch(r"[0-9a-f]{32}", first.device_id)
    state = State("me", b"root", 7, "2026-11-01T00:00:00Z", {"a": Known("1.0.0", "r", "0" * 64)})
    write_state(path, state)
    assert read_state(path, "") == state
    assert read_state(path, "other").device_id == "other"
    good = path.read_bytes()
    for damage in (b"", b"[]", good[:-5], good.replace(b'"version": 1', b'"version": 2')):
        path.write_bytes(damage)
        with pytest.raises(FormatError, match="give the trusted root again"):
            read_state(path, "")
    with pytest.raises(FormatError, match="is no id of a device"):
        read_state(tmp_path / "none", "a b")


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
    with pytest.raises(FormatError, match="no such file"):
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
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_two_hundred_kills_during_updates(fleet: Fleet) -> None:
    assert killed_updates(fleet, 200) >= 200


def test_pieces_are_of_the_bytes_that_are_there(tmp_path: Path) -> None:
    path = layered_edge(tmp_path / "a.edge", [1, 2], 5000)
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="ends within its tensors"):
        chunk_digests(header, path)
    assert put(tmp_path, "models/x", b"").n_bytes == 0
