"""What compressing a prompt's KV costs: KL of the next tokens, and recall of planted keys.

    python benchmarks/long_context.py MODEL.edge TEXT [--ratios 4,16,50] [--n 24] [--json]

KL: pieces of TEXT are read, then 64 more tokens of it with the whole KV and with a compressed one;
the mean of KL(whole || compressed) over those tokens, in nats. Recall: "The secret name is NAME."
is planted at a random place of a piece whose end asks for it; how often every token of the name is
the most likely one after those before it, and how often all of them are still seen by a (layer, kv
head). `window` in place of a ratio is StreamingLLM: the first and the last tokens, as many as ratio
4 keeps.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import edgellm
from edgellm import _native
from edgellm.long_context import compress_session

N_NEXT = 64
NAMES = ("Tim", "Lily", "Ben", "Sam", "Tom", "Mia", "Max", "Anna", "Jack", "Sue", "Bob", "Lucy")


def run_rows(session: _native.Session, ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Logits [len(ids), n_vocab]."""
    session.append(ids)
    rows = []
    while session.pending:
        rows.append(session.run_with_logits(1e9))
    return np.concatenate(rows).astype(np.float64)


def log_softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def shorten(session: _native.Session, ratio: float | None) -> _native.Session:
    """A fork with one of `ratio` tokens, or, with None, first and last tokens only."""
    short = session.fork()
    if ratio is not None:
        compress_session(short, ratio)
        return short
    n_kept = session.n_tokens // 4 // 32 * 32
    short.shift(32, (session.n_tokens - n_kept) // 32 * 32)
    return short


def kl_of(
    model: edgellm.Model, ids: list[int], n_prompt: int, ratios: Sequence[float | None], n: int
) -> dict[str, float]:
    n_piece = n_prompt + N_NEXT
    starts = np.linspace(0, len(ids) - n_piece, n).astype(int)
    sums = dict.fromkeys(map(str, ratios), 0.0)
    for start in starts:
        piece = ids[start : start + n_piece]
        session = _native.Session(model._native, n_piece, reuse_prefix=False)
        run_rows(session, piece[:n_prompt])
        shorter = {str(ratio): shorten(session, ratio) for ratio in ratios}
        whole = log_softmax(run_rows(session, piece[n_prompt:]))
        for name, one in shorter.items():
            rows = log_softmax(run_rows(one, piece[n_prompt:]))
            sums[name] += float((np.exp(whole) * (whole - rows)).sum(axis=1).mean()) / n
    return sums


def recall_of(
    model: edgellm.Model, ids: list[int], n_prompt: int, ratios: Sequence[float | None], n: int
) -> dict[str, dict[str, float]]:
    rng = random.Random(1)
    columns = ["whole", *map(str, ratios)]
    hits, seen = dict.fromkeys(columns, 0.0), dict.fromkeys(columns, 0.0)
    ask = "\nThe secret name is"
    for _ in range(n):
        name = rng.choice(NAMES)
        stem = model.tokenize(" The secret name is", bos=False)
        key = model.tokenize(f" The secret name is {name}.", bos=False)
        question = model.tokenize(ask, bos=False)
        answer = model.tokenize(f"{ask} {name}", bos=False)[len(question) :]
        n_text = n_prompt - len(key) - len(question)
        start = rng.randrange(len(ids) - n_text)
        at = rng.randrange(n_text // 8, n_text * 7 // 8)
        text = ids[start : start + n_text]
        prompt = [*text[:at], *key, *text[at:], *question]
        session = _native.Session(model._native, n_prompt + len(answer), reuse_prefix=False)
        run_rows(session, prompt[:-1])
        whole = session.fork()
        for column, one in [("whole", whole), *((str(r), shorten(session, r)) for r in ratios)]:
            kept = {i for first, end in one.kept_ranges for i in range(first, end)}
            seen[column] += kept.issuperset(range(at + len(stem), at + len(key) - 1)) / n
            best = run_rows(one, [prompt[-1], *answer[:-1]]).argmax(axis=1)
            hits[column] += (best.tolist() == answer) / n
    return {name: {"recall": hits[name], "seen_by_any_head": seen[name]} for name in columns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--ratios", default="4,16,50")
    parser.add_argument("--n", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    ratios: list[float | None] = [*map(float, args.ratios.split(",")), None]
    with edgellm.load(args.model) as model:
        n_prompt = model.info().n_ctx - N_NEXT
        text = args.text.read_text(encoding="utf-8")[: 40 * args.n * n_prompt]
        ids = model.tokenize(text)
        kl = kl_of(model, ids, n_prompt, ratios, args.n)
        recall = recall_of(model, ids, n_prompt, ratios, args.n)
    result = {"n_prompt": n_prompt, "kl": kl, "recall": recall}
    if args.json:
        print(json.dumps(result))
        return
    print(f"prompts of {n_prompt} tokens, {args.n} of them")
    for name, figures in recall.items():
        shown = "window" if name == "None" else name
        print(f"{shown:>7}  KL {kl.get(name, 0.0):8.4f}  {figures}")


if __name__ == "__main__":
    main()
