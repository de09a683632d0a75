"""Texts out of whose KV cache tokens were taken: shifted, streamed, compressed, trimmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgellm
import tiny_model
from edgellm import _native
from edgellm.errors import ContextOverflowError, InvalidArgumentError, UnsupportedError
from edgellm.options import KV_FORMATS


@pytest.fixture
def demo(demo_path: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


@pytest.fixture(scope="module", params=[False, True], ids=["plain keys", "changed keys"])
def one_layer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and values of one layer depend on a token and its position alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tiny_model, "N_LAYERS", 1)
        patched.setattr(tiny_model, "N_CTX", 512)
        out = tmp_path_factory.mktemp("one") / "one.edge"
        return tiny_model.make_tiny_edge(out, rotate_keys=request.param, balance_keys=request.param)


def run(session: _native.Session, ids: list[int]) -> np.ndarray:
    session.append(ids)
    while not session.run():
        pass
    return session.logits()


def some_ids(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(2, tiny_model.N_VOCAB, n).tolist()


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_keys_of_a_shifted_text_stand_where_those_of_the_shorter_text_do(one_layer, kv):
    ids, more = some_ids(300), some_ids(40, 1)
    with edgellm.load(one_layer, kv=kv) as model:
        session = _native.Session(model._native, 512)
        run(session, ids)
        session.shift(32, 128)
        assert session.kept_ranges == [(0, 32), (160, 300)]
        assert session.n_dropped == 128
        shifted = run(session, more)
        fresh = run(_native.Session(model._native, 512), ids[:32] + ids[160:] + more)
        scale = np.abs(fresh).max()
        assert np.abs(shifted - fresh).max() < 0.03 * scale
        untouched = run(_native.Session(model._native, 512), ids + more)
        assert np.abs(untouched - fresh).max() > 0.1 * scale


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_compressed_sessions_have_the_same_bits_for_any_threads_and_cut(one_layer, kv):
    ids, more = some_ids(400), some_ids(30, 1)
    results = []
    for threads, budget_ms in ((1, 0.0), (2, 1e9)):
        with edgellm.load(one_layer, kv=kv, threads=threads) as model:
            session = _native.Session(model._native, 512)
            session.append(ids)
            while not session.run(budget_ms):
                pass
            session.compress(64)
            assert session.n_tokens == 400
            assert session.n_dropped == 336
            results.append((session.kept_ranges, run(session, more)))
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][1], results[1][1])
    assert results[0][0][0][0] == 0
    assert results[0][0][-1][1] == 400


def test_what_compression_keeps_is_what_gets_attention(demo):
    prompt = demo.tokenize("The word is elephant. " + "Nothing else happened that day. " * 30)
    full = demo.generate(prompt, max_tokens=8)
    assert full.kept is None
    for ratio in (2, 4, 16):
        short = demo.generate(prompt, max_tokens=8, compress=ratio)
        assert short.token_ids[0] == full.token_ids[0]  # chosen before
        kept = short.kept
        assert kept is not None
        assert kept.n_read >= len(prompt)
        assert kept.n_per_head <= -(-len(prompt) // ratio) + 8
        assert kept.ranges[0][0] == 0
        assert kept.ranges[-1][1] == kept.n_read
        ends = [place for one in kept.ranges for place in one]
        assert ends == sorted(set(ends))


def test_a_window_lets_a_text_outgrow_the_context(demo):
    n_ctx = demo.info().n_ctx
    with pytest.raises(ContextOverflowError):
        demo.generate("Once upon a time", max_tokens=n_ctx + 100)
    long = demo.generate("Once upon a time", max_tokens=n_ctx + 100, window=160, stop_ids=[])
    assert len(long.token_ids) == n_ctx + 100
    kept = long.kept
    assert kept is not None
    assert kept.ranges[0] == (0, 32)
    assert kept.ranges[-1][1] == kept.n_read
    assert 192 <= kept.n_per_head <= 256
    plain = demo.generate("Once upon a time", max_tokens=150, stop_ids=[])
    assert plain.token_ids == long.token_ids[:150]  # nothing was shifted yet
    with pytest.raises(InvalidArgumentError, match="window"):
        demo.generate("Once", max_tokens=10, window=n_ctx)
    with pytest.raises(InvalidArgumentError, match="compress and window"):
        demo.generate("Once", max_tokens=10, window=100, compress=2)


def test_a_chat_that_gave_its_memory_back_goes_on_with_the_same_words(demo):
    with demo.chat() as one, demo.chat() as other:
        for chat in (one, other):
            chat.send("Tell me a story.", max_tokens=60)
        n_tokens, _ = one.context_tokens
        one.trim()
        assert one._session.n_recompute > 0
        assert one.context_tokens[0] == n_tokens
        assert (
            one.send("Go on.", max_tokens=40).token_ids
            == other.send("Go on.", max_tokens=40).token_ids
        )
        assert np.array_equal(one._session.logits(), other._session.logits())


def test_a_chat_that_shifts_never_ends(demo):
    with demo.chat(n_ctx=128, policy="shift") as chat:
        for _ in range(4):
            reply = chat.send("Tell me a story.", max_tokens=60, stop_ids=[])
            assert len(reply.token_ids) == 60
        assert reply.kept is not None
        assert reply.kept.n_read > 250
        assert reply.kept.n_per_head <= 128
        assert len(chat.turns) == 4
        with pytest.raises(UnsupportedError):
            chat._session.save("never.session")
        with pytest.raises(InvalidArgumentError, match="n_ctx"):
            demo.chat(n_ctx=100, policy="shift")


def test_a_chat_is_compressed_between_turns(demo):
    with demo.chat() as chat:
        chat.send("Tell me a story about a big dog.", max_tokens=100, stop_ids=[])
        kept = chat.compress(2)
        assert kept is not None
        assert kept.n_per_head < 0.6 * kept.n_read
        reply = chat.send("Go on.", max_tokens=10, stop_ids=[])
        assert reply.kept is not None
        assert reply.stats.reused_tokens > 0
        with pytest.raises(InvalidArgumentError, match=r"Chat\.compress"):
            chat.send("Go on.", max_tokens=10, compress=4)


def test_a_chat_that_is_compressed_goes_on_beyond_its_context(demo):
    n_ctx = 192
    with demo.chat(n_ctx=n_ctx, template="chatml") as chat, demo.chat(n_ctx=n_ctx) as full:
        n_said = 0
        while n_said < 3 * n_ctx // 2:
            reply = chat.send("Go on.", max_tokens=40, stop_ids=[])
            assert len(reply.token_ids) == 40
            assert n_said == 0 or reply.stats.reused_tokens > n_said - 8
            chat.compress(4)
            n_said = chat._session.n_tokens
            assert chat.context_tokens[0] < n_ctx // 2
        n_free = n_ctx - chat.context_tokens[0]
        with pytest.raises(ContextOverflowError, match=str(n_said + n_free)):
            chat.send("Go on.", max_tokens=n_free)
        # Without max_tokens it takes what is left.
        assert chat.send("Go on.", stop_ids=[], stop=["<|"]).finish_reason == "length"
        assert chat._session.n_tokens + 1 == n_said + n_free
        # Going back to what is gone reads all of it again, for which there is no room.
        with pytest.raises(ContextOverflowError):
            chat.edit(len(chat.turns) - 3, "Stop.", max_tokens=100)
        for _ in range(3):
            full.send("Go on.", max_tokens=40, stop_ids=[])
        with pytest.raises(ContextOverflowError):
            full.send("Go on.", max_tokens=40, stop_ids=[])


def test_memory_that_is_trimmed_goes_back_to_the_system(demo):
    session = _native.Session(demo._native, 512, reuse_prefix=False)
    run(session, demo.tokenize("word " * 400)[:500])
    before = session.logits()
    held = session.stats["kv_bytes"]
    assert session.trim() > 0.9 * held
    assert session.stats["kv_bytes"] == 0
    assert np.array_equal(session.logits(), before)
    assert session.n_recompute == session.n_tokens
