"""`edgellm.from_pretrained()`: paths, names of the store, the Hugging Face cache, the hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgellm
from edgellm.errors import FormatError, InvalidArgumentError, UnsupportedError
from store.hub_server import COMMIT, FakeHub, running

pytest.importorskip("huggingface_hub")
NAME = "owner/tiny"


@pytest.fixture
def hub(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    with running() as server:
        server.add(NAME, tiny_checkpoint)
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server


def text_of(model: edgellm.Model) -> list[int]:
    with model:
        return model.generate("Hello", max_tokens=6).token_ids


def test_nothing_is_fetched_unless_it_may_be(hub, tiny_edge, monkeypatch):
    with pytest.raises(FormatError, match="edgellm pull owner/tiny"):
        edgellm.from_pretrained(NAME)
    assert hub.requests == []
    expected = text_of(edgellm.load(tiny_edge))
    assert text_of(edgellm.from_pretrained(NAME, local_files_only=False)) == expected
    n_requests = len(hub.requests)
    assert n_requests > 0
    assert text_of(edgellm.from_pretrained(NAME, local_files_only=False)) == expected
    assert text_of(edgellm.from_pretrained(NAME, revision="main")) == expected
    assert len(hub.requests) == n_requests
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnsupportedError) as offline:
        edgellm.from_pretrained("owner/other", local_files_only=False)
    assert offline.value.code == "hub_offline"


def test_the_hugging_face_cache_and_directories_are_converted_once(
    hub, tiny_checkpoint, tiny_edge, tmp_path
):
    expected = text_of(edgellm.load(tiny_edge))
    folder = tmp_path / "hf" / "hub" / "models--owner--tiny"
    shutil.copytree(tiny_checkpoint, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT, encoding="ascii")
    for asked in ({}, {"revision": "main"}, {"revision": COMMIT}):
        model = edgellm.from_pretrained(NAME, threads=1, **asked)
        assert tmp_path / "home" in model._path.parents
        assert text_of(model) == expected
    assert text_of(edgellm.from_pretrained(tiny_checkpoint)) == expected
    assert len(list((tmp_path / "home").rglob("*.edge"))) == 1
    assert hub.requests == []
    with pytest.raises(InvalidArgumentError, match="is a path"):
        edgellm.from_pretrained(tiny_edge, revision="main")
    with pytest.raises(FormatError, match="No such file"):
        edgellm.from_pretrained(NAME, revision="elsewhere")
