"""What a restart costs a text: its KV from disk, and whether it goes on with the same tokens.

    python benchmarks/restore.py MODEL.edge [--tokens 2000] [--rounds 9] [--kv K8V8] [--threads 2]

One process reads `--tokens` random ids, saves its session, and generates 64 tokens. Then another
process (the files are in the page cache by then) opens and restores the session `--rounds` times,
and goes on with it; and it finds the whole pages of the prefix in a `kv_cache_dir`, as often from
disk as from memory, where the difference is what reading costs. Wall-clock and processor time in
ms, medians. The tokens must be those of the first process. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from edgellm import _native

N_NEW = 64
PAGE_TOKENS = 16


def prompt_of(model: _native.Model, n_tokens: int) -> list[int]:
    draw = random.Random(1)
    return [draw.randrange(model.n_vocab) for _ in range(n_tokens)]


def run(session: _native.Session, ids: list[int]) -> None:
    session.append(ids)
    while not session.run(1e9):
        pass


def continued(session: _native.Session) -> list[int]:
    ids: list[int] = []
    for _ in range(N_NEW):
        ids.append(session.sample(_native.SamplerParams())[0])
        run(session, ids[-1:])
    return ids


def timed(body: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and processor ms."""
    wall, cpu = perf_counter(), process_time()
    body()
    return 1e3 * (perf_counter() - wall), 1e3 * (process_time() - cpu)


def before(model: _native.Model, n_tokens: int, folder: Path) -> dict[str, Any]:
    session = _native.Session(model, n_tokens + N_NEW)
    run(session, prompt_of(model, n_tokens))
    saved_ms, saved_cpu_ms = timed(lambda: session.save(folder / "session", b""))
    ids = continued(session)
    session.close()
    wall_ms, cpu_ms = timed(lambda: (model.trim(), None)[1])
    n_written = model.kv_figures["n_disk_written_tokens"]
    return {
        "ids": ids,
        "save_ms": saved_ms,
        "save_cpu_ms": saved_cpu_ms,
        "written_tokens": n_written,
        "write_us_per_token": 1e3 * wall_ms / n_written,
        "write_cpu_us_per_token": 1e3 * cpu_ms / n_written,
    }


def after(model: _native.Model, n_tokens: int, folder: Path, n_rounds: int) -> dict[str, Any]:
    times = []
    for _ in range(n_rounds):
        restored = _native.Session(model, n_tokens + N_NEW, reuse_prefix=False)
        times.append(
            timed(lambda: restored.restore(_native.SessionFile.open(folder / "session")))  # noqa: B023
        )
        if len(times) < n_rounds:
            restored.close()
    ids = continued(restored)
    restored.close()
    from_disk, from_memory = [], []
    prompt = prompt_of(model, n_tokens)
    n_whole = (n_tokens - 1) // PAGE_TOKENS * PAGE_TOKENS
    for _ in range(n_rounds):
        for kept in (from_disk, from_memory):
            session = _native.Session(model, n_tokens)
            kept.append(timed(lambda: run(session, prompt[: n_whole + 1])))  # noqa: B023
            assert session.stats["n_reused_tokens"] == n_whole
            assert session.stats["n_disk_tokens"] == (n_whole if kept is from_disk else 0)
            session.close()
        model.trim()
    session = _native.Session(model, n_tokens + N_NEW)
    run(session, prompt)
    assert continued(session) == ids
    session.close()
    medians = [
        [statistics.median(column) for column in zip(*rows, strict=True)]
        for rows in (times, from_disk, from_memory)
    ]
    return {
        "ids": ids,
        "restore_ms": medians[0][0],
        "restore_cpu_ms": medians[0][1],
        "directory_ms": medians[1][0] - medians[2][0],
        "directory_cpu_ms": medians[1][1] - medians[2][1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--kv", default="K8V8")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--part", choices=("before", "after"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is None:
        print(json.dumps(both(sys.argv[1:])))
        return
    model = _native.Model.load(
        arguments.model,
        n_threads=arguments.threads,
        verify="never",
        kv_format=arguments.kv,
        kv_cache_dir=arguments.folder / "kv",
        kv_cache_disk_bytes=2**34,
    )
    n_tokens, folder = arguments.tokens, arguments.folder
    if arguments.part == "before":
        print(json.dumps(before(model, n_tokens, folder)))
    else:
        print(json.dumps(after(model, n_tokens, folder, arguments.rounds)))


def both(arguments: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for part in ("before", "after"):
            command = [sys.executable, __file__, *arguments, "--part", part, "--folder", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            parts.append(json.loads(done.stdout))
        n_bytes = (Path(folder) / "session").stat().st_size
        n_page_bytes = sum(file.stat().st_size for file in (Path(folder) / "kv").iterdir())
    first, second = (part.pop("ids") for part in parts)
    rounded = {key: round(value, 1) for part in parts for key, value in part.items()}
    return {
        **rounded,
        "session_bytes": n_bytes,
        "directory_bytes": n_page_bytes,
        "same_tokens": first == second,
    }


if __name__ == "__main__":
    main()
