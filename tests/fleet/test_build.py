"""Builds of fleets: what is shared, what fails alone, what is done again, and kills."""

from __future__ import annotations

import hashlib
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters.fleet import (
    EngineOptions,
    FleetManifest,
    FleetProgress,
    build_fleet,
    plan_fleet,
    run_step,
    write_steps,
)
from edgellm.converters.fleet.graph import plan_graph
from edgellm.converters.fleet.local import LocalEngine
from edgellm.converters.fleet.node import Node, read_node, write_node
from edgellm.converters.fleet.schedule import Schedule

from edgellm.cli import run_command_line
from edgellm.cli.exits import Exit
from edgellm.errors import DeviceError, EdgeError, FormatError
from edgellm.fleet.index import index_bytes, parse_index
from fleet.kitchen import (
    Inline,
    files_of,
    manifest_in,
    manifest_text,
    marks_of,
    models_in,
    share_tokenizer,
)
from kill_points import KillableWork

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def _one_tokenizer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        share_tokenizer(patch)
        yield


@pytest.fixture(scope="module")
def models(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return models_in(tmp_path_factory.mktemp("models"), tiny_checkpoint, 2)


def build(manifest: FleetManifest) -> tuple[Inline, object]:
    engine = Inline(manifest.work_dir)
    return engine, build_fleet(manifest, engine=lambda: engine)


@pytest.fixture(scope="module")
def built(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> FleetManifest:
    manifest = manifest_in(tmp_path_factory.mktemp("built"), manifest_text(models, 3, 2))
    build(manifest)
    return manifest


def test_processes_give_the_same_bytes(
    models: list[Path], built: FleetManifest, tmp_path: Path
) -> None:
    manifest = manifest_in(tmp_path / "fleet", manifest_text(models[:1], 1, 1))
    report = build_fleet(manifest, EngineOptions(workers=2))
    assert all(one.peak_rss_bytes for one in report.outcomes)
    here = files_of(built.out)
    made = files_of(manifest.out)
    assert len(made) == 4
    assert [name for name in made if name != "index.json" and here[name] != made[name]] == []


def test_two_models_for_three_devices(models: list[Path], tmp_path: Path) -> None:
    """Every file once for all devices."""
    manifest = manifest_in(tmp_path / "fleet", manifest_text(models, 3, 2))
    seen: list[FleetProgress] = []
    engine = Inline(manifest.work_dir)
    report = build_fleet(manifest, progress=seen.append, engine=lambda: engine)
    assert [one.state for one in report.variants] == ["done"] * 12
    assert len(report.outcomes) == 8  # two models, two recipes, made and described
    assert report.n_without_sharing == 24
    assert {one.n_steps for one in seen} == {8}
    assert seen[-1].n_steps_done == 8
    assert seen[-1].eta_s == 0
    index = parse_index((manifest.out / "index.json").read_bytes(), "index")
    assert len(index.files()) == 12
    assert sorted(index.devices) == ["device0", "device1", "device2"]
    speeds = [index.releases(f"device{at}", "model0")[0].variants[0].tokens_per_s for at in (0, 1)]
    assert speeds[1] == pytest.approx(2 * speeds[0], rel=1e-4)
    first = index.releases("device0", "model1")[0]
    assert (first.version, first.canary_percent) == ("1.0.0", 100)
    assert [one.recipe for one in first.variants] == ["e8_32", "e4_16"]
    for ref in index.files():
        data = (manifest.out / ref.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (ref.n_bytes, ref.sha256)


def test_built_again_nothing_is_done(built: FleetManifest) -> None:
    before, marks = files_of(built.out), marks_of(built.work_dir)
    engine, report = build(built)
    assert engine.labels == []
    assert all(one.was_done for one in report.outcomes)
    assert (files_of(built.out), marks_of(built.work_dir)) == (before, marks)
    plan = plan_fleet(built)
    assert (plan.n_steps, plan.n_done, plan.seconds) == (8, 8, 0)


def test_what_was_lost_or_damaged_is_made_again(built: FleetManifest) -> None:
    before = files_of(built.out)
    victim = sorted(built.work_dir.glob("steps/*/quantize-*/model.edge"))[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    next(built.out.glob("models/*.edge")).unlink()
    engine, _ = build(built)
    assert len(engine.labels) == 1
    assert files_of(built.out) == before


def test_another_recipe_takes_what_is_there(
    models: list[Path], built: FleetManifest, tmp_path: Path
) -> None:
    text = manifest_text(models, 1, 3, work=str(built.work_dir))
    engine, _ = build(manifest_in(tmp_path / "more", text))
    assert sorted(engine.labels) == [
        f"model{at}, e6_16: {do}" for at in (0, 1) for do in ("describe", "quantize")
    ]


def test_a_broken_model_fails_alone(models: list[Path], tmp_path: Path) -> None:
    """One that cannot be read, and one that breaks in a step."""
    broken, late = models_in(tmp_path, models[0], 2)
    (broken / "config.json").write_text("{", encoding="utf-8")
    weights = bytearray((late / "model.safetensors").read_bytes())
    weights[-40000:] = b"\xff" * 40000  # not finite
    (late / "model.safetensors").write_bytes(weights)
    late = late.rename(tmp_path / "late")
    broken = broken.rename(tmp_path / "broken")
    manifest = manifest_in(tmp_path, manifest_text([models[0], broken, late], 2, 2))
    _, report = build(manifest)
    states = {(one.model, one.state) for one in report.variants}
    assert states == {("model0", "done"), ("broken", "failed"), ("late", "failed")}
    assert {one.state for one in report.outcomes} == {"done", "failed", "skipped"}
    assert len(report.errors) == 3
    index = parse_index((manifest.out / "index.json").read_bytes(), "index")
    assert set(index.devices["device1"]) == {"model0"}


def test_a_device_gets_what_it_can_take(models: list[Path], tmp_path: Path) -> None:
    text = manifest_text(models[:1], 1, 2)
    text += '\n[[devices]]\nname = "narrow"\nformats = ["E4_16"]\nrecipes = ["e4_16", "e8_32"]\n'
    manifest = manifest_in(tmp_path, text)
    _, report = build(manifest)
    narrow = [one for one in report.variants if one.device == "narrow"]
    assert [(one.recipe, one.state, one.is_first) for one in narrow] == [
        ("e4_16", "done", True),
        ("e8_32", "unfit", False),
    ]
    assert "format" in narrow[1].reason


def test_an_oci_layout_leads_to_every_file(models: list[Path], tmp_path: Path) -> None:
    head = 'layout = "oci"'
    manifest = manifest_in(tmp_path, manifest_text(models[:1], 2, 1, head=head))
    build(manifest)
    layout = json.loads((manifest.out / "oci-layout").read_bytes())
    assert layout == {"imageLayoutVersion": "1.0.0"}
    seen: set[str] = set()

    def follow(descriptor: dict[str, object]) -> None:
        digest = str(descriptor["digest"]).removeprefix("sha256:")
        data = (manifest.out / "blobs" / "sha256" / digest).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, descriptor["size"])
        seen.add(digest)
        if ".oci.image." in str(descriptor["mediaType"]):
            document = json.loads(data)
            assert document["mediaType"] == descriptor["mediaType"]
            for one in (*document.get("manifests", ()), *document.get("layers", ())):
                follow(one)
            if "config" in document:
                follow(document["config"])

    top = json.loads((manifest.out / "index.json").read_bytes())
    assert [
        one["annotations"]["org.opencontainers.image.ref.name"] for one in top["manifests"]
    ] == [
        "kitchen",
        "device0",
        "device1",
    ]
    for one in top["manifests"]:
        follow(one)
    assert seen == {path.name for path in (manifest.out / "blobs" / "sha256").iterdir()}


def test_a_canary_keeps_the_version_before(
    models: list[Path], built: FleetManifest, tmp_path: Path
) -> None:
    head = f'canary_percent = 10\nextends = "{built.out}"'
    text = manifest_text(models[:1], 3, 1, head=head, version="1.1.0", sequence=2)
    manifest = manifest_in(tmp_path, text)
    build(manifest)
    index = parse_index((manifest.out / "index.json").read_bytes(), "index")
    releases = index.releases("device0", "model0")
    assert [(one.version, one.canary_percent) for one in releases] == [
        ("1.1.0", 10),
        ("1.0.0", 100),
    ]
    for ref in index.files():
        assert (manifest.out / ref.name).stat().st_size == ref.n_bytes
    assert parse_index(index_bytes(index), "again") == index
    text = manifest_text(models[:1], 3, 1, head=head, version="1.1.0", sequence=1)
    with pytest.raises(FormatError, match="the manifest's must be larger"):
        build(manifest_in(tmp_path, text))


def test_provenance_has_inputs_recipe_and_tools(built: FleetManifest) -> None:
    path = sorted(built.out.glob("models/*.json"))[0]
    value = json.loads(path.read_bytes())
    assert value["subject"]["sha256"][:12] in path.name
    assert value["recipe"]["steps"] == [{"do": "quantize", "format": "E4_16"}]
    assert set(value["steps"][0]["environment"]) == {"edgellm", "torch"}
    assert "model.safetensors" in json.dumps(value["inputs"])


# ---- steps


def digest_of_some(manifest: FleetManifest) -> str:
    return next(iter(plan_fleet(manifest).steps))["digest"]


def test_the_command_line_does_a_step_once(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = manifest_in(tmp_path, manifest_text(models[:1], 1, 1))
    arguments = ["fleet", "build", str(tmp_path / "fleet.toml"), "--dry-run", "--json"]
    assert run_command_line(arguments) == Exit.OK
    data = json.loads(capsys.readouterr().out)["data"]
    make, describe = (one["digest"] for one in data["steps"])
    assert not manifest.work_dir.exists()
    work = ["--work", str(manifest.work_dir), "--json"]
    assert run_command_line(["fleet", "step", make, *work]) == Exit.BAD_INPUT
    assert "no step" in capsys.readouterr().err
    schedule_of(manifest)
    assert run_command_line(["fleet", "step", describe, *work]) == Exit.BAD_INPUT
    assert f"first: edgellm fleet step {make}" in capsys.readouterr().err
    assert run_command_line(["fleet", "step", make, *work]) == Exit.OK
    assert not json.loads(capsys.readouterr().out)["data"]["was_done"]
    assert run_command_line(["fleet", "step", make, *work]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["data"]["was_done"]


def test_what_a_dry_run_cannot_plan_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest_in(tmp_path, manifest_text([tmp_path / "nowhere"], 1, 1))
    build = ["fleet", "build", str(tmp_path / "fleet.toml")]
    assert run_command_line([*build, "--dry-run"]) == Exit.BAD_INPUT
    said = capsys.readouterr().out
    assert "cannot be made: model 'nowhere': " in said
    assert f"{tmp_path / 'nowhere'}: no such directory" in said
    for words, why in (
        (["--memory", "lots"], "--memory is 'lots'"),
        (["--address", "here:1"], "an address is of a Ray cluster, but the engine is local"),
        (["--engine", "slurm"], "engine must be one of local, ray"),
        (["--artefacts", "zz://x"], "zz://x: no place for artefacts"),
    ):
        assert run_command_line([*build, *words]) == Exit.USAGE
        assert why in capsys.readouterr().err
    assert run_command_line([*build, "--memory", "1GiB"]) == Exit.BAD_INPUT
    assert "failed: model 'nowhere': " in capsys.readouterr().err


def schedule_of(manifest: FleetManifest) -> Schedule:
    """Its steps are written, none is done."""
    return Schedule(manifest.work_dir, plan_graph(manifest), None)


def test_a_step_refuses_what_is_not_what_was_planned(models: list[Path], tmp_path: Path) -> None:
    (source,) = models_in(tmp_path, models[0], 1)
    manifest = manifest_in(tmp_path, manifest_text([source], 1, 1))
    schedule_of(manifest)
    digest, work = digest_of_some(manifest), manifest.work_dir
    node = read_node(work, digest)
    path = work / "nodes" / f"{digest}.json"
    plain = path.read_bytes()
    for old, new, message in [
        (b'"E8_32"', b'"E4_16"', "settings have changed"),
        (b'"threads": 1', b'"threads": 2', "is not the step of its name"),
        (b'"do": "quantize",\n "label"', b'"do": 1,\n "label"', "not what describes a step"),
        (b'"version": 1,\n "do"', b'"version": 9,\n "do"', "no step of this version"),
    ]:
        assert old in plain
        path.write_bytes(plain.replace(old, new))
        with pytest.raises(FormatError, match=message):
            run_step(work, digest)
    other = Node(**{**vars(node), "about": {**node.about, "environment": {"torch": "0.1"}}})
    write_node(work, other)
    with pytest.raises(EdgeError, match="install the same versions"):
        run_step(work, other.digest)
    path.write_bytes(plain)
    (source / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FormatError, match="has changed since the build was planned"):
        run_step(work, digest)
    with pytest.raises(FormatError, match="no digest of a step"):
        run_step(work, "../../etc/passwd")


def test_a_killed_worker_is_a_failure_of_its_step(models: list[Path], tmp_path: Path) -> None:
    manifest = manifest_in(tmp_path, manifest_text(models[:1], 1, 1))
    schedule_of(manifest)
    engine = LocalEngine(manifest.work_dir, 1 << 40, 2)
    node = read_node(manifest.work_dir, digest_of_some(manifest))
    engine.start(node)
    engine._running[node.digest][1].kill()
    told = engine.wait()
    assert isinstance(told.error, DeviceError)
    assert "killed by signal 9" in str(told.error)
    engine.close()


def test_memory_bounds_what_runs_at_once() -> None:
    engine = LocalEngine(Path("work"), 1000, 3)
    large, small = (Node("x", "x", {"at": n}, memory_bytes=n) for n in (2000, 400))
    assert engine.has_room(large)  # alone
    engine._running = {"a": (small, None, None)}
    assert engine.has_room(small)
    assert not engine.has_room(large)
    engine._running = {"a": (small, None, None), "b": (small, None, None)}
    assert not engine.has_room(small)


def test_stages_for_queues_need_nothing_of_later_ones(models: list[Path], tmp_path: Path) -> None:
    """What examples/fleet/ does: stage after stage by whoever, then a build that finds all done."""
    manifest = manifest_in(tmp_path, manifest_text(models[:1], 1, 2))
    stages = write_steps(manifest)
    assert [len(one) for one in stages] == [2, 2]
    for stage in stages:
        for digest in reversed(stage):
            assert not run_step(manifest.work_dir, digest).was_done
    assert write_steps(manifest) == []
    engine, _ = build(manifest)
    assert engine.labels == []
    script = HERE.parents[1] / "examples" / "fleet" / "stages.py"
    shown = runpy.run_path(str(script))
    shown["main"](tmp_path / "fleet.toml")


# ---- kills

KILLED = """
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import filelock, pytest
from fleet.kitchen import Inline, share_tokenizer
from edgellm.converters import pipeline
from edgellm.converters.fleet import build_fleet, read_fleet
from edgellm.converters.plan import Job, Options
from edgellm.converters.sources import open_checkpoint
manifest = read_fleet(Path(sys.argv[1]))
share_tokenizer(pytest.MonkeyPatch())
with open_checkpoint(manifest.models[0].source) as checkpoint:
    pipeline.text_blobs(Job(checkpoint, Options("F16", None, None, None)))
def work(count):
    build_fleet(manifest, progress=count, engine=lambda: Inline(manifest.work_dir))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize("layout", ["directory", "oci"])
def test_kills_change_no_byte(layout: str, models: list[Path], tmp_path: Path) -> None:
    """In steps, between them, and while artefacts are written; what was done is not done again."""
    head = f'layout = "{layout}"'
    plain = manifest_in(tmp_path / "plain", manifest_text(models[:1], 2, 2, head=head))
    build(plain)
    killed = manifest_in(tmp_path / "killed", manifest_text(models[:1], 2, 2, head=head))
    rng, marks = np.random.default_rng(3), {}
    with KillableWork(KILLED, tmp_path / "killed" / "fleet.toml", HERE.parent) as work:
        for at in [*rng.integers(1, 30, 8), 1_000_000]:
            ended = work.ended_before_kill(int(at))
            now = marks_of(killed.work_dir)
            assert {path: now[path] for path in marks} == marks
            marks = now
    assert ended
    assert files_of(killed.out) == files_of(plain.out)
    assert not list(killed.work_dir.glob("steps/*/.*.tmp"))
