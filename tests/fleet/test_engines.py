"""Four models for six devices by every engine: the same bytes, whatever is killed meanwhile.

Every kill comes when a step has told of itself so often, not after a time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from edgellm.converters.fleet import FleetManifest, build_fleet

from fleet.cluster import Cluster, below, cluster_in, listening
from fleet.kitchen import Inline, files_of, manifest_in, manifest_text, marks_of, models_in

N_KILLS = 50
N_RAY_KILLS = int(os.environ.get("EDGELLM_RAY_KILLS", "12"))  # a minute each on two cores
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]


@pytest.fixture(scope="module")
def models(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return models_in(tmp_path_factory.mktemp("models"), tiny_checkpoint, 4)


@pytest.fixture(scope="module")
def plain(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The artefacts, made step by step in this process."""
    manifest = manifest_in(tmp_path_factory.mktemp("plain"), manifest_text(models, 6, 2))
    report = build_fleet(manifest, engine=lambda: Inline(manifest.work_dir))
    assert {one.state for one in report.variants} == {"done"}
    assert len(report.variants) == 48
    return files_of(manifest.out)


def started(manifest: FleetManifest, *options: str) -> subprocess.Popen[bytes]:
    """A build as a process of its own."""
    command = [sys.executable, "-m", "edgellm", "fleet", "build"]
    path = manifest.base / "fleet.toml"
    return subprocess.Popen(
        [*command, str(path), "--workers", "2", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def workers_of(pid: int) -> list[int]:
    """Processes that do steps for a build."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes()
            parent = int((entry.parent / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid and b"\0step\0" in text:
            found.append(int(entry.parent.name))
    return found


def wait_for_steps(manifest: FleetManifest, process: subprocess.Popen[bytes], n_steps: int) -> bool:
    """Until so many steps are whole; whether the build still runs then."""
    while process.poll() is None:
        if len(marks_of(manifest.work_dir)) >= n_steps:
            return True
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            continue
    return False


def ended(process: subprocess.Popen[bytes]) -> int:
    _, _ = process.communicate()
    return process.returncode


def not_done_again(before: dict[str, tuple[int, int]], manifest: FleetManifest) -> None:
    now = marks_of(manifest.work_dir)
    assert {path: now.get(path) for path in before} == before


def test_fifty_kills_of_builds_and_workers(
    models: list[Path], plain: dict[str, bytes], tmp_path: Path
) -> None:
    rng, n_kills, n_whole = random.Random(1), 0, 0
    while n_kills < N_KILLS:
        manifest = manifest_in(tmp_path / f"run{n_whole}", manifest_text(models, 6, 2))
        marks: dict[str, tuple[int, int]] = {}
        while True:
            process = started(manifest)
            target = len(marks) + rng.randrange(4)
            if n_kills < N_KILLS and wait_for_steps(manifest, process, target):
                victims = workers_of(process.pid) if rng.random() < 0.5 else [process.pid]
                for victim in victims[:1]:
                    try:
                        os.kill(victim, signal.SIGKILL)
                        n_kills += 1
                    except ProcessLookupError:
                        continue
            code = ended(process)
            not_done_again(marks, manifest)
            marks = marks_of(manifest.work_dir)
            if code == 0:
                break
        assert files_of(manifest.out) == plain
        n_whole += 1
    print(f"{n_kills} kills in {n_whole} whole builds")


def test_two_nodes_of_ray_give_the_same_bytes(
    models: list[Path], plain: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="the engine ray is not tested: pip install 'edgellm[fleet]'")
    manifest = manifest_in(tmp_path / "ray", manifest_text(models, 6, 2))
    with cluster_in(tmp_path) as cluster:
        options = ["--engine", "ray", "--address", cluster.address]
        process = started(manifest, *options)
        _, said = process.communicate()
        assert process.returncode == 0, said.decode()
        assert files_of(manifest.out) == plain


def test_ray_gives_gpus_to_steps_that_ask_for_them(models: list[Path], tmp_path: Path) -> None:
    """The node with two says so only: no step computes on them. Who asks for more fails alone."""
    pytest.importorskip("ray", reason="the engine ray is not tested: pip install 'edgellm[fleet]'")
    text = manifest_text(models[:1], 1, 3)
    for name, n_gpus in (("e8_32", 2), ("e4_16", 3)):
        text = text.replace(f'name = "{name}"', f'name = "{name}"\ngpus = {n_gpus}')
    manifest = manifest_in(tmp_path / "gpus", text)
    seen = tmp_path / "seen"
    seen.mkdir()
    with cluster_in(tmp_path, n_gpus=2) as cluster:
        command = [sys.executable, "-c", _GPUS, str(manifest.base / "fleet.toml")]
        done = subprocess.run(
            [*command, cluster.address, str(seen)], capture_output=True, encoding="utf-8"
        )
    assert done.returncode == 0, done.stderr
    variants = {one["recipe"]: one for one in json.loads(done.stdout.splitlines()[-1])}
    states = {name: one["state"] for name, one in variants.items()}
    assert states == {"e8_32": "done", "e4_16": "failed", "e6_16": "done"}
    why = variants["e4_16"]["reason"]
    assert "is to have 3 GPUs, and no machine of Ray has more than 2" in why
    # Two files, each of which is made and described; one of the four steps had both GPUs.
    assert sorted(path.read_text() for path in seen.iterdir()) == ["0", "0", "0", "2"]


# In a process of its own: how nodes are asked for tokens Ray reads when it is imported.
_GPUS = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from edgellm.converters.fleet import build_fleet, read_fleet
from edgellm.converters.fleet.ray_engine import RayEngine, run_task
manifest, address, seen = read_fleet(Path(sys.argv[1])), sys.argv[2], sys.argv[3]

def told(work, digest, artefacts):
    import ray
    (Path(seen) / digest).write_text(str(len(ray.get_gpu_ids())))
    return run_task(work, digest, artefacts)

def watched():
    engine = RayEngine(manifest.work_dir, address)
    engine._task = engine._ray.remote(max_retries=3)(told)
    return engine

report = build_fleet(manifest, engine=watched)
print(json.dumps([asdict(one) for one in report.variants]))
"""


def test_kills_of_nodes_workers_and_drivers_of_ray(
    models: list[Path], plain: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="the engine ray is not tested: pip install 'edgellm[fleet]'")
    rng, n_kills, n_whole = random.Random(2), 0, 0
    with cluster_in(tmp_path) as cluster:
        options = ["--engine", "ray", "--address", cluster.address]
        while n_kills < N_RAY_KILLS:
            manifest = manifest_in(tmp_path / f"run{n_whole}", manifest_text(models, 6, 2))
            marks: dict[str, tuple[int, int]] = {}
            while True:
                process = started(manifest, *options)
                what = ("node", "worker", "driver")[n_kills % 3]
                target = len(marks) + rng.randrange(1, 4)
                if n_kills < N_RAY_KILLS and wait_for_steps(manifest, process, target):
                    n_kills += killed(what, cluster, process)
                _, said = process.communicate()
                assert process.returncode == 0 or what == "driver", said.decode()
                not_done_again(marks, manifest)
                marks = marks_of(manifest.work_dir)
                if process.returncode == 0:
                    break
            assert files_of(manifest.out) == plain
            n_whole += 1
    print(f"{n_kills} kills in {n_whole} whole builds")


def killed(what: str, cluster: Cluster, process: subprocess.Popen[bytes]) -> bool:
    """Whether there was one to kill."""
    if what == "node":
        cluster.kill_second()
        return True
    if what == "worker":
        return cluster.kill_worker()
    process.kill()
    return True


def test_ray_alone_listens_on_the_loopback_only(tmp_path: Path) -> None:
    """What the engine starts for itself; a cluster's nodes listen where they were told to."""
    pytest.importorskip("ray", reason="the engine ray is not tested: pip install 'edgellm[fleet]'")
    script = """
import sys
from pathlib import Path
from edgellm.converters.fleet.ray_engine import RayEngine
engine = RayEngine(Path(sys.argv[1]), "")
print("ready", flush=True)
sys.stdin.readline()
engine.close()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert any(line == "ready\n" for line in process.stdout)
        addresses = listening([process.pid, *below(process.pid)])
        process.stdin.write("\n")
    assert len(addresses) >= 2
    assert set(addresses) <= {"0100007F", "0" * 16 + "FFFF00000100007F"}
