"""Whether speculation is ever slower: paired blocks with and without it, by kind of text and
temperature.

    python benchmarks/never_slower.py MODEL.edge [--replay] [--blocks 20] [--tokens 64]
        [--kinds code,json] [--temperatures 0,0.7,1] [--rows FILE.jsonl]

A block is one prompt and so many tokens after it, made twice, with a model loaded with
speculate=True and one without, which of the two first in turn; a cell is a kind and a temperature.
The model writes itself and both must write the same; with --replay what it chooses is put aside
and a real text continued instead, for weights that were never trained write nothing worth
measuring. The clock runs from the prompt, or, with --replay, from the first token after it, to the
end of the sequence. Prints for each cell the median of the ratios and what 95 % of its bootstrap
exceeds, and ends with 1 if a cell is below the bars. --control compares plain decoding with itself:
what the machine adds of its own. --cpu counts the processor's time of one
thread, for machines that others use; the bars are meant for a quiet one and its clock. --rows
keeps the ratios, and blocks that stand in it are not measured again. See docs/SPECULATION.md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time

from draft_acceptance import code, corpus, editing, prose, rag, structured
from tokenizers import Tokenizer

import edgellm
from edgellm import _native
from edgellm.options import SPECULATE_NAMES

ROOT = Path(__file__).parent.parent
LEAST_MEDIAN, LEAST_BOUND = 0.99, 0.97
N_RESAMPLED = 1000
TOP_P = 0.95
PROMPT_TOKENS = {False: 48, True: 400}  # of the model's own texts and of replayed ones, at most

TURN_TOKENS = 8  # of a replayed text, with and without in turn

Pairs = Iterator[tuple[str, str]]
Clock = Callable[[], float]


def dialogue(shared: Path) -> Pairs:
    """Talks: the second half, given the first."""
    for text in corpus(shared, "dialogue", 1200):
        yield text[: len(text) // 2], text[len(text) // 2 :]


def translation(shared: Path) -> Pairs:
    """Lists of sentences and what they mean in another language."""
    with (shared / "data/eval/spec_bench_first_half.jsonl").open(encoding="utf-8") as lines:
        questions = [json.loads(line) for line in lines]
    items = [
        f"- {question['turns'][0].partition(': ')[2]}\n  {question['reference'][0]}\n"
        for question in questions
        if question["category"] == "translation"
    ]
    for at in range(len(items)):
        turned = items[at:] + items[:at]
        yield "Translate:\n" + "".join(turned[:5]), "".join(turned[5:15])


def noise(_shared: Path) -> Pairs:
    """What nothing can guess."""
    draw = random.Random(1)
    signs = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/ "
    while True:
        text = "".join(draw.choices(signs, k=2500))
        yield text[:1000], text[1000:]


KINDS: dict[str, Callable[[Path], Pairs]] = {
    "code": code,
    "json": structured,
    "prose": prose,
    "dialogue": dialogue,
    "rag": rag,
    "editing": editing,
    "translation": translation,
    "noise": noise,
}


@dataclass(frozen=True)
class Task:
    """One block, token ids."""

    prompt: list[int]
    continuation: list[int]
    temperature: float
    seed: int


# (task, which way first) -> by way what was chosen and the seconds it took
Both = Callable[[Task, bool], dict[bool, tuple[list[int], float]]]


def encoder(path: Path, shared: Path) -> Callable[[str], list[int]]:
    """The model's tokenizer, or where the file has none that of SmolLM."""
    tokenizer = _native.Model.load(path, n_threads=1).tokenizer
    if tokenizer is not None:
        return lambda text: tokenizer.encode(text, bos=False)
    other = Tokenizer.from_file(str(shared / "data/tokenizers/smollm/tokenizer.json"))
    return lambda text: list(other.encode(text).ids)


def tasks(
    kind: str, encode: Callable[[str], list[int]], args: argparse.Namespace
) -> Iterator[Task]:
    """Blocks of a kind, without end; texts come again once all have been used."""
    n_prompt = PROMPT_TOKENS[args.replay]
    pairs = list(islice(KINDS[kind](args.shared), args.blocks * len(args.temperatures)))
    seed = 0
    while True:
        for before, after in pairs:
            prompt = encode(before)[-n_prompt:]
            continuation = encode(after)[: args.tokens]
            if len(continuation) == args.tokens:
                yield Task(prompt, continuation, 0.0, seed)
                seed += 1
        if seed == 0:
            raise SystemExit(f"{kind}: no text has {args.tokens} tokens after its prompt")


def written(model: edgellm.Model, task: Task, clock: Clock) -> tuple[list[int], float]:
    """What the model writes after the prompt, and the seconds that took."""
    start = clock()
    made = model.generate(
        task.prompt,
        max_tokens=len(task.continuation),
        temperature=task.temperature,
        top_p=TOP_P,
        seed=task.seed,
        stop_ids=(),
    )
    return list(made.token_ids), clock() - start


