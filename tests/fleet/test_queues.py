"""The examples for queues: they parse, and do the steps that every engine does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from edgellm.converters.fleet import read_fleet, write_steps

from fleet.kitchen import files_of, manifest_in, manifest_text, models_in

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "fleet"


def test_the_kubernetes_job_does_one_step_a_pod() -> None:
    text = (EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8")
    settings, job = yaml.safe_load_all(text)
    assert (settings["kind"], job["kind"]) == ("ConfigMap", "Job")
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == len(settings["data"]["steps"].split())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for one in container["env"]:
        named = one["valueFrom"]["configMapKeyRef"]
        assert named["name"] == settings["metadata"]["name"]
        assert named["key"] in settings["data"]
    (script,) = container["args"]
    done = run_script(script, {"STEPS": "a b c", "WORK": "w", "JOB_COMPLETION_INDEX": "1"})
    assert done == ["fleet step b --work w"]
    volumes = {one["name"] for one in pod["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} <= volumes


def run_script(script: str, variables: dict[str, str]) -> list[str]:
    """What a script calls `edgellm` with."""
    stub = 'edgellm() { echo "$@"; }; exec() { "$@"; }\n'
    done = subprocess.run(
        ["bash", "-euc", stub + script],
        env={**os.environ, **variables},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_slurm_job_does_every_step_and_then_the_build(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """`srun` and `edgellm` only write down what they are called with."""
    manifest = manifest_in(
        tmp_path / "fleet", manifest_text(models_in(tmp_path, tiny_checkpoint, 1), 1, 2)
    )
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    calls = tmp_path / "calls"
    programs = {
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "edgellm": f'echo "$@" >> {calls}',
        "python": f'exec {sys.executable} "$@"',
    }
    for name, text in programs.items():
        path = bin_folder / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    where = manifest.base / "fleet.toml"
    subprocess.run(
        ["bash", str(EXAMPLES / "slurm.sh"), str(where)],
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    *steps, build = calls.read_text(encoding="utf-8").splitlines()
    stages = write_steps(read_fleet(where))
    wanted = {
        f"fleet step {digest} --work {manifest.work_dir.absolute()}"
        for stage in stages
        for digest in stage
    }
    assert set(steps) == wanted
    assert len(steps) == len(wanted)
    assert build == f"fleet build {where}"
    assert files_of(manifest.out) == {}
