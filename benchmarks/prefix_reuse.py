"""What a shared prefix saves: time to the first token of a warm turn, and memory of many chats.

    python benchmarks/prefix_reuse.py MODEL.edge [--prefix 2000] [--chats 8] [--rounds 3]

Cold: a session that reuses nothing reads the prefix and a question. Warm: another one that finds
the prefix in the tree and reads its own question. Both alternate; medians. Then `--chats` sessions
with a common prompt of 1,000 tokens and up to 40 own ones stay open, read together: bytes of KV
against the same sessions apart, and bytes of KV and sessions that the account has against what the
process's memory grew by. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

from edgellm import _native

N_QUESTION = 20
N_COMMON = 1000
N_OWN = 40


def first_token_ms(session: _native.Session, ids: list[int]) -> float:
    started = perf_counter()
    session.append(ids)
    while not session.run(1e9):
        pass
    session.logits()
    return 1e3 * (perf_counter() - started)


def anonymous_bytes() -> int:
    """Of the process, in memory: without the model's file, whose pages come and go."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon; this runs on Linux only")


def read_together(sessions: list[_native.Session]) -> None:
    """All that is queued, in common steps."""
    while any(session.pending for session in sessions):
        _native.run_batch(sessions, 1e9)


def warm_against_cold(model: _native.Model, n_prefix: int, n_rounds: int) -> dict[str, Any]:
    draw = random.Random(1)
    prefix = [draw.randrange(model.n_vocab) for _ in range(n_prefix)]
    n_ctx = n_prefix + N_QUESTION
    with_prefix = _native.Session(model, n_ctx)
    first_token_ms(with_prefix, prefix)
    with_prefix.close()
    cold_ms, warm_ms = [], []
    for _ in range(n_rounds):
        ids = [*prefix, *(draw.randrange(model.n_vocab) for _ in range(N_QUESTION))]
        cold = _native.Session(model, n_ctx, reuse_prefix=False)
        cold_ms.append(first_token_ms(cold, ids))
        warm = _native.Session(model, n_ctx)
        warm_ms.append(first_token_ms(warm, ids))
        assert (cold.logits() == warm.logits()).all()
        cold.close()
        warm.close()
    cold_median, warm_median = statistics.median(cold_ms), statistics.median(warm_ms)
    return {
        "n_prefix": n_prefix,
        "cold_ms": round(cold_median, 1),
        "warm_ms": round(warm_median, 1),
        "warm_share": round(warm_median / cold_median, 4),
    }


def memory_of_chats(model: _native.Model, n_chats: int) -> dict[str, Any]:
    model.trim()
    draw = random.Random(2)
    common = [draw.randrange(model.n_vocab) for _ in range(N_COMMON)]
    # Scratch and weights are in memory before anything is counted.
    warmed = [_native.Session(model, 256, reuse_prefix=False) for _ in range(n_chats)]
    for session in warmed:
        session.append([draw.randrange(model.n_vocab) for _ in range(20)])
    read_together(warmed)
    for session in warmed:
        session.close()
    # What malloc keeps of earlier work would hide what is taken now.
    ctypes.CDLL(None).malloc_trim(0)
    rss_before, before = anonymous_bytes(), model.kv_figures
    sessions = [_native.Session(model, N_COMMON + N_OWN)]
    first_token_ms(sessions[0], common)
    sessions += [_native.Session(model, N_COMMON + N_OWN) for _ in range(n_chats - 1)]
    for session in sessions:
        known = [] if session is sessions[0] else common
        session.append([*known, *(draw.randrange(model.n_vocab) for _ in range(N_OWN))])
    read_together(sessions)
    figures = model.kv_figures
    rss = anonymous_bytes() - rss_before
    used = figures["used_bytes"] - before["used_bytes"]
    accounted = used + figures["session_bytes"] - before["session_bytes"]
    apart = sum(session.stats["kv_bytes"] for session in sessions)
    return {
        "n_chats": n_chats,
        "kv_bytes": used,
        "kv_bytes_apart": apart,
        "share": round(used / apart, 4),
        "accounted_bytes": accounted,
        "rss_growth_bytes": rss,
        "rss_over_accounted": round(rss / accounted, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--prefix", type=int, default=2000)
    parser.add_argument("--chats", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    model = _native.Model.load(arguments.model, n_threads=arguments.threads, verify="never")
    print(
        json.dumps(
            {
                **warm_against_cold(model, arguments.prefix, arguments.rounds),
                **memory_of_chats(model, arguments.chats),
            }
        )
    )


if __name__ == "__main__":
    main()
