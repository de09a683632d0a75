"""Small fleets for tests: manifests, and an engine that runs steps in this process."""

from __future__ import annotations

import json
import shutil
from collections import deque
from pathlib import Path

import pytest
from edgellm.converters import pipeline
from edgellm.converters.extras import text_blobs
from edgellm.converters.fleet import FleetManifest, read_fleet, run_step
from edgellm.converters.fleet.node import Node
from edgellm.converters.fleet.schedule import Told
from edgellm.converters.plan import Job

from edgellm.errors import EdgeError

HEAD = """
name = "kitchen"
version = "{version}"
out = "{out}"
work = "{work}"
sequence = {sequence}
"""
FORMATS = ("E8_32", "E4_16", "E6_16", "F16")


def share_tokenizer(patch: pytest.MonkeyPatch) -> None:
    """Proving one takes longer than all the rest here; all models have the same."""
    compiled: dict[bytes, dict[str, bytes]] = {}

    def blobs(job: Job) -> dict[str, bytes]:
        key = (job.checkpoint.directory / "tokenizer.json").read_bytes()
        if key not in compiled:
            compiled[key] = text_blobs(job)
        return {**compiled[key], "recipe": job.recipe.to_json().encode()}

    patch.setattr(pipeline, "text_blobs", blobs)


class Inline:
    """An engine without processes, one step at a time."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._started: deque[Node] = deque()
        self.labels: list[str] = []

    def has_room(self, node: Node) -> bool:
        return not self._started

    def start(self, node: Node) -> None:
        self._started.append(node)

    def wait(self) -> Told:
        node = self._started.popleft()
        self.labels.append(node.label)
        try:
            result = run_step(self._work, node.digest).to_dict()
        except EdgeError as error:
            return Told(node.digest, error=error)
        return Told(node.digest, result=result)

    def close(self) -> None:
        pass


def models_in(folder: Path, checkpoint: Path, n_models: int) -> list[Path]:
    """Copies of a checkpoint that differ in a number of their config."""
    paths = []
    for at in range(n_models):
        path = folder / f"model{at}"
        shutil.copytree(checkpoint, path)
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        config["rms_norm_eps"] = (at + 1) * 1e-6
        (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        paths.append(path)
    return paths


def manifest_text(
    models: list[Path],
    n_devices: int,
    n_recipes: int,
    *,
    head: str = "",
    version: str = "1.0.0",
    sequence: int = 1,
    out: str = "dist",
    work: str = "work",
) -> str:
    parts = [HEAD.format(version=version, sequence=sequence, out=out, work=work), head]
    for path in models:
        parts.append(f'[[models]]\nname = "{path.name}"\nsource = "{path}"\n')
    for at in range(n_devices):
        parts.append(f'[[devices]]\nname = "device{at}"\nread_gb_per_s = {at + 1}.0\n')
    for format in FORMATS[:n_recipes]:
        parts.append(f'[[recipes]]\nname = "{format.lower()}"\nformat = "{format}"\n')
    return "\n".join(parts)


def manifest_in(folder: Path, text: str) -> FleetManifest:
    folder.mkdir(exist_ok=True)
    path = folder / "fleet.toml"
    path.write_text(text, encoding="utf-8")
    return read_fleet(path)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file by its path, but for temporary ones."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".tmp")
    }


def marks_of(work: Path) -> dict[str, tuple[int, int]]:
    """Of every finished step, what changes when it is done again."""
    found = work.glob("steps/*/[!.]*/step.json")
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}
