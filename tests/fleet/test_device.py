"""Updates of a device: what they transfer, who gets what, the way back, and kills at any point."""

from __future__ import annotations

import mmap
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.edgechunks import chunk_digests
from edgellm.edgefile import read_header, verify
from edgellm.errors import FormatError, IntegrityError
from edgellm.fleet.delta import fetch_file
from edgellm.fleet.health import Health, check_health
from edgellm.fleet.index import Release, Variant
from edgellm.fleet.rollout import bucket, choose
from edgellm.fleet.state import Known, State, read_state, write_state
from edgellm.locate import resolve
from edgellm.store.store import Store

pytest.importorskip("cryptography")

from fleet.place import Fleet, ill, well
from fleet.signing import layered_edge, put, variant_of

MEMORY = 1 << 30
HERE = Path(__file__).parent


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
    with pytest.raises(FormatError, match="kitchen/x: nothing of this fleet runs here"):
        fleet.device.check("x")


@pytest.mark.skipif(sys.platform == "win32", reason="what is mapped is not deleted there")
def test_a_file_that_is_mapped_stays_what_it_was(fleet: Fleet) -> None:
    """While its slot is filled anew, and after nothing names it any more."""
    one, two, three = (fleet.variant(str(at), [at]) for at in (1, 2, 3))
    fleet.publish(("1.0.0", 100, one))
    fleet.update()
    path = fleet.device.active("m").path
    before = path.read_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for version, variant in (("1.1.0", two), ("1.2.0", three)):
            fleet.publish((version, 100, variant))
            fleet.update()
            assert fleet.device.active("m").path != path
            assert mapped[:] == before
            assert not path.exists() or path.read_bytes() == before
    assert not path.exists()


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


def test_the_manifest_of_the_docs_is_read(tmp_path: Path) -> None:
    from edgellm.converters.fleet import read_fleet

    text = (HERE.parents[1] / "docs" / "FLEET.md").read_text(encoding="utf-8")
    path = tmp_path / "fleet.toml"
    path.write_text(text.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    manifest = read_fleet(path)
    assert [one.name for one in manifest.devices] == ["pi5", "box"]
    assert [step.name for one in manifest.recipes for step in one.steps] == ["quantize"] * 2


def test_pieces_are_of_the_bytes_that_are_there(tmp_path: Path) -> None:
    path = layered_edge(tmp_path / "a.edge", [1, 2], 5000)
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="ends within its tensors"):
        chunk_digests(header, path)
    assert put(tmp_path, "models/x", b"").n_bytes == 0
