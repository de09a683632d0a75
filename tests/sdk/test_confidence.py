"""Signals of tokens, and calibrations: against numpy, and from every way of generating."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgellm
from edgellm.confidence import Calibration, mean_probability, token_signals
from edgellm.testing import FakeModel

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def demo(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


def test_signals_are_what_numpy_says(demo):
    answer = demo.generate(PROMPT, max_tokens=12, signals=True)
    ids = demo.tokenize(PROMPT) + answer.token_ids[:-1]
    rows = demo.logits(ids)[-12:].astype(np.float64)
    for row, token_id, logprob, found in zip(
        rows, answer.token_ids, answer.logprobs, answer.signals, strict=True
    ):
        probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        best = np.sort(probabilities)[-2:]
        assert found.logit == row[token_id]
        assert math.isclose(found.log_z, np.log(np.exp(row).sum()), rel_tol=1e-12)
        assert math.isclose(found.logit - found.log_z, logprob, abs_tol=1e-5)
        assert math.isclose(found.margin, best[1] - best[0], rel_tol=1e-9)
        entropy = -(probabilities * np.log(probabilities)).sum()
        assert math.isclose(found.entropy, entropy, rel_tol=1e-9)
    spilled = edgellm.spilled_energies(answer.signals)
    assert len(spilled) == 11
    assert spilled[0] == abs(answer.signals[1].log_z - answer.signals[0].logit)
    together = edgellm.answer_signals(answer.signals)
    assert together.margin == min(one.margin for one in answer.signals)
    assert together.spilled_energy == math.fsum(spilled) / 11


def test_signals_are_the_same_however_the_text_was_made(demo):
    plain = demo.generate(PROMPT, max_tokens=16, signals=True, speculate=False)
    assert len(plain.signals) == 16
    drafted = demo.generate(PROMPT, max_tokens=16, signals=True, speculate=True)
    batched = demo.generate_batch([PROMPT, "The dog"], max_tokens=16, signals=True)
    streamed = list(demo.stream(PROMPT, max_tokens=16, signals=True))
    assert drafted.signals == batched[0].signals == plain.signals
    assert [token.signals for token in streamed] == plain.signals
    assert plain.token_ids == demo.generate(PROMPT, max_tokens=16).token_ids


def test_confidence_needs_no_signals_and_leaves_out_what_was_forced(demo):
    answer = demo.generate(PROMPT, max_tokens=8)
    assert answer.signals == []
    assert answer.confidence == mean_probability(answer.logprobs)
    wanted = {"type": "regex", "regex": "(cat|dog)s and nothing else"}
    shaped = demo.generate("Pets: ", max_tokens=30, response_format=wanted)
    assert shaped.stats.forced_tokens > 0
    tokens = list(demo.stream("Pets: ", max_tokens=30, response_format=wanted))
    free = [token.logprob for token in tokens if not token.forced]
    assert shaped.confidence == mean_probability(free) < mean_probability(shaped.logprobs)
    # With signals the model is asked about every token.
    asked = demo.generate("Pets: ", max_tokens=30, response_format=wanted, signals=True)
    assert len(asked.signals) == len(asked.token_ids)
    assert asked.text == shaped.text
    assert mean_probability([]) == 1.0


def test_chats_and_fake_models_have_signals(demo):
    with demo.chat() as chat:
        answer = chat.send("How do I show the current date?", max_tokens=6, signals=True)
    assert len(answer.signals) == len(answer.token_ids)
    fake = FakeModel("yes").generate("Is it?", max_tokens=9, signals=True)
    assert edgellm.answer_signals(fake.signals).margin == 0.5


def test_a_vocabulary_of_one_and_ties():
    one = token_signals(np.array([3.0], np.float32), 0)
    assert (one.margin, one.entropy, one.log_z) == (1.0, 0.0, 3.0)
    two = token_signals(np.array([1e30, 1e30], np.float32), 1)
    assert two.margin == 0.0
    assert math.isclose(two.entropy, math.log(2))
    with pytest.raises(edgellm.errors.InvalidArgumentError, match="signals=True"):
        edgellm.answer_signals([])
    assert edgellm.answer_signals([one]).spilled_energy is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_isotonic_regression(pairs):
    """It rises, keeps the share of right answers, and no better step function rises."""
    scores, right = [score for score, _ in pairs], [is_right for _, is_right in pairs]
    fitted = Calibration.fit(scores, right)
    values = np.array([fitted(score) for score in scores])
    assert math.isclose(values.mean(), np.mean(right), abs_tol=1e-12)
    by_score = values[np.argsort(scores, kind="stable")]
    assert (np.diff(by_score) >= 0).all()
    # Of least squares: residuals of every tail sum to no more than 0 (Barlow et al. 1972).
    for cut in set(scores):
        tail = [r - v for s, r, v in zip(scores, right, values, strict=True) if s >= cut]
        assert math.fsum(tail) <= 1e-9


def test_a_calibration_in_a_file(tmp_path: Path):
    fitted = Calibration.fit([0.1, 0.2, 0.3, 0.4, 0.4], [False, True, False, True, True])
    assert fitted == Calibration((0.1, 0.3, 0.4), (0.0, 0.5, 1.0))
    assert [fitted(score) for score in (-1, 0.1, 0.11, 0.3, 0.35, 7)] == [0, 0, 0.5, 0.5, 1, 1]
    path = tmp_path / "calibration.json"
    fitted.save(path)
    assert Calibration.load(path) == fitted
    with pytest.raises(edgellm.FormatError, match="cannot be written"):
        fitted.save(tmp_path / "none" / "x.json")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "does not say that its format"),
        ('{"format": "edgellm.calibration.2"}', "does not say that its format"),
        ('{"scores": [1], "probabilities": [2]}', "in 0..1 and do not fall"),
        ('{"scores": [1, 1], "probabilities": [0, 1]}', "finite and rise"),
        ('{"scores": [1, 2], "probabilities": [1, 0]}', "do not fall"),
        ('{"scores": [1], "probabilities": []}', "each with a probability"),
        ('{"scores": [], "probabilities": []}', "1..10000 scores"),
        ('{"scores": ["1"], "probabilities": [1]}', "are numbers"),
        ('{"scores": [true], "probabilities": [1]}', "are numbers"),
        ('{"scores": 1, "probabilities": [1]}', "are lists"),
        ('{"scores": [NaN], "probabilities": [1]}', "NaN is not JSON"),
        ("{", "calibration.json"),
        (" " * (1 << 20) + "{}", "larger than 1,048,576 bytes"),
    ],
)
def test_files_that_are_no_calibration(text, told, tmp_path: Path):
    path = tmp_path / "calibration.json"
    if '"scores"' in text:
        text = text.replace("{", '{"format": "edgellm.calibration.1", ', 1)
    path.write_text(text)
    with pytest.raises(edgellm.FormatError, match=told):
        Calibration.load(path)


def test_calibrations_that_cannot_be():
    with pytest.raises(edgellm.FormatError, match="no such file"):
        Calibration.load("/nowhere/calibration.json")
    for scores, right in (([], []), ([0.5], [True, False])):
        with pytest.raises(edgellm.errors.InvalidArgumentError, match="cannot be fitted"):
            Calibration.fit(scores, right)
    with pytest.raises(edgellm.errors.InvalidArgumentError, match="not a number"):
        Calibration((0.5,), (1.0,))(math.nan)
    with pytest.raises(edgellm.errors.InvalidArgumentError, match="finite"):
        Calibration.fit([0.5, math.nan], [True, False])
