"""What structured output costs and saves.

    python benchmarks/structured.py --tokenizer DIR --schemas DIR [--model demo] [--steps 200]

First the time for one mask, at the vocabulary of the tokenizer files in --tokenizer DIR: every
schema of --schemas (*/*.json) that is accepted is compiled, and walked through with tokens drawn
at random among the allowed ones, --steps of them. Wall-clock time of `Constraint.allowed()`, and
of `take()`, which looks for forced tokens.

Then answers of the model to prompts that hold a schema: tokens per second with the schema as
`response_format` against as many free tokens after the same prompt, in turns, prompt excluded.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from edgellm.converters.tokenizer import build_blob
from edgellm.converters.tokenizer.source import describe
from tokenizers import Tokenizer

import edgellm
from edgellm import _native
from edgellm.constraint import Constraint
from edgellm.grammar import Grammars
from edgellm.response_format import ResponseFormat

MAX_TOKENS = 256
MAX_PROMPT_CHARS = 1200


class Tokens:
    """As much of a model as a grammar looks at."""

    def __init__(self, directory: Path) -> None:
        source = describe(directory)
        oracle = Tokenizer.from_str(json.dumps(source.data))
        blob = build_blob(source.path, source.data, oracle)
        self.tokenizer = _native.Tokenizer.from_blob(blob)
        self.n_vocab = self.tokenizer.n_vocab


def schemas_in(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(directory.glob("*/*.json")):
        yield f"{path.parent.name}/{path.stem}", json.loads(path.read_text())


def format_of(schema: dict[str, Any]) -> ResponseFormat | None:
    return ResponseFormat.of({"type": "json_schema", "schema": schema})


def walk(constraint: Constraint, n_steps: int, rng: random.Random) -> tuple[list[float], ...]:
    """Seconds of every mask and of every step of one answer."""
    masks: list[float] = []
    steps: list[float] = []
    for _ in range(n_steps):
        if constraint.is_over:
            break
        if constraint.forced is not None:
            constraint.take(constraint.forced)
            continue
        started = perf_counter()
        words = constraint.allowed()
        masks.append(perf_counter() - started)
        ids = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
        started = perf_counter()
        constraint.take(int(rng.choice(ids)))
        steps.append(perf_counter() - started)
    return masks, steps


def line_of(name: str, seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return (
        f"{name}: {len(ordered)} times, median {1e6 * statistics.median(ordered):.0f} us, "
        f"p99 {1e3 * p99:.2f} ms, most {1e3 * ordered[-1]:.2f} ms"
    )


def time_masks(directory: Path, schemas: Path, n_steps: int) -> None:
    tokens = Tokens(directory)
    started = perf_counter()
    grammars = Grammars(tokens)
    print(f"vocabulary of {tokens.n_vocab}: {perf_counter() - started:.2f} s to read, once")
    rng = random.Random(1)
    masks: list[float] = []
    steps: list[float] = []
    compiled: list[float] = []
    refused: list[str] = []
    for name, schema in schemas_in(schemas):
        started = perf_counter()
        try:
            wanted = format_of(schema)
            assert wanted is not None
            matcher = grammars.matcher(wanted)
        except edgellm.EdgeError as error:
            refused.append(f"{name}: {error}")
            continue
        compiled.append(perf_counter() - started)
        constraint = Constraint(matcher, tokens.n_vocab, frozenset(), n_steps, None)
        for total, one in zip((masks, steps), walk(constraint, n_steps, rng), strict=True):
            total.extend(one)
    print(line_of("compile", compiled), line_of("mask", masks), line_of("take", steps), sep="\n")
    print(f"{len(compiled)} schemas accepted, {len(refused)} refused", *refused, sep="\n  ")


def tokens_per_s(model: edgellm.Model, prompt: str, **arguments: Any) -> tuple[float, Any]:
    answer = model.generate(prompt, **arguments)
    return answer.stats.tokens_per_s, answer


def time_answers(model: edgellm.Model, schemas: Path) -> None:
    ratios: list[float] = []
    shares: list[float] = []
    n_ended = 0
    for _, schema in schemas_in(schemas):
        text = json.dumps(schema)
        if len(text) > MAX_PROMPT_CHARS:
            continue
        prompt = f"Answer in JSON of this schema:\n{text}\nAnswer: "
        room = model.info().n_ctx - len(model.tokenize(prompt))
        if room < MAX_TOKENS // 2:
            continue
        try:
            speed, answer = tokens_per_s(
                model, prompt, max_tokens=min(MAX_TOKENS, room), response_format=format_of(schema)
            )
        except edgellm.UnsupportedError:
            continue
        n_new = answer.stats.generated_tokens
        if n_new < 8:
            continue
        free, _ = tokens_per_s(model, prompt, max_tokens=n_new, ignore_eos=True)
        ratios.append(speed / free)
        shares.append(answer.stats.forced_tokens / n_new)
        n_ended += answer.finish_reason == "stop"
    print(
        f"{len(ratios)} answers, {n_ended} ended: {statistics.median(ratios):.2f} times as fast as "
        f"free (median; {min(ratios):.2f} to {max(ratios):.2f}), "
        f"{100 * statistics.mean(shares):.0f} % of the tokens forced"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--schemas", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    if options.tokenizer is not None:
        time_masks(options.tokenizer, options.schemas, options.steps)
    if options.model is not None:
        with edgellm.load(options.model, prefix_cache=0) as model:
            time_answers(model, options.schemas)


if __name__ == "__main__":
    main()
