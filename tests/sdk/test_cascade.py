"""Which model of a cascade answers, and what the answer says of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

import edgellm
from edgellm import CancelToken, Cascade
from edgellm.confidence import Calibration
from edgellm.errors import InvalidArgumentError
from edgellm.testing import FakeModel
from edgellm.testing.fake_stream import LOGPROB, SIGNALS

SURE = math.exp(LOGPROB)  # the confidence of every fake answer


@pytest.fixture(scope="module")
def demo(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


def outcomes(answer: edgellm.CascadeAnswer) -> list[str]:
    return [attempt.outcome for attempt in answer.attempts]


@pytest.mark.parametrize("decide", ["answer", "prefill"])
def test_a_sure_answer_ends_it(decide):
    large = FakeModel("large")
    cascade = Cascade([FakeModel("small"), large], threshold=SURE, decide=decide)
    answer = cascade.generate("Well?", max_tokens=9)
    assert (answer.text, answer.level, outcomes(answer)) == ("small", 0, ["sure"])
    assert answer.attempts[0].confidence == SURE
    assert answer.attempts[0].n_tokens == len("Well?") + len("small") + 1
    assert large.calls == []


@pytest.mark.parametrize(("decide", "n_generated"), [("answer", 6), ("prefill", 1)])
def test_an_unsure_answer_goes_on(decide, n_generated):
    cascade = Cascade([FakeModel("small"), FakeModel("large")], threshold=0.7, decide=decide)
    answer = cascade.generate("Well?", max_tokens=9)
    assert (answer.text, answer.level, outcomes(answer)) == ("large", 1, [decide, "last"])
    small, large = answer.attempts
    assert small.n_tokens == len("Well?") + n_generated
    assert large.confidence is None


def test_three_models_and_calibrations():
    small, middle, large = FakeModel("small"), FakeModel("middle"), FakeModel("large")
    never, always = Calibration((1.0,), (0.0,)), Calibration((1.0,), (1.0,))
    models = [small, middle, large]
    answer = Cascade(models, calibrations=[never, always]).generate("Well?", max_tokens=9)
    assert (answer.text, outcomes(answer)) == ("middle", ["answer", "sure"])
    assert [attempt.confidence for attempt in answer.attempts] == [0.0, 1.0]


def test_a_margin_that_collapses():
    models = [FakeModel("a long reply"), FakeModel("large")]
    cascade = Cascade(models, threshold=0, collapse=SIGNALS.margin + 0.1, window=4)
    answer = cascade.generate("Well?", max_tokens=20)
    assert (answer.text, outcomes(answer)) == ("large", ["collapse", "last"])
    assert answer.attempts[0].n_tokens == len("Well?") + 4
    kept = Cascade(models, threshold=0, collapse=SIGNALS.margin, window=4)
    assert kept.generate("Well?", max_tokens=20).text == "a long reply"


def test_a_context_that_is_too_short_and_one_that_is_for_all():
    models = [FakeModel("small", n_ctx=8), FakeModel("large")]
    answer = Cascade(models).generate("A longer question?", max_tokens=9)
    assert (answer.text, outcomes(answer)) == ("large", ["context", "last"])
    assert answer.attempts[0].n_tokens == 0
    with pytest.raises(edgellm.ContextOverflowError):
        Cascade([models[0], FakeModel("x", n_ctx=8)]).generate("A long question?", max_tokens=9)


def test_what_was_cancelled_does_not_go_on():
    token, large = CancelToken(), FakeModel("large")
    token.cancel()
    answer = Cascade([FakeModel("small"), large], threshold=1).generate(
        "Well?", max_tokens=9, cancel=token
    )
    assert outcomes(answer) == ["cancelled"]
    assert (answer.text, large.calls) == ("", [])


def test_real_models(demo, tiny_edge):
    """The one that gives the answer gives what it would have given alone."""
    expected = demo.generate("Once upon a time", max_tokens=8)
    with edgellm.load(tiny_edge) as tiny:
        alone = tiny.generate("Once upon a time", max_tokens=8)
        for threshold, wanted in ((0.0, alone), (1.0, expected)):
            for decide in ("answer", "prefill"):
                cascade = Cascade([tiny, demo], threshold=threshold, decide=decide, window=3)
                answer = cascade.generate("Once upon a time", max_tokens=8)
                assert answer.generation.token_ids == wanted.token_ids
        collapsing = Cascade([tiny, demo], threshold=0, collapse=1.0, window=3)
        answer = collapsing.generate("Once upon a time", max_tokens=8)
    assert answer.text == expected.text
    assert outcomes(answer) == ["collapse", "last"]


def test_arguments():
    two = [FakeModel(), FakeModel()]
    for models, told in (([], "two models"), (two[:1], "two models")):
        with pytest.raises(InvalidArgumentError, match=told):
            Cascade(models)
    for wrong, told in (
        ({"threshold": 1.5}, "threshold must be in 0..1"),
        ({"threshold": math.nan}, "threshold must be in 0..1"),
        ({"collapse": -1}, "collapse must be in 0..1"),
        ({"window": 0}, "window must be 1 or more"),
        ({"decide": "later"}, "'prefill' or 'answer'"),
        ({"calibrations": []}, "calibrations must be 1"),
    ):
        with pytest.raises(InvalidArgumentError, match=told):
            Cascade(two, **wrong)
    with pytest.raises(InvalidArgumentError, match="must be a str"):
        Cascade(two).generate([1, 2], max_tokens=3)
    with pytest.raises(InvalidArgumentError, match="max_tokens"):
        Cascade(two).generate("Well?", max_tokens=0)
