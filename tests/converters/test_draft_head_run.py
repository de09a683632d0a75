"""Whole runs on a tiny model: they learn, go on after an interruption, and what is stored is read
by rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.draft_head import DraftHeadOptions, DraftHeadReport, add_draft_head
from edgellm.converters.draft_head.file import VERSION_KEY, add_blob, read_head
from edgellm.converters.draft_head.run import most_frequent

from edgellm import _native
from edgellm.edgefile import EdgeHeader, EdgeWriter, read_header, read_tensor, verify
from edgellm.errors import EdgeError, InvalidArgumentError, UnsupportedError
from golden.draft_heads import random_head, with_head
from golden.families import save_family

STEPS = 6
OPTIONS = DraftHeadOptions(
    vocab=64,
    d_ffn=64,
    layer_share=8.0,
    depth=3,
    samples=6,
    text_windows=4,
    valid_windows=2,
    window_tokens=32,
    prompt_tokens=4,
    steps=STEPS,
    windows=2,
    warmup=1,
    save_every=2,
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    lines = [json.dumps({"text": "the cat sat on the mat. " * 4}) for _ in range(10)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(edge: Path, folder: Path, text: Path, stop_at: int | None = None) -> DraftHeadReport:
    def progress(stage: str, n_done: int, _: int) -> None:
        if stage.startswith("step") and n_done == stop_at:
            raise KeyboardInterrupt

    return add_draft_head(
        edge,
        folder / "out.edge",
        OPTIONS,
        texts=[text],
        work=folder / "work",
        n_threads=1,
        progress=progress,
    )


def test_a_run_learns_and_goes_on_to_the_same_bytes(
    tiny_edge: Path, text: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    report = run(tiny_edge, whole, text)
    for stop_at in (1, 3, 5):
        with pytest.raises(KeyboardInterrupt):
            run(tiny_edge, cut, text, stop_at)
        assert not (cut / "out.edge").exists()
    run(tiny_edge, cut, text)
    for name in ("out.edge", "work/curve.jsonl"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    losses = [
        json.loads(line)["loss"] for line in (whole / "work/curve.jsonl").read_text().splitlines()
    ]
    assert len(losses) == STEPS
    assert losses[-1] < losses[0]
    assert report.loss == losses[-1]
    _check_report(report)


def _check_report(report: DraftHeadReport) -> None:
    for depths in (report.own, report.text, report.float_own, report.float_text):
        assert [one.n_rows for one in depths] == [2 * 32, 2 * 31, 2 * 30]
        assert all(0 <= one.greedy <= 1 and 0 < one.sampled <= 1 for one in depths)
    header = verify(report.out)
    stored = json.loads(bytes(read_tensor(header, "report")))
    assert stored["draft_head"]["own"] == json.loads(json.dumps(report.to_dict()))["own"]
    assert "tensors" in stored
    head = read_head(header)
    assert (head.spec.n_vocab, head.spec.layers[0].d_ffn) == (report.vocab, report.d_ffn)
    model = _native.Model.load(report.out)
    assert _native.DraftHead(model).ids == head.ids.tolist()
    model.close()


def test_without_texts_the_model_begins_itself(tiny_edge: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=1, samples=2, depth=1)
    work = tmp_path / "work"
    out = tmp_path / "out.edge"
    report = add_draft_head(tiny_edge, out, options, texts=[], work=work, n_threads=1)
    assert report.text == ()
    assert len(report.own) == 1
    again = add_draft_head(out, out, options, texts=[], work=tmp_path / "other", n_threads=1)
    assert list(read_header(again.out).tensors).count("draft_head") == 1


def test_layers_that_are_no_attention_are_refused(tmp_path: Path) -> None:
    checkpoint, _ = save_family("lfm2_convolutions", tmp_path / "source")
    convert(checkpoint, tmp_path / "lfm2.edge")
    with pytest.raises(UnsupportedError, match="layer 0 is a short_conv: draft heads are trained"):
        add_draft_head(
            tmp_path / "lfm2.edge", tmp_path / "out.edge", OPTIONS, texts=[], work=tmp_path
        )


def test_texts_that_are_too_short_are_refused(tiny_edge: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("a few words " * 6, encoding="utf-8")
    with pytest.raises(EdgeError, match="add text") as raised:
        run(tiny_edge, tmp_path, short)
    assert raised.value.code == "file_too_small"


@pytest.mark.parametrize(
    "wrong",
    [{"depth": 0}, {"format": "K4_32"}, {"steps": 0}, {"prompt_tokens": 32}, {"rate": 0.0}],
)
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        replace(OPTIONS, **wrong)


def test_the_vocabulary_is_what_stands_most_often() -> None:
    tokens = np.array([[5, 5, 5, 2, 2, 7, 0, 9]], dtype=np.int32)
    assert most_frequent(tokens, 4, 12).tolist() == [0, 2, 5, 7]


Spoil = Callable[[EdgeHeader, dict[str, bytes]], dict[str, str]]


def _wrong_version(_: EdgeHeader, __: dict[str, bytes]) -> dict[str, str]:
    return {VERSION_KEY: "2"}


def _same_ids(_: EdgeHeader, tensors: dict[str, bytes]) -> dict[str, str]:
    tensors["ids"] = tensors["ids"][:4] * (len(tensors["ids"]) // 4)
    return {}


def _large_id(_: EdgeHeader, tensors: dict[str, bytes]) -> dict[str, str]:
    tensors["ids"] = tensors["ids"][:-4] + (1 << 30).to_bytes(4, "little")
    return {}


def _no_ids(_: EdgeHeader, tensors: dict[str, bytes]) -> dict[str, str]:
    del tensors["ids"]
    return {}


def _fewer_ids(_: EdgeHeader, tensors: dict[str, bytes]) -> dict[str, str]:
    tensors["ids"] = tensors["ids"][:-4]
    return {}


def _no_matrix(_: EdgeHeader, tensors: dict[str, bytes]) -> dict[str, str]:
    del tensors["fuse_hidden"]
    return {}


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_wrong_version, "version_unsupported"),
        (_same_ids, "token_out_of_range"),
        (_large_id, "token_out_of_range"),
        (_no_ids, "tensor_missing"),
        (_fewer_ids, "tensor_shape"),
        (_no_matrix, "tensor_missing"),
    ],
)
def test_both_readers_refuse_a_wrong_head(
    tiny_edge: Path, tmp_path: Path, spoil: Spoil, code: str
) -> None:
    head, bad, out = (tmp_path / name for name in ("head", "bad", "out.edge"))
    random_head(tiny_edge, head)
    header = read_header(head)
    tensors = {name: bytes(read_tensor(header, name)) for name in header.tensors}
    del tensors["edgellm.hashes"]
    metadata = {VERSION_KEY: "1"} | spoil(header, tensors)
    with EdgeWriter(bad, spec=header.spec, metadata=metadata) as writer:
        for name, data in tensors.items():
            info = header.tensors[name]
            shape = (len(data),) if info.format == "U8" else info.shape
            writer.append(name, info.role, data, format=info.format, shape=shape, act=info.act)
    _check_refused(tiny_edge, out, bad, code)


def test_both_readers_refuse_what_is_no_head_of_this_model(
    tiny_edge: Path, demo_path: Path, tmp_path: Path
) -> None:
    head, bad, out = (tmp_path / name for name in ("head", "bad", "out.edge"))
    random_head(tiny_edge, head)
    whole = head.read_bytes()
    for data, code in (
        (whole[: len(whole) // 2], "tensor_past_end"),
        (whole[:100], "header_truncated"),
        (b"\xff" * 64, "header_too_large"),
        (whole[:-64] + bytes(64), "root_hash"),
    ):
        bad.write_bytes(data)
        _check_refused(tiny_edge, out, bad, code)
    random_head(demo_path, bad)
    _check_refused(tiny_edge, out, bad, "spec_invalid")


def _check_refused(model: Path, out: Path, head: Path, code: str) -> None:
    add_blob(verify(model), out, head, {})
    with pytest.raises(EdgeError) as python:
        read_head(verify(out))
    with pytest.raises(EdgeError) as native:
        _native.Model.load(out)
    assert (python.value.code, native.value.code) == (code, code)


def test_a_head_in_a_file_is_replaced_not_doubled(tiny_edge: Path, tmp_path: Path) -> None:
    first = with_head(tiny_edge, tmp_path / "first.edge")
    second = with_head(first, tmp_path / "second.edge", seed=2)
    assert read_head(read_header(first)).ids.tolist() != read_head(read_header(second)).ids.tolist()
