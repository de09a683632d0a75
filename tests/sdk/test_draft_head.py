"""A head in a model's file drafts for its generations, and changes no token of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgellm
from golden.draft_heads import with_head

PROMPTS = (
    "Once upon a time there was a little dog. The dog was",
    'Lily and Tom went to the park. Lily said, "',
)


@pytest.fixture(scope="module")
def drafting(demo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with a head that has not learnt: almost all of its guesses are wrong."""
    return with_head(demo_path, tmp_path_factory.mktemp("draft") / "drafting.edge")


def test_a_head_changes_no_token(demo_path: Path, drafting: Path) -> None:
    with (
        edgellm.load(demo_path, threads=1, speculate=False) as plain,
        edgellm.load(drafting, threads=2, speculate="always") as model,
    ):
        for prompt in PROMPTS:
            for way in ({}, {"temperature": 0.8, "seed": 3}):
                wanted = plain.generate(prompt, max_tokens=40, logprobs=1, **way)
                found = model.generate(prompt, max_tokens=40, logprobs=1, **way)
                assert (found.token_ids, found.logprobs) == (wanted.token_ids, wanted.logprobs)


def test_a_head_drafts_and_the_result_says_so(drafting: Path) -> None:
    with edgellm.load(drafting, threads=1, speculate="always") as model:
        drafted = 0
        for seed in range(6):
            way = {"temperature": 1.0, "seed": seed}
            stats = model.generate(PROMPTS[0], max_tokens=60, **way).stats
            drafted += stats.drafters.get("head", (0, 0))[0]
        assert drafted > 0


def test_where_tokens_are_drawn_a_head_guesses_those_that_will_be(demo_path: Path) -> None:
    """Of the demo's own head, which has learnt: no text makes so many of its likeliest tokens."""
    drafted = accepted = n_tokens = 0
    with edgellm.load(demo_path, threads=1, speculate="always") as model:
        for seed in range(6):
            way = {"temperature": 1.0, "seed": seed, "max_tokens": 60, "logprobs": 1}
            made = model.generate(PROMPTS[0], **way)
            assert made.token_ids == model.generate(PROMPTS[0], **way, speculate=False).token_ids
            now = made.stats.drafters["head"]
            drafted, accepted = drafted + now[0], accepted + now[1]
            n_tokens += len(made.token_ids)
    assert accepted > 0.3 * n_tokens, (drafted, accepted, n_tokens)


def test_a_closed_model_ends_what_a_head_drafts_for(drafting: Path) -> None:
    model = edgellm.load(drafting, threads=1, speculate="always")
    stream = model.stream(PROMPTS[0], max_tokens=60)
    for _ in range(5):
        next(stream)
    model.close()
    with pytest.raises(edgellm.errors.EdgeError):
        list(stream)
