"""Saved logits: within the stated bound of a live reference, whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import edgellm
from edgellm.edgefile import EdgeWriter
from edgellm.errors import (
    EdgeError,
    FormatError,
    IntegrityError,
    InvalidArgumentError,
    UnsupportedError,
)
from edgellm.evaluation import (
    EvaluatedModel,
    Reference,
    TextEvaluation,
    WindowRule,
    evaluate_texts,
    read_text,
    windows_for,
)
from edgellm.evaluation.logit_file import LogitFile, encode_rows, row_dtype
from edgellm.evaluation.scores import rows_of_logits
from edgellm.evaluation.text import ModelRows

BABY = "babyllama-tok105"
RULE = WindowRule(128, max_scored_tokens=300)


@pytest.fixture(scope="module")
def saved(make_edge, stories, tmp_path_factory) -> Path:
    """Logits of the F16 model."""
    path = tmp_path_factory.mktemp("logits") / "f16.logits"
    with EvaluatedModel(make_edge(BABY, "F16")) as model:
        evaluate_texts(model, windows_for(model, [read_text(stories)], RULE, None), save_to=path)
    return path


def against(path: Path, reference: Path) -> TextEvaluation:
    with EvaluatedModel(path) as model, Reference(reference) as other:
        return evaluate_texts(model, windows_for(model, [], None, other.file), other)


def test_rows_are_within_the_stated_bound(saved, make_edge):
    file = LogitFile(saved)
    windows = file.info.texts[0]
    with EvaluatedModel(make_edge(BABY, "F16")) as model, ModelRows(model, 128) as rows:
        for index in range(windows.n_windows):
            pairs = zip(rows.window(windows, index), file.window(windows, index), strict=True)
            for live, stored in pairs:
                span = live.log_probs.max(axis=1) - live.log_probs.min(axis=1)
                error = np.abs(live.log_probs - stored.log_probs).max(axis=1)
                assert (error <= span / 65535 * 1.0001).all()
                assert np.exp(stored.log_probs).sum(axis=1) == pytest.approx(1, abs=1e-12)
                assert (live.target_log_probs == stored.target_log_probs).all()
                assert (live.top_ids == stored.top_ids).all()


def test_a_saved_reference_judges_as_the_live_one(saved, make_edge, stories):
    e4 = make_edge(BABY, "E4_16")
    from_file = against(e4, saved)
    with EvaluatedModel(e4) as model, Reference(make_edge(BABY, "F16")) as reference:
        live = evaluate_texts(
            model, windows_for(model, [read_text(stories)], RULE, None), reference
        )
    a, b = from_file.total.against, live.total.against
    assert a.kl.mean.value == pytest.approx(b.kl.mean.value, abs=1e-5)
    assert a.kl.mean.value != b.kl.mean.value
    for name in ("reference_perplexity", "perplexity_ratio", "top1_agreement", "mean_p_change"):
        assert getattr(a, name) == getattr(b, name)  # these are stored exactly
    assert from_file.reference_root == live.reference_root


def test_a_model_against_its_own_file_is_next_to_nothing(saved, make_edge):
    found = against(make_edge(BABY, "F16"), saved).total.against
    assert 0 <= found.kl.mean.value < 1e-7
    assert (found.perplexity_ratio.value, found.top1_agreement.value) == (1, 1)


@given(
    st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=5, max_size=5), min_size=1, max_size=4
    )
)
@example([[0.0] * 5])
@example([[-1e4, 1e4, 0, 0, 1e4]])
def test_any_row_survives_within_the_bound(rows):
    logits = np.array(rows, np.float32)
    block = rows_of_logits(logits, np.zeros(len(rows), np.int64))
    records = encode_rows(block)
    back = records["low"][:, None] + records["step"][:, None] * records["codes"]
    bound = np.ptp(block.log_probs, axis=1) / 65535 / 2
    assert (np.abs(back - block.log_probs).max(axis=1) <= bound * 1.0001 + 1e-9).all()


def test_given_texts_must_be_those_of_the_file(saved, make_edge, stories, tmp_path):
    file = LogitFile(saved)
    with EvaluatedModel(make_edge(BABY, "E4_16")) as model:
        limited = windows_for(model, [read_text(stories)], RULE, file)
        assert (limited[0].ids == file.info.texts[0].ids).all()
        with pytest.raises(InvalidArgumentError, match="windows of its own, of 128 tokens"):
            windows_for(model, [], RULE, file)
        with pytest.raises(InvalidArgumentError, match="other windows"):
            windows_for(model, [read_text(stories)], WindowRule(64), file)
        other = tmp_path / "other.txt"
        other.write_text("the cat sat on the mat. " * 40, encoding="utf-8")
        with pytest.raises(InvalidArgumentError, match=r"not among the texts .*stories\.txt"):
            windows_for(model, [read_text(other)], RULE, file)


def test_another_vocabulary_is_refused(saved, tiny_edge):
    with pytest.raises(UnsupportedError, match="258 and 105") as caught:
        against(tiny_edge, saved)
    assert caught.value.code == "vocabulary_mismatch"


def test_it_is_no_model_and_a_model_is_no_logit_file(saved, tiny_edge):
    with pytest.raises(EdgeError):
        edgellm.load(saved)
    with pytest.raises(FormatError, match="not a file of saved logits"):
        LogitFile(tiny_edge)


def test_an_interrupted_save_leaves_nothing(make_edge, stories, tmp_path):
    def stop(what: str, n_done: int, n_total: int) -> None:
        raise KeyboardInterrupt

    with EvaluatedModel(make_edge(BABY, "E4_16")) as model:
        windows = windows_for(model, [read_text(stories)], RULE, None)
        with pytest.raises(KeyboardInterrupt):
            evaluate_texts(model, windows, save_to=tmp_path / "x.logits", progress=stop)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_any_damage_is_a_typed_error(saved, tmp_path, at, flip, cut):
    data = bytearray(saved.read_bytes())
    position = int(at * len(data))
    if cut:
        del data[position:]
    else:
        data[position] ^= flip
    damaged = tmp_path / "damaged.logits"
    damaged.write_bytes(data)
    with pytest.raises((FormatError, IntegrityError, UnsupportedError)):
        LogitFile(damaged)


SOUND = {
    "kind": "edgellm.logits",
    "version": 1,
    "model": "m",
    "root": "r",
    "vocabulary_sha256": "v",
    "n_vocab": 7,
    "n_ctx": 4,
    "first_scored": 3,
    "texts": [{"name": "t", "sha256": "s", "n_windows": 2, "n_left_out": 0}],
}
TEXT = SOUND["texts"][0]


def crafted(path: Path, spec: object, ids: list[int], rows: bytes) -> Path:
    """A file whose hashes are right, whatever it says."""
    with EdgeWriter(path, spec=spec) as writer:
        writer.append("ids", "window_ids", np.array(ids, "<i4").tobytes())
        writer.append("rows", "logit_rows", rows)
    return path


def sound_rows() -> np.ndarray:
    rows = np.zeros(2, row_dtype(7))
    rows["target_log_prob"], rows["low"], rows["step"] = -1, -9, 1e-4
    return rows


def test_the_crafted_file_is_sound_before_it_is_attacked(tmp_path):
    file = LogitFile(crafted(tmp_path / "x.logits", SOUND, [0] * 8, sound_rows().tobytes()))
    (block,) = file.window(file.info.texts[0], 1)
    assert np.exp(block.log_probs) == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"n_vocab": 8},
        {"n_vocab": 1 << 40},
        {"n_vocab": True},
        {"n_ctx": 2, "first_scored": 2},
        {"n_ctx": 8},
        {"first_scored": 0},
        {"first_scored": 1},
        {"texts": []},
        {"texts": [3]},
        {"texts": {}},
        {"texts": [{**TEXT, "n_windows": 1}]},
        {"texts": [{**TEXT, "n_windows": 1}, {**TEXT, "n_windows": 1}]},
        {"texts": [{**TEXT, "n_windows": 1 << 60}]},
        {"texts": [{**TEXT, "name": ""}]},
        {"texts": [{**TEXT, "n_left_out": -1}]},
        {"model": 5},
        {"root": None},
        {"kind": "edgellm.logitz"},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_specs_that_make_no_sense_are_refused(change, tmp_path):
    path = crafted(tmp_path / "x.logits", SOUND | change, [0] * 8, sound_rows().tobytes())
    with pytest.raises((FormatError, UnsupportedError)):
        LogitFile(path)


@pytest.mark.parametrize("ids", [[0] * 7 + [7], [0] * 7 + [-1], [0] * 7, [0] * 9])
def test_ids_that_make_no_sense_are_refused(ids, tmp_path):
    path = crafted(tmp_path / "x.logits", SOUND, ids, sound_rows().tobytes())
    with pytest.raises(FormatError):
        LogitFile(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_id", 7),
        ("target_log_prob", np.nan),
        ("target_log_prob", 0.5),
        ("target_log_prob", -np.inf),
        ("low", np.inf),
        ("low", np.nan),
        ("step", np.nan),
        ("step", -1e-4),
        ("step", 1e308),
    ],
)
def test_rows_that_are_no_log_probabilities_are_refused(field, value, tmp_path):
    rows = sound_rows()
    rows["codes"][:, 0] = 65535
    rows[field][1] = value
    file = LogitFile(crafted(tmp_path / "x.logits", SOUND, [0] * 8, rows.tobytes()))
    windows = file.info.texts[0]
    assert list(file.window(windows, 0))
    with pytest.raises(FormatError, match="no log probability"):
        list(file.window(windows, 1))
