"""`edgellm convert --self-draft`: a head into a file, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgellm.converters import draft_head
from edgellm.converters.draft_head import DraftHeadOptions

from edgellm.cli.convert import command
from edgellm.edgefile import read_header
from edgellm.errors import InvalidArgumentError

SMALL = DraftHeadOptions(
    vocab=64,
    d_ffn=64,
    layer_share=8.0,
    depth=2,
    samples=2,
    text_windows=0,
    valid_windows=1,
    window_tokens=24,
    prompt_tokens=4,
    steps=2,
    windows=2,
)


@pytest.mark.parametrize("is_json", [False, True])
def test_a_head_is_added_to_a_file(
    tiny_edge: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_json: bool,
) -> None:
    monkeypatch.setattr(draft_head, "DraftHeadOptions", lambda: SMALL)
    out = tmp_path / "out.edge"
    command(tiny_edge, out, self_draft=True, threads=1, json=is_json)
    assert "draft_head" in read_header(out).tensors
    assert [path.name for path in tmp_path.iterdir()] == ["out.edge"]
    said = capsys.readouterr().out
    if is_json:
        assert json.loads(said)["data"]["draft_head"]["vocab"] == 64
    else:
        assert "draft head of 64 tokens" in said
        assert "on its own text, 2 ahead" in said


def test_what_has_no_effect_is_refused(tiny_edge: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.edge"
    with pytest.raises(InvalidArgumentError, match="--format: has no effect"):
        command(tiny_edge, out, self_draft=True, format="E4_16")
    with pytest.raises(InvalidArgumentError, match="--draft-text: only with --self-draft"):
        command(tiny_edge, out, draft_text=[out])
    with pytest.raises(InvalidArgumentError, match="a dry run trains nothing"):
        command(tiny_edge, self_draft=True, dry_run=True)
    assert not out.exists()
