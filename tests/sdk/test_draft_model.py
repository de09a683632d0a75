"""A small model, or the first layers of the model itself, drafts, and changes no token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import edgellm
from edgellm.errors import FormatError, InvalidArgumentError, MemoryBudgetError

PROMPTS = (
    "Once upon a time there was a little dog. The dog was",
    'Lily and Tom went to the park. Lily said, "',
)
WAYS = ({}, {"temperature": 0.8, "seed": 3}, {"repetition_penalty": 1.2})


@pytest.fixture(scope="module")
def plain(demo_path: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path, threads=1, speculate=False) as model:
        yield model


@pytest.fixture(scope="module")
def helped(demo_path: Path) -> Iterator[edgellm.Model]:
    """The demo drafts for itself, so almost all that it says is right."""
    with edgellm.load(demo_path, threads=2, speculate="always", draft_model=demo_path) as model:
        yield model


@pytest.fixture(scope="module")
def exiting(demo_path: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path, threads=2, speculate="always", draft_layers=3) as model:
        yield model


@pytest.mark.parametrize("name", ["helped", "exiting"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way) or "greedy")
def test_small_models_change_no_token(name, way, plain, request):
    model = request.getfixturevalue(name)
    for prompt in PROMPTS:
        wanted = plain.generate(prompt, max_tokens=40, logprobs=1, **way)
        found = model.generate(prompt, max_tokens=40, logprobs=1, **way)
        assert (found.token_ids, found.logprobs) == (wanted.token_ids, wanted.logprobs)


@pytest.mark.parametrize(("name", "kind"), [("helped", "external"), ("exiting", "exit")])
def test_small_models_draft_and_the_result_says_so(name, kind, request):
    model = request.getfixturevalue(name)
    counts = [
        model.generate(PROMPTS[0], max_tokens=60, temperature=1.0, seed=seed).stats.drafters[kind]
        for seed in range(4)
    ]
    drafted, accepted = (sum(column) for column in zip(*counts, strict=True))
    assert drafted > 100
    assert drafted / 20 < accepted < drafted


def test_a_small_model_drafts_what_it_would_write(demo_path):
    """Of one and the same model at a temperature of 0 only later branches are wrong."""
    with edgellm.load(demo_path, threads=1, speculate="always", draft_model=demo_path) as model:
        result = model.generate("The moon is a", max_tokens=24)
    others = sum(n for kind, (_, n) in result.stats.drafters.items() if kind != "external")
    external = result.stats.drafters["external"][1]
    assert external + others > 24 / 2
    assert external > 0


def test_several_texts_at_once_and_a_chat_that_goes_back(plain, helped):
    way = {"max_tokens": 30, "temperature": 0.7, "seed": 5}
    wanted = [result.token_ids for result in plain.generate_batch(PROMPTS, **way)]
    assert [result.token_ids for result in helped.generate_batch(PROMPTS, **way)] == wanted
    again = []
    for model in (plain, helped):
        with model.chat(template="chatml") as chat:
            chat.send("Tell me of a dog.", max_tokens=12)
            chat.send("And of a cat?", max_tokens=12)
            again.append(chat.edit(1, "And of a bird?", max_tokens=12).token_ids)
    assert again[0] == again[1]


def test_with_a_draft_model_texts_are_guessed_unless_told_otherwise(demo_path):
    with edgellm.load(demo_path, threads=1, draft_model="demo") as model:
        assert model.generate(PROMPTS[0], max_tokens=4).stats.speculating
    with edgellm.load(demo_path, threads=1, draft_layers=1, speculate=False) as model:
        assert not model.generate(PROMPTS[0], max_tokens=4).stats.speculating


def test_an_open_model_drafts_and_may_be_closed_at_any_time(demo_path, plain):
    wanted = plain.generate(PROMPTS[0], max_tokens=60).token_ids
    with edgellm.load(demo_path, threads=1) as draft:
        with edgellm.load(demo_path, threads=1, draft_model=draft, speculate="always") as model:
            stream = model.stream(PROMPTS[0], max_tokens=60)
            ids = [next(stream).id for _ in range(10)]
            draft.close()
            assert [*ids, *(token.id for token in stream)] == wanted
        with pytest.raises(InvalidArgumentError, match="closed"):
            edgellm.load(demo_path, draft_model=draft)


def test_a_model_closed_here_leaves_an_open_draft_model_open(demo_path):
    with edgellm.load(demo_path, threads=1) as draft:
        edgellm.load(demo_path, threads=1, draft_model=draft).close()
        assert draft.generate(PROMPTS[0], max_tokens=2).token_ids


def test_other_tokens_are_refused_with_the_first_that_differs(demo_path, shared_data, tmp_path):
    from edgellm.converters import convert

    stories = tmp_path / "stories.edge"
    convert(shared_data / "models" / "stories260K", stories)
    with pytest.raises(FormatError, match=r"512 of them, and this model \d{4};") as caught:
        edgellm.load(demo_path, draft_model=stories)
    assert caught.value.code == "draft_mismatch"


def test_a_draft_model_counts_for_the_memory(demo_path):
    with edgellm.load(demo_path, threads=1) as alone:
        needed = alone.info().file_bytes + alone._native.scratch_bytes
    limit = 2 * needed - 1
    edgellm.load(demo_path, threads=1, max_memory=limit).close()
    with pytest.raises(MemoryBudgetError, match="draft model"):
        edgellm.load(demo_path, threads=1, max_memory=limit, draft_model=demo_path)


def test_sessions_claim_what_a_draft_model_keeps(demo_path):
    reserved = []
    for extra in ({}, {"draft_model": demo_path}, {"draft_layers": 1}):
        with edgellm.load(demo_path, threads=1, speculate=True, **extra) as model:
            stream = model.stream(PROMPTS[0], max_tokens=4)
            next(stream)
            reserved.append(model.kv_figures()["reserved_bytes"])
            stream.close()
    assert min(reserved[1:]) > reserved[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"draft_layers": -1}, "draft_layers must be in"),
        ({"draft_layers": 1000}, "must be below the"),
        ({"draft_model": 7}, "is of type int"),
    ],
)
def test_what_cannot_draft_is_refused(demo_path, options, says):
    with pytest.raises(InvalidArgumentError, match=says):
        edgellm.load(demo_path, **options)


def test_a_draft_model_that_is_not_there_is_named(demo_path, tmp_path):
    with pytest.raises(FormatError, match=r"nothing\.edge"):
        edgellm.load(demo_path, draft_model=tmp_path / "nothing.edge")
