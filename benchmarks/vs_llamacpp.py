"""Races edgellm against llama.cpp: the two take turns in one run, so that a slow spell of the
machine hits both, and the ratio is taken pair by pair.

    python benchmarks/vs_llamacpp.py --edge model.edge --gguf a.gguf --gguf b.gguf \
        --llama-bench path/to/llama-bench [--rounds 5] [--prefill 512] [--decode 128] \
        [--depth 8192] [--kv K8V8] [--busy 1] [--write docs/BENCHMARKS.md --section NAME]

Without --llama-bench the package llama-cpp-python (extra `bench`) runs in a process of its own.
Decode is new tokens per second after --depth tokens of context (none unless asked), prefill is
prompt tokens per second; with --depth or quantized KV llama.cpp runs with flash attention. --kv
K8V8 is q8_0 there. Reads of the machine are
measured in every round, too. --busy loads the machine with so many processes that only count.
--write replaces what stands between `<!-- race: NAME -->` and `<!-- /race: NAME -->` of that file.
Nothing of llama.cpp is part of this repository.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

EDGE_CODE = """
import json, sys
from edgellm import _native
from time import perf_counter
path, kv, threads, prefill, decode, depth = *sys.argv[1:3], *map(int, sys.argv[3:])
model = _native.Model.load(path, n_threads=threads, verify="never", kv_format=kv, speculate="off")
n_ctx = max(prefill, depth + decode + 1)
session = _native.Session(model, n_ctx, reuse_prefix=False)
ids = [(7919 * t + 13) % model.n_vocab for t in range(n_ctx)]
def run(tokens):
    session.append(tokens)
    while not session.run(1e9): pass
def timed(work):
    start = perf_counter(); work(); return perf_counter() - start
run(ids[:8])
session.rewind(0)
prefill_s = timed(lambda: run(ids[:prefill])) if prefill else 0
session.rewind(0)
run(ids[:depth + 1])
decode_s = timed(lambda: [run([i]) for i in ids[depth + 1:depth + decode + 1]])
print(json.dumps({"prefill": prefill / prefill_s if prefill else 0, "decode": decode / decode_s}))
"""

LLAMA_PYTHON_CODE = """
import json, sys
from time import perf_counter
from llama_cpp import Llama
path, kv, threads, prefill, decode, depth = *sys.argv[1:3], *map(int, sys.argv[3:])
kv_type = {"f16": 1, "q8_0": 8}[kv]  # of ggml
llm = Llama(path, n_ctx=max(prefill, depth + decode) + 8, n_threads=threads,
            n_threads_batch=threads, flash_attn=depth > 0 or kv_type != 1, type_k=kv_type,
            type_v=kv_type, verbose=False)
ids = [(7919 * t + 13) % llm.n_vocab() for t in range(max(prefill, depth + decode + 1))]
def timed(work):
    start = perf_counter(); work(); return perf_counter() - start
