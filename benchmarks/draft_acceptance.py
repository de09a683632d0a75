"""What the drafters that need no model are worth, by kind of text.

    python benchmarks/draft_acceptance.py [--shared ../shared] [--texts 16] [--logits MODEL.edge]

Real texts are replayed as if a model had written them: each has a prompt and a continuation, the
drafters of native/src/speculation propose, what the continuation confirms is accepted, and a step
of K rows takes t(K) of the table below, measured on the 1B shape (weights of E4_16). The
controller is the real one and knows no more than in use: it times its steps and starts from
nothing. `fresh`: every text alone, with nothing from earlier ones; `session`: texts of the same
kind before it were chats of the same process. Without --logits none are recycled; with it texts
have the tokens of that model, and the likeliest followers are those it gives on the real text.
Prints one JSON object, by kind: tokens, tokens a step, speed against one token a step, and of
what was drafted how much was accepted, by drafter. See docs/SPECULATION.md.

--head MODEL.edge: what its draft head adds, and recycling, on the prose of held-out books: read to
a text's cut, the model goes on itself, greedily and by chance (`own`), and as the book does
(`book`). What proposing takes is timed: run it on a machine with nothing beside it.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgellm import _native
from edgellm.cli.bench_texts import renamed

ROOT = Path(__file__).parent.parent
# Relative to a step of one row; in between and beyond, linear.
STEP_COSTS = {1: 1.0, 2: 1.02, 4: 1.13, 8: 1.50}
DRAFTERS = ("suffix", "store", "recycling", "head", "exit", "external")
BARS = {"editing": 2.8, "code": 1.6, "structured": 1.6, "rag": 1.5, "prose": 1.05, "random": 0.99}
MAX_PROMPT_CHARACTERS = 8000
N_VOCAB = 49152  # of the tokenizer of SmolLM
N_TOP = 8  # likeliest tokens that are recycled
PASS_SHARE = 0.0798  # of a plain step of the 1B shape: a pass of its draft head (draft_head.py)
PROSE_PROMPT, PROSE_TOKENS = 96, 192  # of a text that a model with a head goes on with


@dataclass(frozen=True)
class Replay:
    """A prompt and what was written after it, as token ids."""

    prompt: list[int]
    continuation: list[int]
    tops: tuple[tuple[int, ...], ...] = ()  # likeliest followers of each token that a step reads
    temperature: float = 0.0  # that it was drawn at with the seed; 0: it was not drawn
    seed: int = 0


def step_cost(n_rows: int) -> float:
    known = sorted(STEP_COSTS)
    low = max((k for k in known[:-1] if k <= n_rows), default=known[0])
    high = known[known.index(low) + 1]
    slope = (STEP_COSTS[high] - STEP_COSTS[low]) / (high - low)
    return STEP_COSTS[low] + slope * (n_rows - low)


def corpus(shared: Path, kind: str, least: int) -> Iterator[str]:
    """Held-out documents of one kind, of so many characters at least."""
    with lzma.open(shared / "data/corpus/valid.jsonl.xz", "rt", encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            if document["kind"] == kind and len(document["text"]) >= least:
                yield document["text"]


def editing(shared: Path) -> Iterator[tuple[str, str]]:
    """A source file, and the whole of it again with a name changed and comments added."""
    for text in corpus(shared, "code", 1500):
        source = text[:6000]
        yield (
            f"Rename the main variable and add comments:\n{source}\n\nHere it is:\n",
            renamed(source),
        )


def code(shared: Path) -> Iterator[tuple[str, str]]:
    """Source files: the last part, given the first."""
    for text in corpus(shared, "code", 3000):
        cut = min(len(text) // 2, MAX_PROMPT_CHARACTERS)
        yield text[:cut], text[cut:]


def structured(shared: Path) -> Iterator[tuple[str, str]]:
    """JSON: the last two thirds of a schema, given the first."""
    for path in sorted((shared / "data/json_schemas").rglob("*.json")):
        text = json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=2)
        if len(text) >= 3000:
            cut = min(len(text) // 3, MAX_PROMPT_CHARACTERS)
            yield text[:cut], text[cut:]


def closest(sentences: list[str], to: str) -> str:
    words = set(re.findall(r"\w{3,}", to.lower()))
    return max(sentences, key=lambda s: len(words & set(re.findall(r"\w{3,}", s.lower()))))


def rag(shared: Path) -> Iterator[tuple[str, str]]:
    """Summaries that people wrote of an article in the prompt, with the sentences they rest on."""
    with (shared / "data/eval/spec_bench_first_half.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            question = json.loads(line)
            if question["category"] != "summarization":
                continue
            article = question["turns"][0][:MAX_PROMPT_CHARACTERS]
            sentences = [s for s in re.split(r"(?<=[.!?]) ", article) if len(s) > 20]
            points = [s for s in re.split(r"(?<=[.!?]) ", question["reference"][0]) if len(s) > 10]
            answer = "\n".join(f'- {point} ("{closest(sentences, point)}")' for point in points)
            yield f"{article}\n\nQuote the article for each point.\n", answer


def prose(shared: Path) -> Iterator[tuple[str, str]]:
    """Books: what follows some pages."""
    for text in corpus(shared, "books", 8000):
        yield text[:4000], text[4000:8000]


class Logits:
    """A model that reads the texts: its tokens and the likeliest of its logits."""

    def __init__(self, path: Path) -> None:
        self.model = _native.Model.load(path, n_threads=1)

    def encode(self, text: str) -> list[int]:
        if self.model.tokenizer is None:
            raise SystemExit("--logits: the model holds no tokenizer")
        return self.model.tokenizer.encode(text, bos=False)

    def read(self, replay: Replay) -> Replay:
        """With followers, each by at least half a context of what stands before."""
        ids = replay.prompt + replay.continuation
        half = self.model.n_ctx_train // 2
        first = len(replay.prompt) - 1
        tops: list[tuple[int, ...]] = []
        for at in range(first, len(ids) - 1, half):
            start = max(0, at - half)
            session = _native.Session(self.model, reuse_prefix=False)
            session.append(ids[start : min(at + half, len(ids) - 1)])
            logits = session.run_with_logits(1e9)[at - start :]
            tops += [tuple(row.argsort()[: -N_TOP - 1 : -1].tolist()) for row in logits]
            session.close()
        return replace(replay, tops=tuple(tops))


def replays(
    kind: str, shared: Path, n_texts: int, n_tokens: int, logits: Logits | None
) -> list[Replay]:
    if kind == "random":
        draw = random.Random(1)
        ids = [
            draw.randrange(N_VOCAB if logits is None else logits.model.n_vocab)
            for _ in range(n_texts * (n_tokens + 100))
        ]
        return [
            Replay(ids[at : at + 100], ids[at + 100 : at + 100 + n_tokens])
            for at in range(0, len(ids), n_tokens + 100)
        ]
    tokenizer = Tokenizer.from_file(str(shared / "data/tokenizers/smollm/tokenizer.json"))
    encode = logits.encode if logits else lambda text: list(tokenizer.encode(text).ids)
    pairs = {"editing": editing, "code": code, "structured": structured, "rag": rag, "prose": prose}
    found: list[Replay] = []
    for before, after in pairs[kind](shared):
        replay = Replay(encode(before), encode(after)[:n_tokens])
        if len(replay.continuation) >= 32:
            found.append(logits.read(replay) if logits else replay)
        if len(found) == n_texts:
            break
    return found


def run(
    tool: Path, texts: Iterable[Replay], is_session: bool, head: Path | None = None
) -> list[dict[str, Any]]:
    words = [round(1e4 * step_cost(k)) for k in range(1, 17)] + [N_VOCAB]
    for text in texts:
        ids = text.prompt + text.continuation
        words += [len(text.prompt), len(ids), int(is_session), N_TOP if text.tops else 0]
        words += [round(1e4 * text.temperature), text.seed, *ids]
        words += [token for tops in text.tops for token in tops]
    with tempfile.NamedTemporaryFile(suffix=".ids") as file:
        file.write(struct.pack(f"={len(words)}i", *words))
        file.flush()
        options = ["--head", head, "--pass-share", str(PASS_SHARE)] if head else []
        command = [tool, file.name, *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    n_tokens = sum(row["tokens"] for row in rows)
    drafted = [sum(row["drafted"][i] for row in rows) for i in range(len(DRAFTERS))]
    accepted = [sum(row["accepted"][i] for row in rows) for i in range(len(DRAFTERS))]
    return {
        "tokens": n_tokens,
        "tokens_per_step": round(n_tokens / sum(row["steps"] for row in rows), 3),
        "speed": round(n_tokens / sum(row["time"] for row in rows), 3),
        "drafters": {
            name: {"drafted": drafted[i], "accepted": accepted[i]}
            for i, name in enumerate(DRAFTERS)
            if drafted[i] > 0
        },
        "steps_by_rows": [sum(row["rows"][i] for row in rows) for i in range(16)],
        "memory_bytes": max(row["memory_bytes"] for row in rows),
    }


def gone_on_with(model: Any, prompt: list[int], temperature: float, seed: int) -> list[int]:
    """What the model writes itself, to the end of its text at most."""
    session = _native.Session(model, reuse_prefix=False)
    params = _native.SamplerParams(temperature=temperature, seed=seed)
    session.append(prompt)
    written: list[int] = []
    while len(written) < PROSE_TOKENS and (not written or written[-1] not in model.eos_ids):
        while not session.run(1e9):
            pass
        written.append(session.sample(params)[0])
        session.append(written[-1:])
    session.close()
    return written


def with_head(path: Path, shared: Path, n_texts: int, tool: Path) -> dict[str, Any]:
    """Of books that the model has not learnt from, by who goes on with them; every text alone."""
    logits = Logits(path)
    found: dict[str, list[Replay]] = {"book": []}
    for before, after in prose(shared):
        if len(found["book"]) == n_texts:
            break
        prompt = logits.encode(before)[-PROSE_PROMPT:]
        found["book"].append(logits.read(Replay(prompt, logits.encode(after)[:PROSE_TOKENS])))
        for temperature in (0.0, 0.7, 1.0):
            seed = len(found["book"])
            written = gone_on_with(logits.model, prompt, temperature, seed)
            own = Replay(prompt, written, temperature=temperature, seed=seed)
            found.setdefault(f"own, T = {temperature:g}", []).append(logits.read(own))
    return {
        name: figures([row for text in texts for row in run(tool, [text], False, path)])
        for name, texts in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--tool", type=Path, default=ROOT / "build/editable/tools/edge_draft")
    parser.add_argument("--texts", type=int, default=16, help="of each kind, at most")
    parser.add_argument("--tokens", type=int, default=400, help="that each continuation has")
    parser.add_argument("--logits", type=Path, help="a model whose logits are recycled")
    parser.add_argument("--head", type=Path, help="a model with a draft head: its prose, only that")
    args = parser.parse_args()
    if args.head:
        print(json.dumps(with_head(args.head, args.shared, args.texts, args.tool), indent=2))
        return
    logits = Logits(args.logits) if args.logits else None
    result: dict[str, Any] = {"step_costs": STEP_COSTS, "kinds": {}}
    for kind, bar in BARS.items():
        texts = replays(kind, args.shared, args.texts, args.tokens, logits)
        fresh = [row for text in texts for row in run(args.tool, [text], is_session=False)]
        session = run(args.tool, texts, is_session=True)
        result["kinds"][kind] = {
            "bar": bar,
            "texts": len(texts),
            "fresh": figures(fresh),
            "session": figures(session),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
