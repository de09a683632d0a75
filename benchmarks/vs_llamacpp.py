"""Races edgellm against llama.cpp: the two take turns in one run, so that a slow spell of the
machine hits both, and the ratio is taken pair by pair.

    python benchmarks/vs_llamacpp.py --edge model.edge --gguf a.gguf --gguf b.gguf \
        --llama-bench path/to/llama-bench [--rounds 5] [--threads 2] [--json]

Without --llama-bench the package llama-cpp-python (extra `bench`) decodes in a process of its own.
Every program is timed by itself: decode is new tokens per second from an empty context, prefill is
prompt tokens per second. Nothing of llama.cpp is part of this repository.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

EDGE_CODE = """
import json, sys
from edgellm import _native
path, threads, prefill, decode = sys.argv[1], *map(int, sys.argv[2:])
model = _native.Model.load(path, n_threads=threads, verify="never")
session = _native.Session(model, max(prefill, decode + 1))
ids = [(7919 * t + 13) % model.n_vocab for t in range(max(prefill, decode + 1))]
def run(tokens):
    session.append(tokens)
    while not session.run(1e9): pass
def timed(work):
    from time import perf_counter
    start = perf_counter(); work(); return perf_counter() - start
run(ids[:8])
session.rewind(0)
prefill_s = timed(lambda: run(ids[:prefill])) if prefill else 0
session.rewind(0)
run(ids[:1])
decode_s = timed(lambda: [run([i]) for i in ids[1:decode + 1]])
print(json.dumps({"prefill": prefill / prefill_s if prefill else 0, "decode": decode / decode_s}))
"""

LLAMA_PYTHON_CODE = """
import json, sys
from time import perf_counter
from llama_cpp import Llama
path, threads, prefill, decode = sys.argv[1], *map(int, sys.argv[2:])
llm = Llama(path, n_ctx=max(prefill, decode) + 8, n_threads=threads, n_threads_batch=threads,
            verbose=False)
ids = [(7919 * t + 13) % llm.n_vocab() for t in range(max(prefill, decode + 1))]
def timed(work):
    start = perf_counter(); work(); return perf_counter() - start
llm.eval(ids[:8]); llm.reset()
prefill_s = timed(lambda: llm.eval(ids[:prefill])) if prefill else 0
llm.reset(); llm.eval(ids[:1])
decode_s = timed(lambda: [llm.eval([i]) for i in ids[1:decode + 1]])
print(json.dumps({"prefill": prefill / prefill_s if prefill else 0, "decode": decode / decode_s}))
"""


@dataclass
class Runner:
    """One program on one file. run() returns tokens per second by kind."""

    name: str
    command: list[str]
    speeds: dict[str, list[float]] = field(default_factory=lambda: {"prefill": [], "decode": []})

    def run(self) -> None:
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"error: {self.name} failed:\n{done.stderr[-2000:]}")
        for kind, speed in self.parse(done.stdout).items():
            self.speeds[kind].append(speed)

    def parse(self, stdout: str) -> dict[str, float]:
        speeds: dict[str, float] = json.loads(stdout)
        return speeds

    def median(self, kind: str) -> float:
        return statistics.median(self.speeds[kind])


class LlamaBench(Runner):
    """llama-bench prints one object per test: prompt processing or text generation."""

    def parse(self, stdout: str) -> dict[str, float]:
        speeds = {"prefill": 0.0, "decode": 0.0}
        for test in json.loads(stdout):
            speeds["prefill" if test["n_gen"] == 0 else "decode"] = test["avg_ts"]
        return speeds


def edge_runner(path: Path, args: argparse.Namespace) -> Runner:
    numbers = [str(args.threads), str(args.prefill), str(args.decode)]
    return Runner(path.name, [sys.executable, "-c", EDGE_CODE, str(path), *numbers])


def llama_runner(path: Path, args: argparse.Namespace) -> Runner:
    if args.llama_bench is None:
        numbers = [str(args.threads), str(args.prefill), str(args.decode)]
        command = [sys.executable, "-c", LLAMA_PYTHON_CODE, str(path), *numbers]
        return Runner(path.name, command)
    command = [str(args.llama_bench), "-m", str(path), "-t", str(args.threads), "-r", "1"]
    command += ["-p", str(args.prefill), "-n", str(args.decode), "-o", "json"]
    return LlamaBench(path.name, command)


def paired_ratio(ours: Runner, theirs: Runner, kind: str) -> float:
    pairs = zip(ours.speeds[kind], theirs.speeds[kind], strict=True)
    return statistics.median(a / b for a, b in pairs)


def report(
    edges: list[Runner], llamas: list[Runner], args: argparse.Namespace
) -> dict[str, object]:
    kinds = ["decode"] + (["prefill"] if args.prefill else [])
    result: dict[str, object] = {
        "machine": cpu_name(),
        "threads": args.threads,
        "rounds": args.rounds,
        "prefill_tokens": args.prefill,
        "decode_tokens": args.decode,
        "file_bytes": {p.name: p.stat().st_size for p in [*args.edge, *args.gguf]},
    }
    for kind in kinds:
        best = max(llamas, key=lambda runner: runner.median(kind))
        result[kind] = {
            "tokens_per_s": {r.name: r.speeds[kind] for r in [*edges, *llamas]},
            "medians": {r.name: r.median(kind) for r in [*edges, *llamas]},
            "best_peer": best.name,
            "ratio_to_best_peer": {r.name: paired_ratio(r, best, kind) for r in edges},
        }
    return result


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} logical CPUs"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edge", type=Path, action="append", required=True)
    parser.add_argument("--gguf", type=Path, action="append", required=True)
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=0)
    parser.add_argument("--decode", type=int, default=64)
    args = parser.parse_args()
    edges = [edge_runner(path, args) for path in args.edge]
    llamas = [llama_runner(path, args) for path in args.gguf]
    for n in range(args.rounds):
        print(f"round {n + 1} of {args.rounds}", file=sys.stderr)
        for runner in [*edges, *llamas]:
            runner.run()
    print(json.dumps(report(edges, llamas, args), indent=1))


if __name__ == "__main__":
    main()