llm.eval(ids[:8]); llm.reset()
prefill_s = timed(lambda: llm.eval(ids[:prefill])) if prefill else 0
llm.reset(); llm.eval(ids[:depth + 1])
decode_s = timed(lambda: [llm.eval([i]) for i in ids[depth + 1:depth + decode + 1]])
print(json.dumps({"prefill": prefill / prefill_s if prefill else 0, "decode": decode / decode_s}))
"""

LLAMA_KV = {"F16": "f16", "K8V8": "q8_0"}  # nearest in bytes

READ_CODE = """
import sys
from edgellm import _native
print(_native.measure_read_bandwidth(int(sys.argv[1])))
"""


def output_of(name: str, command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: {name} failed:\n{done.stderr[-2000:]}")
    return done.stdout


@dataclass
class Runner:
    """One program on one file. run() adds tokens per second by kind."""

    path: Path
    command: list[str]
    speeds: dict[str, list[float]] = field(default_factory=lambda: {"prefill": [], "decode": []})

    @property
    def name(self) -> str:
        return self.path.name

    def run(self) -> None:
        for kind, speed in self.parse(output_of(self.name, self.command)).items():
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


@dataclass
class Race:
    args: argparse.Namespace
    edges: list[Runner]
    llamas: list[Runner]
    read_bytes_per_s: list[float] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return ["decode"] + (["prefill"] if self.args.prefill else [])

    def run(self) -> None:
        for n in range(self.args.rounds):
            print(f"round {n + 1} of {self.args.rounds}", file=sys.stderr)
            read = [sys.executable, "-c", READ_CODE, str(self.args.threads)]
            with busy_processes(self.args.busy):
                self.read_bytes_per_s.append(float(output_of("the read measurement", read)))
                for runner in [*self.edges, *self.llamas]:
                    runner.run()

    def best_peer(self, kind: str) -> Runner:
        return max(self.llamas, key=lambda runner: runner.median(kind))

    def ratio(self, ours: Runner, kind: str) -> float:
        theirs = self.best_peer(kind)
        pairs = zip(ours.speeds[kind], theirs.speeds[kind], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def read_share(self, ours: Runner) -> float:
        """Bytes of the file per token against plain reads of the same round; KV is not counted."""
        size = ours.path.stat().st_size
        pairs = zip(ours.speeds["decode"], self.read_bytes_per_s, strict=True)
        return statistics.median(size * speed / read for speed, read in pairs)


def numbers(args: argparse.Namespace) -> list[str]:
    return [str(n) for n in (args.threads, args.prefill, args.decode, args.depth)]


def edge_runner(path: Path, args: argparse.Namespace) -> Runner:
    return Runner(path, [sys.executable, "-c", EDGE_CODE, str(path), args.kv, *numbers(args)])


def llama_runner(path: Path, args: argparse.Namespace) -> Runner:
    kv = LLAMA_KV[args.kv]
    if args.llama_bench is None:
        code = [sys.executable, "-c", LLAMA_PYTHON_CODE]
        return Runner(path, [*code, str(path), kv, *numbers(args)])
    command = [str(args.llama_bench), "-m", str(path), "-t", str(args.threads), "-r", "1"]
    command += ["-p", str(args.prefill), "-n", str(args.decode), "-o", "json"]
    command += ["-ctk", kv, "-ctv", kv]
    if args.depth:
        command += ["-d", str(args.depth)]
    if args.depth or args.kv != "F16":
        command += ["-fa", "1"]
    return LlamaBench(path, command)


@contextmanager
def busy_processes(n: int) -> Iterator[None]:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} logical CPUs"


def commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def report(race: Race) -> dict[str, object]:
    args = race.args
    runners = [*race.edges, *race.llamas]
    result: dict[str, object] = {
        "machine": cpu_name(),
        "commit": commit(),
        "threads": args.threads,
        "rounds": args.rounds,
        "busy_processes": args.busy,
        "prefill_tokens": args.prefill,
        "decode_tokens": args.decode,
        "depth_tokens": args.depth,
        "read_bytes_per_s": race.read_bytes_per_s,
        "read_share": {r.name: race.read_share(r) for r in race.edges},
        "file_bytes": {r.name: r.path.stat().st_size for r in runners},
    }
    for kind in race.kinds:
        result[kind] = {
            "tokens_per_s": {r.name: r.speeds[kind] for r in runners},
            "medians": {r.name: r.median(kind) for r in runners},
            "best_peer": race.best_peer(kind).name,
            "ratio_to_best_peer": {r.name: race.ratio(r, kind) for r in race.edges},
        }
    return result


def with_spread(speeds: list[float]) -> str:
    return f"{statistics.median(speeds):.1f} ({min(speeds):.1f} to {max(speeds):.1f})"


def markdown(race: Race) -> str:
    """The table of a race and what it was measured with."""
    args = race.args
    headings = [f"{kind} {getattr(args, kind)}, tokens/s" for kind in race.kinds]
    ratios = [f"{kind} / {race.best_peer(kind).name}" for kind in race.kinds]
    columns = ["file", "MB", *headings, *ratios, "share of reads"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for runner in [*race.edges, *race.llamas]:
        is_ours = runner in race.edges
        cells = [runner.name, f"{runner.path.stat().st_size / 1e6:.0f}"]
        cells += [with_spread(runner.speeds[kind]) for kind in race.kinds]
        cells += [f"{race.ratio(runner, kind):.2f}x" if is_ours else "" for kind in race.kinds]
        cells.append(f"{race.read_share(runner):.1%}" if is_ours else "")
        lines.append(f"| {' | '.join(cells)} |")
    reads = [speed / 1e9 for speed in race.read_bytes_per_s]
    where = f"after {args.depth} tokens of context, " if args.depth else ""
    busy = f"beside {args.busy} busy process{'es' * (args.busy > 1)}, " if args.busy else ""
    lines += [
        "",
        f"{cpu_name()}; {args.threads} threads; {where}{busy}{args.rounds} rounds in turn, medians "
        f"(lowest to highest), ratios pair by pair; plain reads {with_spread(reads)} GB/s; edgellm "
        f"at commit {commit()}.",
    ]
    return "\n".join(lines) + "\n"


def replace_section(text: str, name: str, body: str) -> str:
    """`text` with `body` between the two comments that mark the section."""
    begin, end = f"<!-- race: {name} -->\n", f"<!-- /race: {name} -->"
    head, found_begin, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise SystemExit(f"error: no section '{name}': put {begin.strip()} and {end} there first")
    return f"{head}{begin}{body}{end}{tail}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edge", type=Path, action="append", required=True)
    parser.add_argument("--gguf", type=Path, action="append", required=True)
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=0)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--depth", type=int, default=0, help="tokens of context before decode")
    parser.add_argument("--kv", choices=LLAMA_KV, default="F16")
    parser.add_argument("--busy", type=int, default=0, help="processes that only count, beside")
    parser.add_argument("--write", type=Path, help="Markdown file to write the table into")
    parser.add_argument("--section", help="of that file")
    args = parser.parse_args()
    if (args.write is None) != (args.section is None):
        parser.error("--write and --section go together")
    return args


def main() -> None:
    args = parse_args()
    if args.write:  # that it can be written is known before an hour is spent
        replace_section(args.write.read_text("utf-8"), args.section, "")
    race = Race(
        args,
        [edge_runner(path, args) for path in args.edge],
        [llama_runner(path, args) for path in args.gguf],
    )
    race.run()
    print(json.dumps(report(race), indent=1))
    if args.write:
        text = args.write.read_text("utf-8")
        args.write.write_text(replace_section(text, args.section, markdown(race)), "utf-8")


if __name__ == "__main__":
    main()
