"""Rules, filters, several samples and log probabilities through the public SDK."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgellm
from edgellm import _native
from edgellm.options import GenerateOptions
from edgellm.sampling import SamplingArguments, SamplingRules, compile_breakers
from sdk import sampler_reference as ref
from tokenizer.pairs import SHARED, load_pair, train_byte_level, train_sentencepiece

SAMPLING_MD = Path(__file__).parents[2] / "docs" / "SAMPLING.md"
PROMPT = "Once upon a time, there was a little"


@pytest.fixture(scope="module")
def demo(demo_path: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path, threads=2) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def plain(demo: edgellm.Model) -> edgellm.Generation:
    return demo.generate(PROMPT, max_tokens=24, stop_ids=())


def test_top_logprobs_are_the_largest_of_the_log_softmax(demo):
    ids = demo.tokenize(PROMPT)
    generation = demo.generate(
        ids, max_tokens=6, stop_ids=(), logprobs=5, temperature=1, seed=4, repetition_penalty=1.3
    )
    scores = demo.logits(ids + generation.token_ids).astype(np.float64)[len(ids) - 1 : -1]
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert len(generation.top_logprobs) == 6
    for at, best in enumerate(generation.top_logprobs):
        expected = np.argsort(-scores[at], kind="stable")[:5]
        assert [token_id for token_id, _ in best] == expected.tolist()
        assert np.allclose([p for _, p in best], log_p[at][expected], atol=1e-9)
        assert generation.logprobs[at] == pytest.approx(log_p[at][generation.token_ids[at]])


def test_tokens_of_a_stream_carry_their_alternatives(demo):
    with demo.stream(PROMPT, max_tokens=3, logprobs=2) as stream:
        tokens = list(stream)
    assert all(token.top_logprobs[0] == (token.id, token.logprob) for token in tokens)
    assert demo.generate(PROMPT, max_tokens=2).top_logprobs == []
    n_vocab = demo.info().n_vocab
    with pytest.raises(edgellm.InvalidArgumentError, match="logprobs"):
        demo.stream(PROMPT, max_tokens=1, logprobs=n_vocab + 1)


def test_several_samples_equal_separate_runs_with_the_seeds_that_follow(demo):
    arguments: dict[str, Any] = {
        "max_tokens": 12,
        "temperature": 1.0,
        "top_p": 0.95,
        "frequency_penalty": 0.5,
        "dry_multiplier": 0.8,
        "xtc_probability": 0.5,
        "logprobs": 1,
    }
    last = 2**64 - 1
    several = demo.generate_n(PROMPT, 3, seed=last, **arguments)
    alone = [demo.generate(PROMPT, seed=seed, **arguments) for seed in (last, 0, 1)]
    for one, other in zip(several, alone, strict=True):
        assert (one.token_ids, one.text, one.logprobs) == (
            other.token_ids,
            other.text,
            other.logprobs,
        )
    assert len({tuple(one.token_ids) for one in several}) == 3
    n_prompt = len(demo.tokenize(PROMPT))
    assert [one.stats.reused_tokens for one in several[1:]] == [n_prompt - 1, n_prompt - 1]


def test_samples_of_a_prompt_of_one_token(demo):
    ids = demo.tokenize("A", bos=False)[:1]
    pair = demo.generate_n(ids, 2, max_tokens=4, temperature=1, seed=5)
    assert pair[1].token_ids == demo.generate(ids, max_tokens=4, temperature=1, seed=6).token_ids


@pytest.mark.parametrize("n", [0, -1, 1025])
def test_a_number_of_samples_out_of_range_is_refused(demo, n):
    with pytest.raises(edgellm.InvalidArgumentError, match=r"n must be in 1\.\.1024"):
        demo.generate_n(PROMPT, n, max_tokens=1)


def test_rules_at_their_defaults_change_nothing(demo, plain):
    named = demo.generate(
        PROMPT,
        max_tokens=24,
        stop_ids=(),
        repetition_penalty=1,
        presence_penalty=0,
        frequency_penalty=0,
        dry_multiplier=0,
        logit_bias={},
        min_tokens=0,
        ignore_eos=False,
    )
    assert named.token_ids == plain.token_ids


def test_greedy_with_a_repetition_penalty_is_the_argmax_of_the_penalised_logits(demo):
    ids = demo.tokenize(PROMPT)
    got = demo.generate(ids, max_tokens=10, stop_ids=(), repetition_penalty=1.5).token_ids
    expected: list[int] = []
    for _ in range(10):
        scores = demo.logits(ids + expected)[-1].astype(np.float64)
        seen = sorted(set(ids + expected))
        scores[seen] = np.where(scores[seen] < 0, scores[seen] * 1.5, scores[seen] / 1.5)
        expected.append(int(scores.argmax()))
    assert got == expected


def test_a_frequency_penalty_is_about_the_output_and_not_the_prompt(demo):
    ids = demo.tokenize(PROMPT)
    got = demo.generate(ids, max_tokens=10, stop_ids=(), frequency_penalty=2).token_ids
    expected: list[int] = []
    for _ in range(10):
        scores = demo.logits(ids + expected)[-1].astype(np.float64)
        for token in expected:
            scores[token] -= 2
        expected.append(int(scores.argmax()))
    assert got == expected


def test_a_banned_token_never_comes_and_a_favoured_one_does(demo, plain):
    banned = dict.fromkeys(set(plain.token_ids), -math.inf)
    other = demo.generate(PROMPT, max_tokens=24, stop_ids=(), logit_bias=banned)
    assert not set(other.token_ids) & set(plain.token_ids)
    forced = demo.generate(PROMPT, max_tokens=3, stop_ids=(), logit_bias={7: 1000.0})
    assert forced.token_ids == [7, 7, 7]


def test_min_tokens_holds_back_stop_ids_and_the_end_of_text(demo, plain):
    stop = plain.token_ids[2]
    assert len(demo.generate(PROMPT, max_tokens=24, stop_ids=[stop]).token_ids) == 3
    later = demo.generate(PROMPT, max_tokens=24, stop_ids=[stop], min_tokens=8).token_ids
    ends = {stop, *demo.info().eos_ids}
    assert len(later) > 8
    assert not ends & set(later[:8])


def test_ignore_eos_bans_the_end_of_text(demo):
    eos = demo.info().eos_ids
    wish = dict.fromkeys(eos, 1000.0)
    assert demo.generate(PROMPT, max_tokens=9, logit_bias=wish).finish_reason == "stop"
    ignoring = demo.generate(PROMPT, max_tokens=9, logit_bias=wish, ignore_eos=True)
    assert ignoring.finish_reason == "length"
    assert not set(eos) & set(ignoring.token_ids)


def test_dry_ends_a_loop_as_the_reference_does(demo):
    """A token so favoured that it comes for ever, until DRY outweighs the favour."""
    ids = demo.tokenize(PROMPT)
    arguments: dict[str, Any] = {"max_tokens": 12, "stop_ids": (), "logit_bias": {300: 60.0}}
    assert demo.generate(ids, **arguments).token_ids == [300] * 12
    got = demo.generate(ids, **arguments, dry_multiplier=1, dry_base=3, dry_breakers=["."])
    breakers = compile_breakers(demo._native.tokenizer, ["."])
    expected: list[int] = []
    for _ in range(12):
        scores = demo.logits(ids + expected)[-1]
        scores = ref.dry(scores, ids + expected, 1.0, 3.0, 2, 0, breakers)
        expected.append(int(ref.bias(scores, {300: 60.0}).argmax()))
    assert got.token_ids == expected
    assert expected != [300] * 12


def test_breakers_are_the_tokens_that_hold_them_and_those_they_are_spelled_with(demo):
    tokenizer = demo._native.tokenizer
    assert tokenizer is not None
    breakers = compile_breakers(tokenizer, ["\n", "little girl"])
    assert all(breakers)
    holding = {i for i in range(tokenizer.n_vocab) if "\n" in tokenizer.decode([i], special=True)}
    assert holding
    assert {b[0] for b in breakers if len(b) == 1} >= holding
    spelled = [tokenizer.decode(b, special=True) for b in breakers if len(b) > 1]
    assert spelled
    assert all("little girl" in text for text in spelled)


@pytest.mark.parametrize("train", [train_byte_level, train_sentencepiece])
def test_breakers_of_every_kind_of_tokenizer_spell_their_text(train):
    check_breakers(train().native)


@pytest.mark.parametrize("name", ["seed6m", "stories260K"])
def test_breakers_of_real_tokenizers_spell_their_text(name, shared_data):
    check_breakers(load_pair(shared_data / SHARED[name]).native)


def check_breakers(tokenizer: _native.Tokenizer) -> None:
    letter = tokenizer.encode("a", bos=False)[-1]
    for breaker in ("User:", "def main", "\n", "caf\u00e9"):
        sequences = compile_breakers(tokenizer, [breaker])
        texts = [tokenizer.decode([letter, *ids], special=True) for ids in sequences]
        assert any(len(ids) > 1 for ids in sequences) or len(breaker) == 1
        assert all(breaker in text for text in texts), (breaker, texts)
        holding = {
            i for i in range(tokenizer.n_vocab) if breaker in tokenizer.decode([letter, i, letter])
        }
        assert {ids[0] for ids in sequences if len(ids) == 1} >= holding
        inside = tokenizer.encode(f"aa {breaker}bb", bos=False)
        windows = [inside[i:j] for i in range(len(inside)) for j in range(i + 1, len(inside) + 1)]
        assert any(window in sequences for window in windows), breaker


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("repetition_penalty", 0),
        ("repetition_penalty", math.nan),
        ("repetition_penalty", "high"),
        ("penalty_window", -1),
        ("penalty_window", 1.5),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -2.5),
        ("typical_p", 0),
        ("typical_p", 1.1),
        ("dry_multiplier", -1),
        ("dry_base", 0.9),
        ("dry_allowed_length", 0),
        ("dry_range", 2**31),
        ("dry_breakers", [""]),
        ("dry_breakers", ["x" * 41]),
        ("dry_breakers", ["x"] * 65),
        ("xtc_probability", 1.1),
        ("xtc_threshold", 0),
        ("xtc_threshold", 0.6),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {"a": 1.0}),
        ("logit_bias", [1]),
        ("logit_bias", {10**6: 1.0}),
        ("logit_bias", {-1: 1.0}),
        ("min_tokens", -1),
        ("min_tokens", 5),
        ("ignore_eos", "yes"),
        ("logprobs", -1),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(demo, argument, value):
    with pytest.raises(edgellm.InvalidArgumentError, match=argument):
        demo.stream(PROMPT, **{"max_tokens": 4, argument: value})


def test_a_rule_that_does_not_exist_is_a_type_error(demo):
    with pytest.raises(TypeError, match="repetition_penalti"):
        demo.generate(PROMPT, max_tokens=1, repetition_penalti=1.2)


def test_dry_without_a_tokenizer_says_what_to_do(model, monkeypatch):
    monkeypatch.setattr(model._native, "tokenizer", None)
    with pytest.raises(edgellm.UnsupportedError, match=r"dry_breakers=\(\)"):
        model.stream([1], max_tokens=1, dry_multiplier=1)
    model.stream([1], max_tokens=1, dry_multiplier=1, dry_breakers=()).close()


def test_a_failure_among_several_samples_frees_the_sequence(fake, model, monkeypatch):
    def interrupted(self: object, budget_ms: float = 80.0) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake.Session, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.generate_n("Hi", 2, max_tokens=3)
    assert fake.LIVE_SESSIONS == set()


def test_the_table_of_the_docs_names_every_parameter_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", SAMPLING_MD.read_text("utf-8"), re.MULTILINE)
    documented = {name: default.strip() for name, default in rows}
    defaults = {f.name: f for f in fields(SamplingRules)}
    plain = {"temperature", "top_k", "top_p", "min_p", "seed", "logprobs"}
    assert set(documented) == set(defaults) | plain
    assert set(SamplingArguments.__annotations__) == set(defaults)
    for name in plain:
        assert float(documented[name]) == getattr(GenerateOptions, name)
    for name in set(defaults) - {"dry_breakers", "logit_bias", "ignore_eos"}:
        assert float(documented[name]) == defaults[name].default, name


def test_the_native_defaults_are_those_of_the_sdk(demo):
    """What the SDK leaves out, because it is at its default, must be off in the native code."""
    scores = np.random.default_rng(2).normal(0, 3, 50).astype(np.float32)
    rules = SamplingRules().native_arguments(demo._native, frozenset())
    assert rules == {}
    bare = _native.SamplerParams(temperature=1)
    assert np.array_equal(_native.apply_rules(scores, bare, [1, 1, 1, 1], 1), scores)
    assert len(_native.distribution(scores, bare, 0)) == 50


def test_rules_cannot_be_changed_afterwards():
    biases = {1: 1.0}
    rules = SamplingRules(logit_bias=biases)
    biases[2] = 2.0
    assert dict(rules.logit_bias) == {1: 1.0}
    with pytest.raises(TypeError):
        rules.logit_bias[1] = 5.0  # type: ignore[index]
