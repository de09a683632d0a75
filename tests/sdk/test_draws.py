"""What docs/SAMPLING.md says of random numbers, written down once more: which token is drawn."""

from __future__ import annotations

import math

import pytest

import edgellm
from edgellm import _native

MASK = 0xFFFFFFFF
FLOORS = (2.0**-12, 2.0**-8, 2.0**-4, 1.0)
MOST_ALONE = 512
FIELD_CHOICE, RUNNER, FIELD = 0, 2, 3


def uniform(seed: int, step: int, purpose: int, token_id: int = 0) -> float:
    """Philox4x32-10 (Salmon et al. 2011), the first 53 bits."""
    counter = [step & MASK, step >> 32, purpose, token_id]
    key = [seed & MASK, seed >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second & MASK,
            (first >> 32) ^ counter[3] ^ key[1],
            first & MASK,
        ]
        key = [(key[0] + 0x9E3779B9) & MASK, (key[1] + 0xBB67AE85) & MASK]
    return ((counter[0] << 32 | counter[1]) >> 11) * 2.0**-53


def exponential(seed: int, step: int, purpose: int, token_id: int = 0) -> float:
    return -math.log1p(-uniform(seed, step, purpose, token_id))


def drawn(shares: list[tuple[int, float]], seed: int, step: int) -> int:
    """Of (id, probability), by the rules of the race."""
    best = max(share for _, share in shares)
    for floor in FLOORS:
        alone = [(id, share) for id, share in shares if share >= floor * best]
        if len(alone) <= MOST_ALONE:
            break
    else:
        alone = []
    rest = [one for one in shares if one not in alone]
    mass = math.fsum(share for _, share in rest)
    arrivals = [(exponential(seed, step, RUNNER, id) / share, id) for id, share in alone]
    soonest, winner = min(arrivals, default=(math.inf, -1))
    if not rest or (alone and exponential(seed, step, FIELD) / mass >= soonest):
        return winner
    target, share_so_far = uniform(seed, step, FIELD_CHOICE) * mass, 0.0
    for at, (_, share) in enumerate(rest):
        share_so_far += share
        if share_so_far > target:
            return rest[at][0]
    return rest[-1][0]


@pytest.mark.parametrize(
    ("temperature", "filters"),
    [
        (0.8, {}),
        (0.8, {"top_k": 30}),
        (1.0, {"top_p": 0.9}),
        (1.0, {"typical_p": 0.8}),
        (2.5, {}),
        (30.0, {}),  # nearly all are as likely, and run as one
        (30.0, {"top_k": 700}),
    ],
)
def test_each_token_is_drawn_by_the_numbers_of_its_position(demo_path, temperature, filters):
    seed = 2**40 + 5
    with edgellm.load(demo_path, threads=1) as model:
        ids = model.tokenize("Once upon a time")
        made = model.generate(
            ids, max_tokens=12, temperature=temperature, seed=seed, stop_ids=(), **filters
        )
    native = _native.Model.load(demo_path, n_threads=1)
    session = _native.Session(native, len(ids) + 12)
    params = _native.SamplerParams(temperature=temperature, seed=seed, **filters)
    text = list(ids)
    session.append(text)
    for token in made.token_ids:
        logits = session.run_with_logits(1e9)[-1]
        shares = _native.distribution(logits, params, len(text))
        assert drawn(shares, seed, len(text)) == token
        text.append(token)
        session.append([token])
    session.close()
    assert len(text) > len(ids) + 3
