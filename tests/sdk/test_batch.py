"""Several generations, embeddings and scores at once: each is what it is alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm

PROMPTS = ["Hello, world", "a", "The quick brown fox jumps over the lazy dog", "1 2 3 4", "Hello"]


@pytest.fixture
def kv() -> str:
    return "F16"


@pytest.fixture
def tiny(tiny_edge: Path, kv: str) -> Iterator[edgellm.Model]:
    with edgellm.load(tiny_edge, threads=2, kv=kv) as loaded:
        yield loaded


@pytest.fixture
def apart(tiny_edge: Path, kv: str) -> Iterator[edgellm.Model]:
    """Another one, which shares no KV with `tiny`."""
    with edgellm.load(tiny_edge, threads=1, kv=kv) as loaded:
        yield loaded


def content(generation: edgellm.Generation) -> edgellm.Generation:
    """Without what depends on the machine and on what was there before."""
    zero = edgellm.Stats(0, 0, 0, 0.0, 0.0, 0.0, 0)
    return replace(generation, stats=zero)


@pytest.mark.parametrize(
    ("at_once", "kv"), [(1, "F16"), (2, "K8V8"), (16, "F16"), (16, "K8V4"), (3, "K6V4")]
)
def test_a_batch_is_its_prompts_one_by_one(tiny, apart, at_once):
    options: dict[str, Any] = {
        "max_tokens": 20,
        "temperature": 1.5,
        "seed": 3,
        "logprobs": 2,
        "repetition_penalty": 1.3,
        "stop": ["e"],
        "stop_ids": range(2, 60),
    }
    together = tiny.generate_batch(PROMPTS, at_once=at_once, **options)
    alone = [apart.generate(prompt, **options) for prompt in PROMPTS]
    assert list(map(content, together)) == list(map(content, alone))
    assert "stop" in {one.finish_reason for one in together}


def test_tokens_of_a_batch_come_with_the_index_of_their_prompt(tiny, apart):
    texts = [""] * len(PROMPTS)
    with tiny.stream_batch(PROMPTS, max_tokens=9, stop_ids=(), at_once=3) as batch:
        order = []
        for index, token in batch:
            texts[index] += token.text
            order.append(index)
    assert texts == [apart.generate(p, max_tokens=9, stop_ids=()).text for p in PROMPTS]
    assert sorted(order) == sorted(list(range(len(PROMPTS))) * 9)
    assert order != sorted(order)  # in turns


def test_one_of_a_batch_can_be_cancelled_and_so_can_all(tiny):
    batch = tiny.stream_batch(PROMPTS, max_tokens=50, stop_ids=(), at_once=4)
    next(batch)
    batch.cancel(4)  # has not begun
    batch.cancel(1)
    results = batch.results()
    assert [len(one.token_ids) for one in results[:1] + results[2:]] == [50, 50, 50]
    assert results[1].finish_reason == "cancelled"
    batch = tiny.stream_batch(PROMPTS, max_tokens=50, stop_ids=())
    next(batch)
    batch.cancel()
    assert {one.finish_reason for one in batch.results()} == {"cancelled"}


def test_the_memory_cap_makes_prompts_wait_and_refuses_what_never_fits(tiny_edge):
    with edgellm.load(tiny_edge) as loose:
        native = loose._native
        fixed = native.file_bytes + native.scratch_bytes
        cache = native.kv_bytes() + native.session_bytes
        expected = loose.generate_batch(PROMPTS, max_tokens=64, stop_ids=())
    with edgellm.load(tiny_edge, max_memory=fixed + 2 * cache) as model:
        found = model.generate_batch(PROMPTS, max_tokens=64, stop_ids=())
        assert list(map(content, found)) == list(map(content, expected))
    with (
        edgellm.load(tiny_edge, max_memory=fixed + cache // 2) as model,
        pytest.raises(edgellm.MemoryBudgetError),
    ):
        model.generate_batch(PROMPTS, max_tokens=64)


def test_what_a_batch_cannot_honour_is_refused_before_any_work(tiny):
    with pytest.raises(edgellm.ContextOverflowError, match="128"):
        tiny.stream_batch(["a", [5] * 100], max_tokens=50)
    with pytest.raises(edgellm.InvalidArgumentError, match=r"prompt 1\[1\] is 999"):
        tiny.stream_batch(["a", [5, 999]], max_tokens=5)
    for at_once in (0, -1, 1025):
        with pytest.raises(edgellm.InvalidArgumentError, match="at_once"):
            tiny.stream_batch(["a"], max_tokens=5, at_once=at_once)
    with pytest.raises(TypeError):
        tiny.generate_batch(["a"], max_tokens=5, no_such_option=1)
    assert tiny.generate_batch([], max_tokens=5) == []


def test_the_error_of_one_comes_when_the_others_are_over(tiny, apart, monkeypatch):
    from edgellm import _native

    real = _native.run_batch

    def failing(sessions: list[Any], *rest: Any) -> list[Any]:
        outcomes = real(sessions, *rest)
        if len(sessions) == 3 and sessions[1].n_tokens > 20:
            outcomes[1] = (False, None, edgellm.NumericError("made to fail", code="numeric"))
        return outcomes

    monkeypatch.setattr(_native, "run_batch", failing)
    texts = [""] * 3
    batch = tiny.stream_batch(PROMPTS[:3], max_tokens=30, stop_ids=())

    def take_all() -> None:
        for index, token in batch:
            texts[index] += token.text

    with pytest.raises(edgellm.NumericError) as caught:
        take_all()
    assert caught.value.__notes__ == ["in the generation for prompt 1"]
    for index in (0, 2):
        expected = apart.generate(PROMPTS[index], max_tokens=30, stop_ids=())
        assert texts[index] == expected.text


def test_closing_the_model_ends_a_batch(tiny):
    batch = tiny.stream_batch(PROMPTS, max_tokens=60, stop_ids=())
    next(batch)
    closer = threading.Thread(target=tiny.close)
    closer.start()
    closer.join()
    with pytest.raises(edgellm.EdgeError):
        list(batch)


def test_eight_threads_share_steps_and_have_what_each_has_alone(tiny, apart):
    wanted = [
        (p, {"max_tokens": 25, "seed": at, "temperature": 1.0})
        for at, p in enumerate([*PROMPTS, "x" * 60, "y" * 7, "z"])
    ]
    expected = [content(apart.generate(p, stop_ids=(), **options)) for p, options in wanted]
    vectors, scores = apart.embed(PROMPTS), apart.score("The answer is", PROMPTS)
    found: list[Any] = [None] * len(wanted)

    def work(at: int) -> None:
        prompt, options = wanted[at]
        for _ in range(3):
            found[at] = content(tiny.generate(prompt, stop_ids=(), **options))
            assert found[at] == expected[at]
            if at < 3:  # beside it, embeddings, scores and a batch
                assert np.array_equal(tiny.embed(PROMPTS, priority=at), vectors)
                assert tiny.score("The answer is", PROMPTS, priority=-at) == scores
        if at == 0:
            tiny.generate_batch(PROMPTS, max_tokens=5)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_higher_priorities_are_read_first(demo_path):
    from edgellm import _native

    with edgellm.load(demo_path) as model, model.chat(template="chatml") as chat:
        prompts = [[5 + at] * 200 for at in range(2)]
        low = model.stream(prompts[0], max_tokens=1)
        high = model.stream(prompts[1], max_tokens=1, priority=1)
        first = chat.stream("Tell me a story. " * 40, max_tokens=1, priority=2)
        lanes = [low.session, high.session, first.session]
        assert [lane.pending > 130 for lane in lanes] == [True] * 3
        read = []
        for _ in range(2):
            _native.run_batch(lanes, 0.0)
            read.append([lane.n_tokens for lane in lanes])
        assert read[0][:2] == [0, 0]
        assert read[1][0] == 0 < read[1][1]
        assert model.generate(prompts[0], max_tokens=1, priority=-(2**31)).token_ids
        for priority in (2**31, -(2**31) - 1):
            with pytest.raises(edgellm.InvalidArgumentError, match="priority"):
                model.generate("a", max_tokens=1, priority=priority)
            with pytest.raises(edgellm.InvalidArgumentError, match="priority"):
                model.embed("a", priority=priority)
            with pytest.raises(edgellm.InvalidArgumentError, match="priority"):
                model.score("a", ["b"], priority=priority)


def reference(model: edgellm.Model, prompt: list[int], more: list[int]) -> Any:
    scores = model.logits([*prompt, *more]).astype(np.float64)[len(prompt) - 1 : -1]
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores[np.arange(len(more)), more]


def test_scores_are_the_log_softmax_of_the_logits(tiny, apart):
    prompt = tiny.tokenize("The answer is")
    continuations = [" yes", " no", " x" * 30, "", " yes, it is"]
    every = [tiny.tokenize(text, bos=False) or [7] for text in continuations]
    every += [[int(i) for i in np.random.default_rng(at).integers(2, 258, 3)] for at in range(30)]
    scores = tiny.score(prompt, every)
    for more, score in zip(every, scores, strict=True):
        assert score.token_ids == more
        assert np.allclose(score.logprobs, reference(apart, prompt, more), atol=1e-12)
        assert score.logprob == pytest.approx(sum(score.logprobs), abs=1e-9)
    greedy = apart.generate(prompt, max_tokens=4, stop_ids=()).token_ids
    assert tiny.score(prompt, [greedy, [*greedy[:3], greedy[3] ^ 1]])[0].is_greedy
    assert not tiny.score(prompt, [[*greedy[:3], greedy[3] ^ 1]])[0].is_greedy
    assert [tiny.score(prompt, [more])[0] for more in every] == scores


def test_texts_are_scored_as_they_are_tokenized_together(tiny):
    ids = tiny.tokenize("The answer is yes")
    by_text, spaced = tiny.score("The answer is", [" yes"]), tiny.score("The answer is ", ["yes"])
    assert by_text == spaced == tiny.score(ids[:-4], [ids[-4:]])
    assert tiny.score("", ["ab"])[0].token_ids == tiny.tokenize("ab", bos=False)
    assert tiny.score("a", []) == []


def test_what_cannot_be_scored_is_refused(tiny):
    with pytest.raises(edgellm.InvalidArgumentError, match="continuation 1 has no tokens"):
        tiny.score("a", ["b", ""])
    with pytest.raises(edgellm.InvalidArgumentError, match="the prompt has no tokens"):
        tiny.score([], [[5]])
    with pytest.raises(edgellm.ContextOverflowError, match="continuation 0 have 130 tokens"):
        tiny.score([5] * 100, [[6] * 30])
    assert len(tiny.score([5] * 100, [[6] * 29])[0].logprobs) == 29


def test_none_among_the_sessions_of_a_native_batch_is_refused(tiny):
    from edgellm import _native

    session = _native.Session(tiny._native)
    nothing: Any = None
    with pytest.raises(TypeError, match="None"):
        _native.run_batch([session, nothing])
    with pytest.raises(TypeError, match="None"):
        _native.sample_batch([session], [nothing], [1])
    with pytest.raises(edgellm.InvalidArgumentError, match="named twice"):
        _native.run_batch([session, session])
    bad: Any = "all"
    with pytest.raises(edgellm.InvalidArgumentError, match="keep"):
        _native.run_batch([session], keep=bad)
