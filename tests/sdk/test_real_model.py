"""The SDK on the real runtime and a tiny random model."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgellm

PROMPT = "Hello, world"


@pytest.fixture
def tiny(tiny_edge: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(tiny_edge, threads=2) as loaded:
        yield loaded


def test_greedy_tokens_are_the_argmax_of_the_logits_and_carry_their_logprob(tiny):
    ids = tiny.tokenize(PROMPT)
    generation = tiny.generate(ids, max_tokens=12, stop_ids=[])
    scores = tiny.logits(ids + generation.token_ids).astype(np.float64)[len(ids) - 1 : -1]
    assert scores.argmax(axis=1).tolist() == generation.token_ids
    log_total = np.log(np.exp(scores).sum(axis=1))
    expected = scores[np.arange(12), generation.token_ids] - log_total
    assert np.allclose(generation.logprobs, expected, atol=1e-6)


def test_generated_text_continues_the_prompt_exactly(tiny):
    ids = tiny.tokenize("caf\u00e9 \U0001f600")
    for seed in range(5):
        generation = tiny.generate(ids, max_tokens=30, temperature=2, seed=seed, stop_ids=[])
        whole = tiny.detokenize(ids + generation.token_ids)
        assert whole == tiny.detokenize(ids) + generation.text


def test_half_of_a_surrogate_pair_is_refused_by_name(tiny):
    with pytest.raises(edgellm.EdgeError, match="character 1 is half of a surrogate") as raised:
        tiny.tokenize("a\ud800b")
    assert raised.value.code == "invalid_utf8"
    with pytest.raises(TypeError, match="incompatible function arguments"):
        tiny.tokenize(b"bytes")


def test_a_closed_model_tokenizes_no_more(tiny_edge):
    model = edgellm.load(tiny_edge)
    assert model.tokenize("a")
    model.close()
    with pytest.raises(edgellm.EdgeError):
        model.tokenize("a")


def test_one_and_two_threads_give_the_same_bits(tiny_edge):
    ids = list(range(2, 90))
    with edgellm.load(tiny_edge, threads=1) as one, edgellm.load(tiny_edge, threads=2) as two:
        assert np.array_equal(one.logits(ids), two.logits(ids))


def test_top_k_of_one_is_greedy_and_seeds_decide_the_rest(tiny):
    greedy = tiny.generate(PROMPT, max_tokens=10, stop_ids=[])
    narrow = tiny.generate(PROMPT, max_tokens=10, stop_ids=[], temperature=1.5, top_k=1, seed=3)
    assert narrow.token_ids == greedy.token_ids
    draws = [
        tiny.generate(PROMPT, max_tokens=10, stop_ids=[], temperature=1.5, seed=seed).token_ids
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_two_streams_of_one_model_do_not_disturb_each_other(tiny):
    alone = tiny.generate(PROMPT, max_tokens=8, stop_ids=[]).token_ids
    first = tiny.stream(PROMPT, max_tokens=8, stop_ids=[])
    second = tiny.stream("another one", max_tokens=8, stop_ids=[])
    pairs = list(zip(first, second, strict=True))
    assert [a.id for a, _ in pairs] == alone


def test_a_dropped_stream_gives_its_memory_back(tiny_edge):
    with edgellm.load(tiny_edge) as loose:
        native = loose._native
        fixed = native.file_bytes + native.scratch_bytes
        cache = native.kv_bytes() + native.session_bytes
    with edgellm.load(tiny_edge, max_memory=fixed + cache + cache // 2) as model:
        for _ in range(3):
            stream = model.stream(PROMPT, max_tokens=100)
            next(stream)
            with pytest.raises(edgellm.MemoryBudgetError):
                model.stream(PROMPT, max_tokens=100)
            del stream
            gc.collect()


def test_a_budget_too_small_is_refused_at_load(tiny_edge):
    with pytest.raises(edgellm.MemoryBudgetError):
        edgellm.load(tiny_edge, max_memory=1000)


def test_a_damaged_byte_is_found_before_use_with_verify_always(tiny_edge, tmp_path):
    content = bytearray(tiny_edge.read_bytes())
    content[-20000] ^= 0x10
    damaged = tmp_path / "damaged.edge"
    damaged.write_bytes(content)
    with pytest.raises(edgellm.IntegrityError) as caught:
        edgellm.load(damaged, verify="always")
    assert caught.value.code == "leaf_hash"


def test_a_missing_file_names_its_path(tmp_path):
    with pytest.raises(edgellm.FormatError, match=r"nowhere\.edge") as caught:
        edgellm.load(tmp_path / "nowhere.edge")
    assert caught.value.code == "file_not_found"


def test_an_id_outside_the_vocabulary_is_refused(tiny):
    for bad in (-1, 258, 2**31, 2**70):
        with pytest.raises(edgellm.InvalidArgumentError):
            tiny.generate([5, bad], max_tokens=1)
        with pytest.raises(edgellm.InvalidArgumentError):
            tiny.logits([5, bad])


def test_logits_beyond_the_context_are_refused_with_the_numbers(tiny):
    with pytest.raises(edgellm.ContextOverflowError, match="128"):
        tiny.logits([5] * 129)


def test_a_closed_model_refuses_to_work(tiny):
    tiny.close()
    with pytest.raises(edgellm.InvalidArgumentError):
        tiny.generate([5], max_tokens=1)


def test_closing_during_generation_raises_cancelled_there(tiny):
    stream = tiny.stream([5], max_tokens=100, stop_ids=[])
    next(stream)
    thread = threading.Thread(target=tiny.close)
    thread.start()
    thread.join()
    with pytest.raises(edgellm.EdgeError):
        list(stream)


_FORK = """
import os, signal, sys
import edgellm
model = edgellm.load(sys.argv[1], threads=2)
before = model.generate("Hello", max_tokens=8, stop_ids=[]).token_ids
child = os.fork()
if child == 0:
    signal.alarm(30)
    after = model.generate("Hello", max_tokens=8, stop_ids=[]).token_ids
    os._exit(0 if after == before else 9)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert model.generate("Hello", max_tokens=8, stop_ids=[]).token_ids == before
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_model_survives_fork_in_parent_and_child(tiny_edge, tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORK, str(tiny_edge)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_info_describes_the_file(tiny, tiny_edge):
    info = tiny.info()
    assert info.file_bytes == tiny_edge.stat().st_size
    assert (info.n_layers, info.n_vocab, info.n_ctx, info.threads) == (2, 258, 128, 2)
    assert info.eos_ids == [1]
    assert info.weight_formats["E4_16"] == 8  # attention of two layers
    assert info.source["kind"] == "huggingface"
