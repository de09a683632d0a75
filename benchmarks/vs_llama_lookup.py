"""Races edgellm's guessing ahead against llama.cpp's n-gram speculation, on the same texts.

    python benchmarks/vs_llama_lookup.py --edge model.edge --gguf model.gguf \
        --llama-source path/to/llama.cpp --llama-bin path/to/its/build/bin \
        [--texts 3] [--tokens 128] [--threads 2] [--write docs/SPECULATION.md --section NAME]

Both engines compute every step of a text that they are taken to write (docs/SPECULATION.md): the
tokens are forced, the drafts are each engine's own, and what is wrong is taken back. So weights
that were never trained do. Texts are those of draft_acceptance.py. In one run, text by text, the
engines take turns, and within an engine plain steps and steps with drafts, 32 tokens each; each
engine's speed is against its own plain steps. Of llama.cpp all n-gram modes of its server run,
`ngram-cache` being that of llama-lookup; the table has that one and the best of them for each kind,
chosen afterwards. Nothing of llama.cpp is part of this repository: benchmarks/llama_ngrams.cc is
compiled here against its headers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import draft_acceptance
from vs_llamacpp import commit, cpu_name, replace_section

from edgellm.cli.bench_speculate import Replay, replay
from edgellm.cli.bench_texts import BenchText
from edgellm.opening import Opened
from edgellm.options import LoadOptions

HERE = Path(__file__).parent
MODES = ("plain", "ngram-cache", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod")
MOST_PROMPT_TOKENS = 1024  # reading longer ones takes most of the run
Sums = dict[str, dict[str, float]]  # by mode: tokens, steps, rows, ms


class LlamaNgrams:
    """The process that drives llama.cpp."""

    def __init__(self, args: argparse.Namespace, directory: Path) -> None:
        tool = directory / "llama_ngrams"
        source, binaries = args.llama_source, args.llama_bin
        includes = [
            f"-I{source / name}" for name in ("common", "include", "ggml/include", "vendor")
        ]
        libraries = [f"-l{name}" for name in ("llama-common", "llama", "ggml", "ggml-base")]
        subprocess.run(
            [
                "c++",
                "-std=c++17",
                "-O2",
                *includes,
                str(HERE / "llama_ngrams.cc"),
                "-o",
                str(tool),
                f"-L{binaries}",
                *libraries,
                f"-Wl,-rpath,{binaries}",
            ],
            check=True,
        )
        self._process = subprocess.Popen(
            [tool, args.gguf, str(args.threads), *MODES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def race(self, text: BenchText) -> Sums:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        ids = [len(text.prompt), *text.prompt, *text.continuation]
        self._process.stdin.write(" ".join(map(str, ids)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"llama_ngrams ended with {self._process.wait()}")
        found: Sums = json.loads(line)
        return found

    def close(self) -> None:
        self._process.communicate()


def texts_of(kind: str, args: argparse.Namespace) -> list[BenchText]:
    """The first ones whose prompts are not too long."""
    replays = draft_acceptance.replays(kind, args.shared, 40, args.tokens, None)
    short = [text for text in replays if len(text.prompt) <= MOST_PROMPT_TOKENS]
    if len(short) < args.texts:
        raise SystemExit(f"{kind}: {len(short)} texts with a prompt of {MOST_PROMPT_TOKENS} tokens")
    return [BenchText(kind, text.prompt, text.continuation) for text in short[: args.texts]]


def edge_replay(args: argparse.Namespace, text: BenchText, n_tokens: int) -> Replay:
    """With nothing from texts before, as the other engine."""
    options = LoadOptions(threads=args.threads, verify="never", speculate=True)
    opened = Opened(args.edge, options)
    try:
        return replay(opened.native, text, n_tokens)
    finally:
        opened.close()


def add(sums: Sums, more: Sums) -> None:
    for mode, row in more.items():
        into = sums.setdefault(mode, dict.fromkeys(row, 0.0))
        for key, value in row.items():
            into[key] += value


def figures(ours: Replay, theirs: Sums) -> dict[str, Any]:
    def tokens_per_s(mode: str) -> float:
        return 1e3 * theirs[mode]["tokens"] / theirs[mode]["ms"]

    speeds = {mode: tokens_per_s(mode) / tokens_per_s("plain") for mode in MODES[1:]}
    best = max(speeds, key=lambda mode: speeds[mode])
    own = ours.figures()
    return {
        "edgellm": {**own, "plain_tokens_per_s": ours.tokens / ours.plain_s},
        "llama_cpp": {
            "plain_tokens_per_s": tokens_per_s("plain"),
            "speeds": speeds,
            "tokens_per_step": {
                mode: theirs[mode]["tokens"] / theirs[mode]["steps"] for mode in MODES
            },
            "best": best,
        },
        "ratio": own["speed"] / speeds[best],
    }


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "| continuation | edgellm / its plain steps | llama-lookup (`ngram-cache`) / its own "
        "| best n-gram mode of llama.cpp / its own | edgellm / best |",
        "|---|---|---|---|---|",
    ]
    for kind, row in result["kinds"].items():
        llama = row["llama_cpp"]
        best = llama["best"]
        lines.append(
            f"| {kind} | {row['edgellm']['speed']:.2f} | {llama['speeds']['ngram-cache']:.2f} "
            f"| {llama['speeds'][best]:.2f} (`{best}`) | {row['ratio']:.2f}x |"
        )
    plain = [
        (row["edgellm"]["plain_tokens_per_s"], row["llama_cpp"]["plain_tokens_per_s"])
        for row in result["kinds"].values()
    ]
    ours, theirs = (sum(pair[i] for pair in plain) / len(plain) for i in range(2))
    lines += [
        "",
        f"{result['cpu']}; {result['threads']} threads; {result['edge']} and {result['gguf']}, "
        f"plain {ours:.1f} and {theirs:.1f} tokens/s; {result['texts']} texts a kind, continued "
        f"for up to {result['tokens']} tokens; edgellm at commit {result['commit']}.",
    ]
    return "\n".join(lines) + "\n"


def race(args: argparse.Namespace, kinds: Sequence[str]) -> dict[str, Any]:
    sets = {kind: texts_of(kind, args) for kind in kinds}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        llama = LlamaNgrams(args, Path(directory))
        try:
            for kind, texts in sets.items():
                ours, theirs = Replay(kind), Sums()
                for text in texts:
                    print(f"{kind}: {len(text.prompt)} tokens of prompt", file=sys.stderr)
                    ours.add(edge_replay(args, text, args.tokens))
                    add(theirs, llama.race(text))
                found[kind] = figures(ours, theirs)
                print(json.dumps({kind: found[kind]}), file=sys.stderr)
        finally:
            llama.close()
    return {
        "cpu": cpu_name(),
        "threads": args.threads,
        "edge": args.edge.name,
        "gguf": args.gguf.name,
        "texts": args.texts,
        "tokens": args.tokens,
        "commit": commit(),
        "kinds": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--edge", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--llama-source", type=Path, required=True)
    parser.add_argument("--llama-bin", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    parser.add_argument("--texts", type=int, default=3, help="of each kind")
    parser.add_argument("--tokens", type=int, default=128, help="of each continuation, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, help="a document to put the table into")
    parser.add_argument("--section", default="ngrams")
    args = parser.parse_args()
    result = race(args, list(draft_acceptance.BARS))
    print(json.dumps(result, indent=2))
    if args.write is not None:
        text = args.write.read_text("utf-8")
        args.write.write_text(replace_section(text, args.section, markdown(result)), "utf-8")


if __name__ == "__main__":
    main()
