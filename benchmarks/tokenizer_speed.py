"""Races edgellm's tokenizer against Hugging Face's `tokenizers`, both on one thread.

    python benchmarks/tokenizer_speed.py DIR [DIR ...] --text english=FILE --text code=FILE \
        [--rounds 7] [--write docs/TOKENIZER.md]

Each DIR holds the tokenizer files of one checkpoint. Ours is timed through `edgellm.load()` and
`Model.tokenize()`, on a file with that tokenizer and a random model of one layer; theirs through
`encode(text).ids` and through `encode_batch_fast([text])[0].ids`, which leaves offsets out. The
three take turns in each round. Every round brings text that none of them has seen, since theirs
remembers the words, or without a pre-tokenizer the whole texts, of earlier calls: once as lines,
one call for each, and other text as one document. Times are CPU times of this process, so that a
busy machine disturbs them little. The ids must be equal.

Loading is the CPU time of `edgellm.load()` of that file less that of the same file without the
tokenizer. --write replaces what stands between `<!-- speed -->` and `<!-- /speed -->` of a file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

from edgellm.converters.spec import LayerSpec, ModelSpec
from edgellm.converters.tokenizer import build_blob
from edgellm.converters.tokenizer.source import describe
from random_edge import write as write_random
from tokenizers import Tokenizer

import edgellm

SLICE_CHARS = 50_000
# Letters of Cyrillic, Greek, Han, kana, Hangul, Devanagari, Hebrew, Arabic, Thai, accents; emoji.
SCRIPTS = (
    (0x430, 0x44F),
    (0x3B1, 0x3C9),
    (0x4E00, 0x9FA5),
    (0x3041, 0x3096),
    (0xAC00, 0xD7A3),
    (0x905, 0x939),
    (0x5D0, 0x5EA),
    (0x627, 0x64A),
    (0xE01, 0xE2E),
    (0xE0, 0xFF),
    (0x61, 0x7A),
    (0x1F600, 0x1F64F),
)
Encode = Callable[[str], list[int]]


def mixed_text(n_chars: int) -> str:
    """Words of random letters of one script each, in lines of eight."""
    rng = random.Random(1)
    words: list[str] = []
    n_made = 0
    while n_made < n_chars:
        low, high = rng.choice(SCRIPTS)
        word = "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 8)))
        words.append(word + ("\n" if len(words) % 8 == 7 else " "))
        n_made += len(words[-1])
    return "".join(words)


@dataclass
class Cell:
    """One tokenizer on one kind of text: seconds per round of every program."""

    n_bytes: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, peer: str) -> float:
        pairs = zip(self.seconds[peer], self.seconds["edgellm"], strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    def speed(self, name: str) -> float:
        """Megabytes per second."""
        return self.n_bytes / statistics.median(self.seconds[name]) / 1e6


def model_spec(n_vocab: int) -> ModelSpec:
    layer = LayerSpec(n_heads=2, n_kv_heads=1, head_dim=16, d_ffn=32)
    return ModelSpec(
        arch="llama",
        n_vocab=n_vocab,
        d_model=32,
        n_ctx_train=128,
        norm_eps=1e-5,
        tied_head=True,
        n_rope=16,
        rope_factor=1.0,
        bos_id=0,
        eos_ids=(),
        layers=(layer,),
    )


def load_ms(path: Path) -> float:
    times = []
    for _ in range(15):
        begin = process_time()
        with edgellm.load(path, threads=1, verify="never"):
            times.append((process_time() - begin) * 1e3)
    return statistics.median(times)


def slices(text: str, rounds: int) -> list[str]:
    """One for the lines and one for the document of each round."""
    needed = 2 * rounds * SLICE_CHARS
    if len(text) < needed:
        raise SystemExit(f"error: a text has {len(text)} characters; {rounds} rounds need {needed}")
    return [text[i : i + SLICE_CHARS] for i in range(0, needed, SLICE_CHARS)]


def race(programs: dict[str, Encode], batches: list[list[str]]) -> Cell:
    cell = Cell(sum(len(t.encode()) for batch in batches for t in batch) // len(batches))
    for n_round, batch in enumerate(batches):
        names = list(programs)
        turn = n_round % len(names)
        ids: dict[str, list[list[int]]] = {}
        for name in names[turn:] + names[:turn]:
            encode = programs[name]
            begin = process_time()
            ids[name] = [encode(text) for text in batch]
            cell.seconds.setdefault(name, []).append(process_time() - begin)
        if any(found != ids["edgellm"] for found in ids.values()):
            raise SystemExit("error: the ids differ")
    return cell


def measure(directory: Path, texts: dict[str, str], rounds: int) -> list[str]:
    """Rows of the table of one tokenizer."""
    source = describe(directory)
    oracle = Tokenizer.from_str(json.dumps(source.data))
    blob = build_blob(source.path, source.data, oracle)
    oracle.encode_special_tokens = True
    spec = model_spec(oracle.get_vocab_size(with_added_tokens=True))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        bare, path = Path(scratch) / "bare.edge", Path(scratch) / "model.edge"
        write_random(spec, bare)
        write_random(spec, path, {"tokenizer": blob})
        cost_ms = load_ms(path) - load_ms(bare)
        with edgellm.load(path) as model:
            programs: dict[str, Encode] = {
                "edgellm": lambda text: model.tokenize(text, bos=False),
                "encode": lambda text: oracle.encode(text, add_special_tokens=False).ids,
                "fast": lambda text: (
                    oracle.encode_batch_fast([text], add_special_tokens=False)[0].ids
                ),
            }
            for kind, text in texts.items():
                parts = slices(text, rounds)
                lines = [[line for line in part.split("\n") if line] for part in parts[::2]]
                documents = [[part] for part in parts[1::2]]
                for form, batches in (("lines", lines), ("document", documents)):
                    cell = race(programs, batches)
                    rows.append(
                        f"| {directory.name} | {kind}, {form} | {cell.speed('edgellm'):.1f} "
                        f"| {cell.speed('encode'):.2f} | {cell.ratio('encode'):.1f}x "
                        f"| {cell.speed('fast'):.2f} | {cell.ratio('fast'):.1f}x |"
                    )
                    print(rows[-1], file=sys.stderr, flush=True)
    print(f"{directory.name}: {spec.n_vocab} tokens, loads in {cost_ms:.2f} ms", file=sys.stderr)
    return [f"{rows[0]} {spec.n_vocab} | {cost_ms:.2f} |", *(f"{row} | |" for row in rows[1:])]


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown CPU"


def commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def replace_section(path: Path, table: str) -> None:
    begin, end = "<!-- speed -->", "<!-- /speed -->"
    text = path.read_text(encoding="utf-8")
    head, found, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found or not found_end:
        raise SystemExit(f"error: {path}: no {begin} ... {end}")
    path.write_text(f"{head}{begin}\n{table}\n{end}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--text", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    texts = {}
    for item in args.text:
        name, _, file = item.partition("=")
        texts[name] = Path(file).read_text(encoding="utf-8")
    texts["mixed"] = mixed_text(2 * args.rounds * SLICE_CHARS)
    columns = "tokenizer, text, MB/s, encode, ratio, encode_batch_fast, ratio, tokens, load ms"
    head = columns.split(", ")
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for directory in args.directories:
        table += measure(directory, texts, args.rounds)
    note = (
        f"{cpu_name()}, one thread; CPU time, medians of {args.rounds} rounds in turn, ratios "
        f"round by round; edgellm at commit {commit()}."
    )
    print("\n".join([*table, "", note]))
    if args.write:
        replace_section(args.write, "\n".join([*table, "", note]))


if __name__ == "__main__":
    main()
