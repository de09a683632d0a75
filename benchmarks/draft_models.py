"""Whether a small model, or the first layers of a model, is worth asking.

    python benchmarks/draft_models.py [--model demo] [--texts 8] [--tokens 96] [--json]

For each number of layers, and for the whole model as its own draft model, which is the best that a
drafter can do: on texts that the model writes itself, tokens a step and how many of the guesses
that were verified were right, with no other drafter and whether it pays or not
(speculate="always"). No time is measured: the speed is that of the shape of 1B at most, where only
right guesses are verified, each of which took one pass of the drafter, or one pass a step where
none was right. A step of K rows takes what docs/SPECULATION.md says, a pass the share of the
weights that it reads.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

# Of the shape of Llama 3.2 1B: parameters a layer and of the head, which is the embedding.
LAYER, N_LAYERS, HEAD = 60_821_504, 16, 262_668_288
STEP_COSTS = {1: 1.0, 2: 1.02, 4: 1.13, 8: 1.50}  # t(K) / t(1), measured
PROMPTS = (
    "Once upon a time there was a little",
    "The cat and the dog",
    "Tom was sad because",
    "One day, a girl named Lily",
    "In the garden there was",
    "Ben wanted to",
    "It was raining and",
    "The old man",
)


def step_cost(n_rows: float) -> float:
    """Linear between and beyond what was measured."""
    known = sorted(STEP_COSTS)
    low = max((k for k in known[:-1] if k <= n_rows), default=known[0])
    high = known[known.index(low) + 1]
    slope = (STEP_COSTS[high] - STEP_COSTS[low]) / (high - low)
    return STEP_COSTS[low] + slope * (n_rows - low)


def measured(model: Any, texts: int, tokens: int, kind: str) -> dict[str, float]:
    """Over texts at temperatures 0 and 0.7. Once a model: its texts are known afterwards."""
    n_tokens = n_drafted = n_accepted = 0
    for at in range(texts):
        result = model.generate(
            PROMPTS[at % len(PROMPTS)], max_tokens=tokens, temperature=(0, 0.7)[at % 2], seed=at
        )
        drafted, accepted = result.stats.drafters.get(kind, (0, 0))
        n_tokens += len(result.token_ids)
        n_drafted += drafted
        n_accepted += accepted
    return {
        "tokens_per_step": n_tokens / (n_tokens - n_accepted),
        "acceptance": n_accepted / max(1, n_drafted),
    }


def row(found: dict[str, float], share: float) -> dict[str, float]:
    """share: what a pass takes of a plain step."""
    n_tokens = found["tokens_per_step"]
    most = n_tokens / (step_cost(n_tokens) + max(1.0, n_tokens - 1) * share)
    return {**found, "pass_share": share, "most_speed_1b": most}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    # Of the drafters that cost nothing only the one that has no texts to draft from.
    os.environ["EDGELLM_DRAFTERS"] = "store"
    import edgellm

    whole = N_LAYERS * LAYER + HEAD
    rows: dict[str, dict[str, float]] = {}
    with edgellm.load(args.model, threads=1) as model:
        n_layers = len(json.loads(model._native.spec_json)["layers"])
    for n in range(1, n_layers):
        options: dict[str, Any] = {"threads": 1, "speculate": "always", "prefix_cache": 0}
        with edgellm.load(args.model, draft_layers=n, **options) as model:
            share = (n / n_layers * N_LAYERS * LAYER + HEAD) / whole
            found = measured(model, args.texts, args.tokens, "exit")
            rows[f"first {n} of {n_layers} layers"] = row(found, share)
    with edgellm.load(args.model, draft_model=args.model, **options) as model:
        found = measured(model, args.texts, args.tokens, "external")
    for share in (0.1, 0.25, 1.0):
        rows[f"itself, as if {share:g} of its size"] = row(found, share)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    print("| what drafts | tokens a step | guesses right | a pass, of a step | speed, at most |")
    print("|---|---|---|---|---|")
    for name, found in rows.items():
        print(
            f"| {name} | {found['tokens_per_step']:.2f} | {found['acceptance']:.0%} "
            f"| {found['pass_share']:.2f} | {found['most_speed_1b']:.2f} |"
        )


if __name__ == "__main__":
    main()