class Replayed:
    """A text forced on a model token by token, and the seconds since the prompt."""

    def __init__(self, model: _native.Model, task: Task, clock: Clock) -> None:
        self._params = _native.SamplerParams(
            temperature=task.temperature, top_p=TOP_P, seed=task.seed
        )
        self._session = _native.Session(model, len(task.prompt) + len(task.continuation))
        self._session.append(task.prompt)
        self._clock = clock
        self.chosen: list[int] = []  # what the model would have gone on with instead
        self.seconds = 0.0
        self._run()

    def take(self, tokens: list[int]) -> None:
        start = self._clock()
        for token in tokens:
            self.chosen.append(self._session.sample(self._params)[0])
            self._session.append([token])
            self._run()
        self.seconds += self._clock() - start

    def close(self) -> None:
        start = self._clock()
        self._session.close()
        self.seconds += self._clock() - start

    def _run(self) -> None:
        while not self._session.run(1e9):
            pass


def written_both(models: Mapping[bool, edgellm.Model], clock: Clock) -> Both:
    """As `Both`: one after the other, for a text that is made has no parts known before."""

    def both(task: Task, is_first: bool) -> dict[bool, tuple[list[int], float]]:
        return {way: written(models[way], task, clock) for way in (is_first, not is_first)}

    return both


def replayed_both(models: Mapping[bool, _native.Model], clock: Clock) -> Both:
    """As `Both`, a few tokens each in turn, so that both meet the same seconds of the machine."""

    def both(task: Task, is_first: bool) -> dict[bool, tuple[list[int], float]]:
        ways = (is_first, not is_first)
        texts = {way: Replayed(models[way], task, clock) for way in ways}
        for at in range(0, len(task.continuation), TURN_TOKENS):
            for way in ways:
                texts[way].take(task.continuation[at : at + TURN_TOKENS])
        for way in ways:
            texts[way].close()
        return {way: (text.chosen, text.seconds) for way, text in texts.items()}

    return both


def ratio(both: Both, task: Task, is_first: bool) -> float:
    """Speed with speculation over that without, of one block."""
    made = both(task, is_first)
    if made[True][0] != made[False][0]:
        raise SystemExit("speculation changed the text")
    return made[False][1] / made[True][1]


def lower_bound(ratios: list[float]) -> float:
    """Of the median: what 95 % of its bootstrap exceeds."""
    draw = random.Random(0)
    medians = sorted(
        statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(N_RESAMPLED)
    )
    return medians[N_RESAMPLED // 20]


def known_rows(path: Path | None) -> dict[tuple[str, float], list[float]]:
    """Ratios measured before, by cell."""
    known: dict[tuple[str, float], list[float]] = {}
    if path is not None and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            known.setdefault((row["kind"], row["temperature"]), []).append(row["ratio"])
    return known


def measure(both: Both, args: argparse.Namespace) -> bool:
    """All cells, block by block in turn; True if all are above the bars."""
    ratios = known_rows(args.rows)
    encode = encoder(args.model, args.shared)
    blocks = {kind: tasks(kind, encode, args) for kind in args.kinds}
    end = perf_counter() + args.seconds
    for at in range(args.blocks):
        for kind in args.kinds:
            for temperature in args.temperatures:
                task = next(blocks[kind])
                cell = ratios.setdefault((kind, temperature), [])
                if len(cell) > at or perf_counter() > end:
                    continue
                task = Task(task.prompt, task.continuation, temperature, task.seed)
                cell.append(ratio(both, task, at % 2 == 0))
                if args.rows is not None:
                    row = {"kind": kind, "temperature": temperature, "ratio": cell[-1]}
                    with args.rows.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(row) + "\n")
    is_good = True
    for (kind, temperature), cell in sorted(ratios.items()):
        if len(cell) < 2:
            continue
        median, bound = statistics.median(cell), lower_bound(cell)
        is_good &= median >= LEAST_MEDIAN and bound >= LEAST_BOUND
        print(f"{kind:12} T={temperature:<4g} {len(cell):3} blocks: {median:.3f} ({bound:.3f})")
    return is_good


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--blocks", type=int, default=20, help="of each cell")
    parser.add_argument("--tokens", type=int, default=64, help="of each block")
    parser.add_argument("--kinds", type=lambda names: names.split(","), default=list(KINDS))
    parser.add_argument(
        "--temperatures",
        type=lambda numbers: [float(number) for number in numbers.split(",")],
        default=[0.0, 0.7, 1.0],
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cpu", action="store_true", help="processor time, of one thread")
    parser.add_argument("--control", action="store_true", help="without drafts, both of them")
    parser.add_argument("--seconds", type=float, default=1e9, help="no block begins after that")
    parser.add_argument("--rows", type=Path, help="where the ratios are kept")
    args = parser.parse_args()
    clock = process_time if args.cpu else perf_counter
    if args.cpu:
        args.threads = 1
    ways = {True: not args.control, False: False}
    if args.replay:
        natives = {
            key: _native.Model.load(
                args.model, n_threads=args.threads or 0, speculate=SPECULATE_NAMES[way]
            )
            for key, way in ways.items()
        }
        is_good = measure(replayed_both(natives, clock), args)
    else:
        models = {
            key: edgellm.load(args.model, threads=args.threads, speculate=way)
            for key, way in ways.items()
        }
        is_good = measure(written_both(models, clock), args)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
