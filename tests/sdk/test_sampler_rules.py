"""Every rule and filter of the native sampler: exact sets and values on logits made by hand, and
equality with the numpy reference on random ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import edgellm
from edgellm import _native
from sdk import sampler_reference as ref

N = 12


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def ruled(logits: Any, history: Any = (), n_prompt: int | None = None, **params: Any) -> np.ndarray:
    return _native.apply_rules(logits, _native.SamplerParams(**params), history, n_prompt)


def drawable(logits: Any, step: int = 0, **params: Any) -> dict[int, float]:
    params = {"temperature": 1.0, **params}
    return dict(_native.distribution(logits, _native.SamplerParams(**params), step))


def logits_of(*shares: float) -> np.ndarray:
    return np.log(array(*shares))


def test_repetition_divides_positive_and_multiplies_negative_logits_once_per_token():
    logits = array(2, -2, 3, 0, 5)
    assert ruled(logits, [0, 1, 1, 3, 0], repetition_penalty=2).tolist() == [1, -4, 3, 0, 5]
    assert ruled(logits, [0, 1, 4], repetition_penalty=0.5).tolist() == [4, -1, 3, 0, 10]


def test_the_repetition_penalty_equals_that_of_transformers():
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(3)
    for penalty in (0.5, 1.25, 2.0):  # exact in both widths
        logits = rng.normal(0, 4, 50).astype(np.float32)
        history = rng.integers(0, 50, 30)
        theirs = process.RepetitionPenaltyLogitsProcessor(penalty)(
            torch.from_numpy(history)[None], torch.from_numpy(logits.copy())[None]
        )[0].numpy()
        assert np.array_equal(ruled(logits, history.tolist(), repetition_penalty=penalty), theirs)


def test_the_window_of_the_repetition_penalty_is_the_last_tokens():
    logits = array(2, 2, 2)
    history = [0, 1, 2]
    assert ruled(logits, history, repetition_penalty=2, penalty_window=1).tolist() == [2, 2, 1]
    assert ruled(logits, history, repetition_penalty=2, penalty_window=2).tolist() == [2, 1, 1]
    assert ruled(logits, history, repetition_penalty=2, penalty_window=99).tolist() == [1, 1, 1]


def test_presence_and_frequency_look_at_generated_tokens_only():
    logits = array(1, 1, 1, 1)
    history, n_prompt = [3, 3, 0, 1, 1], 2
    assert ruled(logits, history, n_prompt, presence_penalty=0.5).tolist() == [0.5, 0.5, 1, 1]
    assert ruled(logits, history, n_prompt, frequency_penalty=0.5).tolist() == [0.5, 0, 1, 1]
    both = ruled(logits, history, n_prompt, presence_penalty=-1, frequency_penalty=2)
    assert both.tolist() == [0, -2, 1, 1]


def test_rules_about_generated_tokens_ask_where_the_prompt_ends():
    for params in ({"presence_penalty": 1.0}, {"min_tokens": 1, "end_ids": [0]}):
        with pytest.raises(edgellm.InvalidArgumentError, match="n_prompt"):
            ruled(array(1, 2), [0], **params)
    with pytest.raises(edgellm.InvalidArgumentError, match="n_prompt is 2"):
        ruled(array(1, 2), [0], 2, presence_penalty=1)


def dry(history: list[int], **params: Any) -> list[float]:
    arguments: dict[str, Any] = {"dry_multiplier": 1, "dry_base": 2, **params}
    return ruled(np.zeros(N, np.float32), history, **arguments).tolist()


def penalties(**by_id: float) -> list[float]:
    values = [0.0] * N
    for name, penalty in by_id.items():
        values[int(name[1:])] = -penalty
    return values


def test_dry_penalises_what_would_continue_a_repeat():
    # "1 2 3 4 ... 1 2 3": a 4 would continue a repeat of three, one more than allowed: 2 ** 1.
    assert dry([1, 2, 3, 4, 9, 1, 2, 3]) == penalties(_4=2)
    assert dry([1, 2, 3, 4, 9, 1, 2, 3], dry_allowed_length=3) == penalties(_4=1)
    assert dry([1, 2, 3, 4, 9, 1, 2, 3], dry_allowed_length=4) == penalties()
    # The example of llama.cpp's source: repeats of 3, 1 and 2 before c, b and y.
    a, b, c, y = 1, 2, 3, 4
    history = [a, b, c, c, b, c, y, a, b, c]
    assert dry(history, dry_allowed_length=1) == penalties(_3=4, _2=1, _4=2)
    assert dry([5] * 6) == penalties(_5=8)


def test_dry_looks_only_as_far_as_its_range_and_its_breakers():
    history = [1, 2, 3, 4, 9, 1, 2, 3]
    assert dry(history, dry_range=7) == penalties(_4=1)
    assert dry(history, dry_range=6) == penalties()
    assert dry(history, dry_breakers=[[1]]) == penalties(_4=1)
    assert dry(history, dry_breakers=[[2]]) == penalties()
    assert dry(history, dry_breakers=[[1, 2]]) == penalties()
    assert dry(history, dry_breakers=[[9, 1]]) == penalties(_4=1)
    assert dry(history, dry_breakers=[[9, 2]]) == penalties(_4=2)
    assert dry(history, dry_breakers=[[4]]) == penalties(), "a breaker is never penalised"


def test_dry_of_a_very_long_repeat_stays_finite_and_bans_nothing():
    values = dry([5] * 500, dry_base=10, dry_multiplier=100)
    assert values[5] == -float(np.finfo(np.float32).max)


def test_bias_adds_and_bans_and_comes_after_the_penalties():
    logits = array(1, 2, 3)
    assert ruled(logits, logit_bias={0: 5, 2: -math.inf}).tolist() == [6, 2, -math.inf]
    assert ruled(logits, [1], repetition_penalty=2, logit_bias={1: 3}).tolist() == [1, 4, 3]
    assert drawable(logits, logit_bias={2: -math.inf, 0: -math.inf}) == {1: 1.0}
    greedy = drawable(logits, temperature=0, logit_bias={2: -math.inf})
    assert greedy == {1: 1.0}


def test_a_ban_of_everything_is_refused():
    with pytest.raises(edgellm.InvalidArgumentError, match="ban every token"):
        ruled(array(1, 2), logit_bias={0: -math.inf, 1: -math.inf})


def test_ends_are_banned_until_min_tokens_were_generated():
    logits = array(1, 2, 3)
    params: dict[str, Any] = {"min_tokens": 2, "end_ids": [1, 2]}
    banned = [1, -math.inf, -math.inf]
    assert ruled(logits, [0], 1, **params).tolist() == banned
    assert ruled(logits, [0, 0], 1, **params).tolist() == banned
    assert ruled(logits, [0, 0, 0], 1, **params).tolist() == [1, 2, 3]


def test_ids_outside_the_vocabulary_are_refused_by_name():
    for params, history in (
        ({"logit_bias": {3: 1.0}}, []),
        ({"end_ids": [3], "min_tokens": 1}, []),
        ({"repetition_penalty": 2.0}, [3]),
    ):
        with pytest.raises(edgellm.InvalidArgumentError, match="id 3"):
            ruled(array(1, 2, 3), history, 0, **params)


def test_typical_p_keeps_what_is_nearest_to_the_entropy():
    # Entropy of (0.5, 0.25, 0.125, 0.125): 1.75 bits; surprises 1, 2, 3, 3; distances .75 .25 1.25
    logits = logits_of(0.5, 0.25, 0.125, 0.125)
    assert set(drawable(logits, typical_p=0.2)) == {1}
    assert set(drawable(logits, typical_p=0.7)) == {0, 1}
    assert set(drawable(logits, typical_p=0.8)) == {0, 1, 2}
    assert set(drawable(logits, typical_p=0.9)) == {0, 1, 2, 3}
    assert drawable(logits, typical_p=0.7)[1] == pytest.approx(1 / 3)
    assert set(drawable(logits, typical_p=0.3, top_k=2)) == {0}


def test_xtc_leaves_the_least_likely_of_the_top_choices():
    logits = logits_of(0.4, 0.1, 0.3, 0.2)
    always: dict[str, Any] = {"xtc_probability": 1}
    assert set(drawable(logits, xtc_threshold=0.15, **always)) == {1, 3}
    assert set(drawable(logits, xtc_threshold=0.25, **always)) == {1, 2, 3}
    assert set(drawable(logits, xtc_threshold=0.35, **always)) == {0, 1, 2, 3}
    assert set(drawable(logits, xtc_threshold=0.45, **always)) == {0, 1, 2, 3}
    assert set(drawable(logits, xtc_threshold=0.001, **always)) == {1}
    banned = drawable(logits, xtc_threshold=0.001, logit_bias={1: -math.inf}, **always)
    assert set(banned) == {3}


def test_xtc_happens_as_often_as_it_should_and_the_seed_decides_when():
    logits, n = logits_of(0.4, 0.1, 0.3, 0.2), 5_000
    happened = [
        [len(drawable(logits, step, xtc_probability=0.3, xtc_threshold=0.15, seed=seed)) == 2
         for step in range(n)]
        for seed in (9, 9, 10)
    ]  # fmt: skip
    assert happened[0] == happened[1] != happened[2]
    assert abs(sum(happened[0]) / n - 0.3) < 4 * math.sqrt(0.3 * 0.7 / n)


def test_typical_equals_that_of_transformers():
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(5)
    for mass in (0.1, 0.5, 0.9, 0.95):
        logits = rng.normal(0, 3, 200).astype(np.float32)
        theirs = process.TypicalLogitsWarper(mass)(None, torch.from_numpy(logits)[None])[0]
        kept = set(torch.nonzero(torch.isfinite(theirs))[:, 0].tolist())
        assert set(drawable(logits, typical_p=mass)) == kept


LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=N, max_size=N).map(
    lambda values: np.array(values, np.float32)
)
HISTORY = st.lists(st.integers(0, 4), max_size=40)
BREAKERS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), max_size=3)


@settings(max_examples=300)
@given(
    logits=LOGITS,
    history=HISTORY,
    cut=st.floats(0, 1),
    penalty=st.floats(0.1, 10),
    window=st.integers(0, 45),
    present=st.floats(-2, 2),
    frequent=st.floats(-2, 2),
    dry_args=st.tuples(
        st.sampled_from([0.0, 0.8, 100.0]),
        st.floats(1, 10),
        st.integers(1, 5),
        st.integers(0, 45),
        BREAKERS,
    ),
    biases=st.dictionaries(
        st.integers(0, N - 1), st.one_of(st.floats(-50, 50), st.just(-math.inf)), max_size=5
    ),
)
def test_all_rules_together_equal_the_reference_bit_for_bit(
    logits, history, cut, penalty, window, present, frequent, dry_args, biases
):
    n_prompt = round(cut * len(history))
    multiplier, base, allowed, dry_range, breakers = dry_args
    expected = ref.repetition(logits, history, penalty, window)
    expected = ref.presence(expected, history[n_prompt:], present, frequent)
    if multiplier:
        expected = ref.dry(expected, history, multiplier, base, allowed, dry_range, breakers)
    expected = ref.bias(expected, biases)
    got = ruled(
        logits,
        history,
        n_prompt,
        repetition_penalty=penalty,
        penalty_window=window,
        presence_penalty=present,
        frequency_penalty=frequent,
        dry_multiplier=multiplier,
        dry_base=base,
        dry_allowed_length=allowed,
        dry_range=dry_range,
        dry_breakers=breakers,
        logit_bias=biases,
    )
    assert got.tobytes() == expected.astype(np.float32).tobytes()


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**32),
    temperature=st.floats(0.3, 3),
    top_k=st.integers(0, N + 2),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.9),
    typical_p=st.floats(0.05, 1),
    xtc=st.one_of(st.none(), st.floats(0.01, 0.5)),
    banned=st.sets(st.integers(0, N - 1), max_size=N - 1),
)
def test_all_filters_together_equal_the_reference(
    seed, temperature, top_k, top_p, min_p, typical_p, xtc, banned
):
    logits = np.random.default_rng(seed).normal(0, 2, N).astype(np.float32)
    biases = dict.fromkeys(banned, -math.inf)
    after = ref.bias(logits, biases)
    share = ref.shares(ref.probabilities(after, temperature), ref.ranked(after))
    share = ref.keep_top_k(share, top_k)
    assume(not is_edge(share, top_p))
    share = ref.keep_min_p(ref.keep_top_p(share, top_p), min_p)
    assume(not is_edge(share, typical_p))
    share = ref.keep_typical(share, typical_p)
    if xtc is not None:
        share = ref.exclude_top_choices(dict(sorted(share.items(), key=lambda s: -s[1])), xtc)
    got = drawable(
        logits,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        xtc_probability=0 if xtc is None else 1,
        xtc_threshold=0.1 if xtc is None else xtc,
        logit_bias=biases,
    )
    assert set(got) == set(share)
    assert all(got[i] == pytest.approx(share[i], rel=1e-9) for i in share)


def is_edge(share: dict[int, float], mass: float) -> bool:
    """A sum so near the limit that the last bit of a sum decides."""
    return bool(np.isclose(np.cumsum(list(share.values())), mass, atol=1e-12).any())


def test_defaults_change_nothing():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 5, 1000).astype(np.float32)
    assert ruled(logits, [1, 2, 3]).tobytes() == logits.tobytes()
    with_end_ids = ruled(logits, [1, 2, 3], end_ids=[4], dry_breakers=[[1]], penalty_window=2)
    assert with_end_ids.tobytes() == logits.tobytes()
    plain = ref.probabilities(logits, 1.0)
    assert drawable(logits) == pytest.approx(dict(enumerate(plain)))
