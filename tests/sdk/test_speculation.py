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
from edgellm.edgefile import read_header
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


def test_sessions_guess_unless_told_otherwise_where_there_is_memory_to_spare(demo_path):
    from edgellm import _native
    from edgellm.options import DEFAULT_SPECULATE, SPECULATE_NAMES

    assert f"speculate: str = {SPECULATE_NAMES[DEFAULT_SPECULATE]!r}" in (
        _native.Model.load.__doc__ or ""
    )
    with edgellm.load(demo_path) as loaded:
        assert loaded.generate("One two", max_tokens=3).stats.speculating
        besides_kv = loaded.kv_figures()["budget_bytes"]
    with edgellm.load(demo_path, max_memory=2**25) as loaded:
        assert loaded.kv_figures()["budget_bytes"] < besides_kv
        assert not loaded.generate("One two", max_tokens=3).stats.speculating
        assert loaded.kv_figures()["reserved_bytes"] == 0


MEMORY_SCRIPT = """
import ctypes, pathlib, random, re, sys
from edgellm import _native
libc = ctypes.CDLL(None)
def anonymous_bytes():
    libc.malloc_trim(0)
    text = pathlib.Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(re.search(r"Anonymous: *(\\d+) kB", text)[1])
draw = random.Random(1)
model = _native.Model.load(sys.argv[1], n_threads=2, prefix_cache_bytes=0, speculate=sys.argv[2])
def texts(n):
    for _ in range(n):
        session = _native.Session(model, 512)
        session.append([draw.randrange(model.n_vocab) for _ in range(500)])
        while not session.run(1e9): pass
        session.append([7])
        while not session.run(1e9): pass
        session.close()
texts(3)
before = anonymous_bytes()
texts(int(sys.argv[3]))
print(anonymous_bytes() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_texts_guess_from_stays_within_16_mebibytes_however_much_they_say(demo_path):
    def grown(way: str, n_texts: int) -> int:
        command = [sys.executable, "-c", MEMORY_SCRIPT, str(demo_path), way, str(n_texts)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert 2**20 < grown("always", 150) < 2**24  # 75,000 tokens, of which the store keeps the last
    assert grown("off", 150) < 2**20


SLOW_SCRIPT = """
import json, sys
from edgellm import _native
path, way, n_tokens, threads, cases = *sys.argv[1:3], *map(int, sys.argv[3:5]), sys.argv[5]
model = _native.Model.load(path, n_threads=threads, speculate=way)
found, counts = [], {}
for at, ids in enumerate(json.load(open(cases))):
    session = _native.Session(model, len(ids) + n_tokens)
    params = _native.SamplerParams(temperature=(0, 0.7, 1)[at % 3], seed=at)
    session.append(ids)
    text = []
    for _ in range(n_tokens):
        while not session.run(1e9): pass
        text.append(session.sample(params)[0])
        session.append(text[-1:])
    found.append(text)
    for name, count in session.stats["drafters"].items():
        counts[name] = [a + b for a, b in zip(counts.get(name, [0, 0]), count)]
    session.close()
print(json.dumps([found, counts]))
"""
# Which drafters, on how many threads, with which instruction set; each against plain decoding by
# the best one on two threads.
SLOW_WAYS: tuple[tuple[str, int, str], ...] = (
    ("suffix", 2, ""),
    ("store", 2, ""),
    ("recycling", 2, ""),
    ("", 2, ""),
    ("", 1, ""),
)
SCALAR_WAYS: tuple[tuple[str, int, str], ...] = (("", 1, "scalar"), ("", 2, "scalar"))


def made(path: Path, cases: Path, n_tokens: int, way: tuple[str, int, str] | None) -> Any:
    """The texts after the prompts in `cases`, and by drafter how many tokens it guessed and how
    many were right; None: plain."""
    drafters, threads, isa = way or ("", 2, "")
    command = [sys.executable, "-c", SLOW_SCRIPT, str(path), "always" if way else "off"]
    command += [str(n_tokens), str(threads), str(cases)]
    environment = os.environ | {"EDGELLM_DRAFTERS": drafters, "EDGELLM_ISA": isa}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def check(
    ways: tuple[tuple[str, int, str], ...],
    path: Path,
    prompts: list[list[int]],
    n_tokens: int,
    tmp_path: Path,
) -> None:
    """A random model may write nothing that other texts said, so the store may be silent."""
    heads = {"head"} if "draft_head" in read_header(path).tensors else set()
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps(prompts))
    expected, none = made(path, cases, n_tokens, None)
    assert none == {}
    for way in ways:
        found, counts = made(path, cases, n_tokens, way)
        assert found == expected, way
        asked = {way[0]} if way[0] else {"suffix", "store", "recycling"}
        assert asked - {"store"} <= set(counts) <= asked | heads
        assert all(accepted > 0 for _, accepted in counts.values()), (way, counts)
        n_tokens_made = len(prompts) * n_tokens
        print(path.stem, *way, f"{len(prompts)} prompts, {n_tokens_made} tokens equal:", counts)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_hundred_prompts_give_the_same_text(story_path, shared_data, tmp_path):
    words = (shared_data / "text" / "tinystories_hw_train.txt").read_text().split()
    with edgellm.load(story_path) as loaded:
        prompts = [
            loaded.tokenize(" ".join(words[at : at + 3 + at % 40])) for at in range(0, 10_000, 20)
        ]
    assert len(prompts) == 500
    check(SLOW_WAYS, story_path, prompts, 24, tmp_path)
    check(SCALAR_WAYS, story_path, [prompt[:12] for prompt in prompts], 8, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fifty_prompts_on_two_layers_of_a_large_model_give_the_same_text(shared_data, tmp_path):
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from edgellm.converters.archs import find
    from random_edge import write

    text = (shared_data / "configs" / "Llama-3.2-1B-Instruct.config.json").read_text()
    config = json.loads(text) | {"num_hidden_layers": 2}
    path = tmp_path / "two_layers.edge"
    write(find(config).to_spec(config, {}), path)
    prompts = [[(at * 7919 + i * (1 + at % 5)) % 1000 for i in range(20)] * 2 for at in range(50)]
    check(SLOW_WAYS, path, prompts, 16, tmp_path)
    # Scalar steps of it take a second a row.
    check(SCALAR_WAYS, path, [prompt[:3] * 2 for prompt in prompts], 6, tmp_path)
