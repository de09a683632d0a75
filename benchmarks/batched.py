"""Several streams at once against one: tokens per second, and the gaps when a long prompt joins.

    python benchmarks/batched.py MODEL [--streams 8] [--decode 64] [--join 2000] [--rounds 3]
        [--llama-batched-bench path/to/llama-batched-bench --gguf model.gguf]

Prints JSON. `alone`: one stream; `batch`: Model.stream_batch(), one thread; `threads`: as many
threads as streams, each with its own Model.stream(). Speeds count tokens after the last first
token, sampling and text included; rounds alternate, the median counts. `gaps_ms`: between the
tokens of a stream, in threads: `plain` before the prompt comes, `join` while it is read.
`llama`: the same streams in llama.cpp's llama-batched-bench, which takes its turn in every round.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from time import perf_counter

import edgellm

Stamps = list[tuple[int, float]]  # (stream, when its token came)


def prompts_of(n: int, n_tokens: int, n_vocab: int, seed: int) -> list[list[int]]:
    """Random ids, so that no two prompts begin alike."""
    draw = random.Random(seed)
    return [[draw.randrange(n_vocab) for _ in range(n_tokens)] for _ in range(n)]


def speed(stamps: Stamps, n_streams: int) -> float:
    """Tokens per second from the moment when every stream had its first."""
    first: dict[int, float] = {}
    for stream, at in stamps:
        first.setdefault(stream, at)
    assert len(first) == n_streams
    begin = max(first.values())
    later = [at for _, at in stamps if at > begin]
    return len(later) / (max(later) - begin)


def alone(model: edgellm.Model, prompts: list[list[int]], n_new: int) -> Stamps:
    stream = model.stream(prompts[0], max_tokens=n_new, stop_ids=())
    return [(0, perf_counter()) for _ in stream]


def batch(model: edgellm.Model, prompts: list[list[int]], n_new: int) -> Stamps:
    stream = model.stream_batch(prompts, max_tokens=n_new, stop_ids=(), at_once=len(prompts))
    return [(index, perf_counter()) for index, _ in stream]


def llama(program: str, gguf: str, args: argparse.Namespace) -> float:
    """Tokens per second of all streams while they decode."""
    n_ctx = args.streams * (args.prompt + args.decode) + 64
    options = {"-c": n_ctx, "-npp": args.prompt, "-ntg": args.decode, "-npl": args.streams}
    if args.threads is not None:
        options |= {"-t": args.threads, "-tb": args.threads}
    command = [program, "-m", gguf, *(str(x) for pair in options.items() for x in pair)]
    command += ["--output-format", "jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return float(json.loads(line)["speed_tg"])


def in_threads(bodies: Iterable[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def threads(model: edgellm.Model, prompts: list[list[int]], n_new: int) -> Stamps:
    stamps: Stamps = []

    def body(index: int) -> None:
        for _ in model.stream(prompts[index], max_tokens=n_new, stop_ids=()):
            stamps.append((index, perf_counter()))

    in_threads(partial(body, index) for index in range(len(prompts)))
    return stamps


def join_gaps(
    model: edgellm.Model, prompts: list[list[int]], long_prompt: list[int], n_plain: int
) -> dict[str, list[float]]:
    """Gaps in ms of every stream's tokens, before a prompt joins and while it is read."""
    stamps: list[list[float]] = [[] for _ in prompts]
    joined = threading.Semaphore(0)
    over = threading.Event()
    span: list[float] = []

    def body(index: int) -> None:
        n_most = min(1024, model.info().n_ctx - len(prompts[index]))
        try:
            with model.stream(prompts[index], max_tokens=n_most, stop_ids=()) as stream:
                for n, _ in enumerate(stream):
                    stamps[index].append(perf_counter())
                    if n == n_plain:
                        joined.release()
                    if over.is_set():
                        return
        finally:
            joined.release()

    def reader() -> None:
        for _ in prompts:  # until each has so many
            joined.acquire()
        span.append(perf_counter())
        next(model.stream(long_prompt, max_tokens=1, stop_ids=()))
        span.append(perf_counter())
        over.set()

    in_threads([*(partial(body, index) for index in range(len(prompts))), reader])
    ready = max(times[0] for times in stamps)
    gaps: dict[str, list[float]] = {"plain": [], "join": []}
    for times in stamps:
        for before, after in pairwise(times):
            if span[0] <= before and after <= span[1]:
                gaps["join"].append(1e3 * (after - before))
            elif before >= ready and after <= span[0]:
                gaps["plain"].append(1e3 * (after - before))
    gaps["read_s"] = [span[1] - span[0]]
    return gaps


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--join", type=int, default=2000, help="tokens of the prompt; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--llama-batched-bench")
    parser.add_argument("--gguf")
    args = parser.parse_args()
    model = edgellm.load(args.model, threads=args.threads, verify="never", speculate=False)
    n_vocab = model.info().n_vocab
    prompts = prompts_of(args.streams, args.prompt, n_vocab, 1)
    ways = {"alone": alone, "batch": batch, "threads": threads}
    found: dict[str, list[float]] = {name: [] for name in ways}
    alone(model, prompts, 4)  # touches every page once
    for _ in range(args.rounds):
        for name, way in ways.items():
            n_streams = 1 if name == "alone" else args.streams
            found[name].append(speed(way(model, prompts, args.decode), n_streams))
        if args.llama_batched_bench is not None:
            found.setdefault("llama", []).append(llama(args.llama_batched_bench, args.gguf, args))
    middle = {name: statistics.median(values) for name, values in found.items()}
    report = {
        "model": args.model,
        "streams": args.streams,
        "prompt_tokens": args.prompt,
        "decode_tokens": args.decode,
        "cpu_threads": model.info().threads,
        "tokens_per_s": middle,
        "tokens_per_s_rounds": found,
        "batch_gain": middle["batch"] / middle["alone"],
        "threads_gain": middle["threads"] / middle["alone"],
    }
    if "llama" in found:
        pairs = zip(found["batch"], found["llama"], strict=True)
        report["batch_to_llama"] = statistics.median(ours / theirs for ours, theirs in pairs)
    if args.join > 0:
        gaps = join_gaps(model, prompts, prompts_of(1, args.join, n_vocab, 2)[0], 24)
        median = statistics.median(gaps["plain"])
        report["gaps_ms"] = {
            "plain_median": median,
            "plain_p99": quantile(gaps["plain"], 0.99),
            "join_median": statistics.median(gaps["join"]),
            "join_p99": quantile(gaps["join"], 0.99),
            "join_p99_to_plain_median": quantile(gaps["join"], 0.99) / median,
            "join_n": len(gaps["join"]),
            "join_read_s": gaps["read_s"][0],
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
