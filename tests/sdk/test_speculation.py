"""Guessing ahead changes no token: whatever is asked of a generation, texts, ids and log
probabilities are those without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgellm
from edgellm.results import Generation, Stats

PROMPTS = (
    "Once upon a time there was a little dog. The dog was happy. The dog was",
    'Lily and Tom went to the park. Lily said, "Let us play!" Tom said, "Let us play!" Lily',
    "One two three one two three one two three one",
)
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.8, "seed": 7},
    {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "seed": 1, "logprobs": 3},
    {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2},
    {"dry_multiplier": 0.8, "temperature": 0.3, "xtc_probability": 0.5, "min_tokens": 20},
    {"stop": ["the", "."]},
    {"window": 64},
    {"compress": 2.0},
)


@pytest.fixture(scope="module", params=["demo", "stories260K"])
def story_path(request, demo_path, tmp_path_factory) -> Path:
    if request.param == "demo":
        return demo_path
    from edgellm.converters import convert

    checkpoint = request.getfixturevalue("shared_data") / "models" / "stories260K"
    out = tmp_path_factory.mktemp("stories") / "stories260K.edge"
    convert(checkpoint, out)
    return out


@pytest.fixture(scope="module", params=["K8V8", "K6V4"])
def model(request, story_path) -> Iterator[edgellm.Model]:
    with edgellm.load(story_path, threads=2, kv=request.param, speculate="always") as loaded:
        yield loaded


def told(generation: Generation) -> tuple[object, ...]:
    """All that a generation says but how fast it was."""
    return (
        generation.text,
        generation.token_ids,
        generation.logprobs,
        generation.top_logprobs,
        generation.finish_reason,
        generation.kept,
    )


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way) or "greedy")
def test_every_way_to_generate_gives_the_same_with_and_without(model, way):
    for prompt in PROMPTS:
        one, other = (
            model.generate(prompt, max_tokens=48, speculate=speculate, **way)
            for speculate in (False, True)
        )
        assert told(one) == told(other)
        assert not one.stats.speculating
        assert one.stats.drafted_tokens == one.stats.accepted_tokens == 0
        assert other.stats.speculating


def test_repeated_text_is_guessed_right_and_the_result_says_by_what(model):
    prompt = model.tokenize(PROMPTS[2])
    first = model.generate(prompt, max_tokens=40, speculate=True, stop_ids=())
    again = model.generate(prompt, max_tokens=40, speculate=True, stop_ids=())
    assert told(first) == told(again)
    stats = again.stats
    assert 0 < stats.accepted_tokens <= stats.drafted_tokens
    assert stats.accepted_tokens == sum(accepted for _, accepted in stats.drafters.values())
    assert stats.drafted_tokens == sum(drafted for drafted, _ in stats.drafters.values())


def test_texts_of_a_batch_are_guessed_at_together(story_path):
    every = [*PROMPTS, *(prompt[::-1] for prompt in PROMPTS)]
    options: dict[str, Any] = {"max_tokens": 40, "temperature": 0.4, "seed": 3, "stop_ids": ()}
    with edgellm.load(story_path, threads=2) as plain:
        expected = [told(plain.generate(prompt, **options)) for prompt in every]
    with edgellm.load(story_path, threads=2, speculate="always") as speculating:
        for _ in range(2):
            batch = speculating.generate_batch(every, at_once=4, **options)
            assert [told(one) for one in batch] == expected
        assert sum(one.stats.accepted_tokens for one in batch) > 0
        samples = speculating.generate_n(every[0], 3, **options)
        assert told(samples[0]) == expected[0]


def test_a_chat_guesses_turn_by_turn_as_it_is_told(demo_path):
    def talk(speculate: bool, more: tuple[bool | None, ...]) -> list[tuple[object, Stats]]:
        with edgellm.load(demo_path, threads=1, speculate=speculate) as loaded:
            chat = loaded.chat(template="chatml")
            replies = []
            for turn in more:
                reply = chat.send("Tell me a story.", max_tokens=30, speculate=turn)
                replies.append((told(reply), reply.stats))
            return replies

    plain = talk(False, (None, None, None))
    mixed = talk(True, (None, False, None))
    assert [reply for reply, _ in plain] == [reply for reply, _ in mixed]
    assert [stats.speculating for _, stats in mixed] == [True, False, True]
    assert not any(stats.speculating for _, stats in plain)


def test_texts_with_a_namespace_neither_guess_nor_are_guessed_from(demo_path):
    with edgellm.load(demo_path, speculate=True) as loaded:
        apart = loaded.generate("One two", max_tokens=5, namespace="tenant")
        assert not apart.stats.speculating
        with pytest.raises(edgellm.UnsupportedError, match="name space"):
            loaded.generate("One two", max_tokens=5, namespace="tenant", speculate=True)


def test_without_memory_for_it_auto_does_without_and_true_refuses(demo_path):
    roomy = 2**30
    with edgellm.load(demo_path, max_memory=roomy) as loaded:
        besides_kv = roomy - loaded.kv_figures()["budget_bytes"]
        expected = loaded.generate(PROMPTS[0], max_tokens=8)
    little = besides_kv + 4 * 2**20
    with edgellm.load(demo_path, max_memory=little, speculate="auto") as loaded:
        found = loaded.generate(PROMPTS[0], max_tokens=8)
        assert told(found) == told(expected)
        assert not found.stats.speculating
        with pytest.raises(edgellm.MemoryBudgetError, match="draft"):
            loaded.generate(PROMPTS[0], max_tokens=8, speculate=True)
    with (
        edgellm.load(demo_path, max_memory=little, speculate=True) as loaded,
        pytest.raises(edgellm.MemoryBudgetError, match="draft"),
    ):
        loaded.generate(PROMPTS[0], max_tokens=8)


def test_one_thread_or_two_and_any_instruction_set_give_the_same(demo_path):
    script = (
        "import edgellm, json, sys\n"
        "model = edgellm.load(sys.argv[1], threads=int(sys.argv[2]), speculate='always')\n"
        "prompts = json.loads(sys.argv[3])\n"
        "print(json.dumps([model.generate(p, max_tokens=16).token_ids for p in prompts]))\n"
    )
    prompts = [PROMPTS[2], PROMPTS[2]]
    with edgellm.load(demo_path) as loaded:
        expected = [loaded.generate(p, max_tokens=16).token_ids for p in prompts]
    for isa, threads in ((None, 1), ("scalar", 2)):
        environment = os.environ | ({"EDGELLM_ISA": isa} if isa else {})
        command = [sys.executable, "-c", script, str(demo_path), str(threads), json.dumps(prompts)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert json.loads(run.stdout) == expected, (isa, threads)


def test_values_that_mean_nothing_are_refused(demo_path):
    with pytest.raises(edgellm.InvalidArgumentError, match="speculate must be True, False, 'auto'"):
        edgellm.load(demo_path, speculate="sometimes")  # type: ignore[arg-type]


@pytest.mark.slow
def test_five_hundred_prompts_give_the_same_text(model, shared_data):
    words = (shared_data / "text" / "tinystories_hw_train.txt").read_text().split()
    prompts = [" ".join(words[at : at + 3 + at % 40]) for at in range(0, 10_000, 20)]
    assert len(prompts) == 500
    n_accepted = 0
    for at, prompt in enumerate(prompts):
        options: dict[str, Any] = {"max_tokens": 32, "temperature": (0, 0.7, 1)[at % 3], "seed": at}
        plain = model.generate(prompt, speculate=False, **options)
        guessed = model.generate(prompt, speculate=True, **options)
        assert told(plain) == told(guessed), prompt
        n_accepted += guessed.stats.accepted_tokens
    assert n_accepted > 0


@pytest.mark.parametrize(("budget_ms", "is_capped"), [(1e-6, True), (1e9, False)])
def test_a_latency_budget_allows_fewer_guesses_and_the_result_says_so(
    demo_path, budget_ms, is_capped
):
    """ "always": steps count as if all took a millisecond, so the machine decides nothing."""
    with edgellm.load(
        demo_path, threads=1, speculate="always", latency_budget_ms=budget_ms
    ) as model:
        stats = model.generate(PROMPTS[2], max_tokens=40).stats
    assert (stats.capped_steps > 0) == is_capped
    assert (stats.drafted_tokens == 0) == is_capped
