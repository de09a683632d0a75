"""Steps at a URL: machines that share no folder build one fleet, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="artefacts at a URL are not tested: pip install fsspec")

import fsspec
from edgellm.converters.fleet import (
    EngineOptions,
    FleetManifest,
    Mirror,
    build_fleet,
    run_mirrored,
    write_steps,
)
from edgellm.converters.fleet.mirror import _below
from edgellm.converters.fleet.node import node_path
from edgellm.converters.fleet.step import step_folder

from edgellm.errors import FormatError, InvalidArgumentError
from fleet.kitchen import (
    Inline,
    files_of,
    manifest_in,
    manifest_text,
    marks_of,
    models_in,
    share_tokenizer,
)


@pytest.fixture(scope="module", autouse=True)
def _one_tokenizer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        share_tokenizer(patch)
        yield


@pytest.fixture
def models(tiny_checkpoint: Path, tmp_path: Path) -> list[Path]:
    return models_in(tmp_path, tiny_checkpoint, 1)


def fleet_in(folder: Path, models: list[Path]) -> FleetManifest:
    return manifest_in(folder, manifest_text(models, 2, 2))


class Nothing:
    """An engine that has nothing to do."""

    def has_room(self, node: object) -> bool:
        raise AssertionError(f"{node} was not found at the URL")

    start = has_room

    def wait(self) -> None:
        raise AssertionError("nothing runs")

    def close(self) -> None:
        """Nothing does."""


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_machines_with_folders_of_their_own(
    scheme: str, models: list[Path], tmp_path: Path
) -> None:
    url = f"memory://{tmp_path.name}" if scheme == "memory" else (tmp_path / "url").as_uri()
    mirror, options = Mirror(url), EngineOptions(artefacts=url)
    here = fleet_in(tmp_path / "here", models)
    stages = write_steps(here, url)
    # Every step on another machine, which has nothing but the URL.
    at = 0
    for stage in stages:
        for digest in stage:
            at += 1
            assert not run_mirrored(tmp_path / f"node{at}", digest, mirror).was_done
    assert run_mirrored(tmp_path / "late", stages[-1][0], mirror).was_done
    report = build_fleet(here, options, engine=Nothing)
    assert {one.state for one in report.variants} == {"done"}
    alone = fleet_in(tmp_path / "alone", models)
    build_fleet(alone, engine=lambda: Inline(alone.work_dir))
    assert files_of(here.out) == files_of(alone.out)
    assert len(marks_of(here.work_dir)) == at


def test_half_of_a_step_at_the_url_counts_as_none(models: list[Path], tmp_path: Path) -> None:
    url = (tmp_path / "url").as_uri()
    mirror = Mirror(url)
    here = fleet_in(tmp_path / "here", models)
    first = write_steps(here, url)[0][0]
    run_mirrored(tmp_path / "one", first, mirror)
    there = tmp_path / "url" / "steps" / first
    (model,) = there.glob("*.edge")
    whole = model.read_bytes()
    model.write_bytes(whole[:-64])
    assert not run_mirrored(tmp_path / "two", first, mirror).was_done
    assert model.read_bytes() == whole  # which this one has sent again
    (there / "step.json").unlink()  # as if it had been killed while it sent
    assert not run_mirrored(tmp_path / "three", first, mirror).was_done
    assert json.loads((there / "step.json").read_text(encoding="utf-8"))["key"] == first
    assert step_folder(tmp_path / "three", first).is_dir()


def test_what_is_wrong_with_a_place_is_said(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="zz://x: no place for artefacts"):
        Mirror("zz://x")
    mirror = Mirror((tmp_path / "url").as_uri())
    with pytest.raises(FormatError, match="cannot be fetched: FileNotFoundError"):
        run_mirrored(tmp_path / "one", "0" * 64, mirror)
    assert list(node_path(tmp_path / "one", "0" * 64).parent.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    blocked = Mirror((tmp_path / "file" / "below").as_uri())
    with pytest.raises(FormatError, match="cannot be sent"):
        write_steps(fleet_in(tmp_path / "here", models), blocked.url)


@pytest.mark.parametrize("name", ["/other/x", "/root/steps/../x", "/root/steps/a\\b"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    assert _below("/root/steps", "/root/steps/a/b.edge") == "a/b.edge"
    assert _below("root/steps", "/root/steps/a") == "a"
    with pytest.raises(FormatError, match="leads out of its step"):
        _below("/root/steps", name)


def test_without_fsspec_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgellm.errors import UnsupportedError

    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'edgellm\[fleet\]'"):
        Mirror("memory://x")
    assert fsspec is not None
