"""Cancel tokens, and prompts watched while they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import edgellm
from edgellm import CancelToken, PrefillProgress
from edgellm.testing import FakeModel


@pytest.fixture(scope="module")
def demo(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path, prefix_cache=0) as model:
        yield model


def test_a_token_ends_all_texts_that_have_it(demo):
    token, other = CancelToken(), CancelToken()
    endless = {"max_tokens": 400, "stop_ids": ()}
    batch = demo.stream_batch(["Once", "The king"], cancel=token, **endless)
    free = demo.stream("A dog", max_tokens=5, cancel=other)
    next(batch)
    thread = threading.Thread(target=token.cancel)
    thread.start()
    results = batch.results()
    thread.join()
    assert [one.finish_reason for one in results] == ["cancelled"] * 2
    assert token.is_cancelled
    assert free.result().finish_reason in ("stop", "length")
    late = demo.generate("Once", cancel=token, **endless)
    assert (late.finish_reason, late.token_ids) == ("cancelled", [])
    token.cancel()
    with demo.chat() as chat:
        assert chat.send("Hello", max_tokens=5, cancel=token).finish_reason == "cancelled"
        assert chat.turns == ()
    assert FakeModel().generate("a", max_tokens=9, cancel=token).finish_reason == "cancelled"


@pytest.mark.parametrize("slice_ms", [0.0, 80.0])
def test_a_prompt_is_watched_to_its_end(demo, monkeypatch, slice_ms):
    monkeypatch.setattr("edgellm.stream.SLICE_MS", slice_ms)  # 0: after every step of 128 tokens
    seen: list[PrefillProgress] = []
    ids = demo.tokenize("Once upon a time there was a dog. " * 40)[:400]
    demo.generate(ids, max_tokens=3, on_prefill=seen.append)
    assert seen[-1].n_done == seen[-1].n_total == len(ids)
    assert seen[-1].eta_s == 0.0
    done = [one.n_done for one in seen]
    assert done == sorted(set(done))
    if slice_ms == 0.0:
        assert len(seen) >= 3
        assert seen[0].eta_s is None
        assert all(one.eta_s is not None and one.eta_s > 0 for one in seen[1:-1])


def test_what_a_watcher_raises_ends_the_text(demo):
    def stop(progress: PrefillProgress) -> None:
        raise KeyError("enough")

    stream = demo.stream("Once upon a time", max_tokens=5, on_prefill=stop)
    with pytest.raises(KeyError, match="enough"):
        next(stream)
    assert stream.session is None
