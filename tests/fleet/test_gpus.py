"""Steps that are to have GPUs: what the manifest says, and what engines make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgellm.converters.fleet import ray_engine
from edgellm.converters.fleet.graph import plan_graph
from edgellm.converters.fleet.local import LocalEngine
from edgellm.converters.fleet.node import Node

from edgellm.errors import InvalidArgumentError
from fleet.kitchen import manifest_in, manifest_text, models_in


@pytest.fixture
def models(tiny_checkpoint: Path, tmp_path: Path) -> list[Path]:
    return models_in(tmp_path, tiny_checkpoint, 1)


def test_steps_with_gpus_run_one_at_a_time() -> None:
    engine = LocalEngine(Path("work"), 1000, 3)
    plain, greedy = (Node("x", "x", {"at": n}, gpus=n) for n in (0, 2))
    engine._running = {"a": (greedy, None, None)}
    assert engine.has_room(plain)
    assert not engine.has_room(greedy)
    engine._running = {"a": (plain, None, None)}
    assert engine.has_room(greedy)


def test_gpus_of_a_step_are_no_part_of_what_it_gives(models: list[Path], tmp_path: Path) -> None:
    text = manifest_text(models, 1, 1)
    with_two = text.replace('format = "E8_32"', 'format = "E8_32"\ngpus = 2')
    plain, greedy = (
        plan_graph(manifest_in(tmp_path / name, one))
        for name, one in (("plain", text), ("greedy", with_two))
    )
    assert plain.nodes.keys() == greedy.nodes.keys()
    assert {node.gpus for node in plain.nodes.values()} == {0}
    assert sorted(node.gpus for node in greedy.nodes.values()) == [0, 2]
    for wrong in ("-1", "65", "0.5", "true", '"all"'):
        with pytest.raises(InvalidArgumentError, match="'gpus' is a whole number, 0 to 64"):
            manifest_in(tmp_path, with_two.replace("gpus = 2", f"gpus = {wrong}"))


def test_the_adapter_of_ray_stays_thin() -> None:
    """A sign that what a step is, and when it may begin, is decided elsewhere."""
    assert len(Path(ray_engine.__file__).read_text(encoding="utf-8").splitlines()) <= 150
