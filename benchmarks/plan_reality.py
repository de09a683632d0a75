"""Loads a model as `edgellm plan` says, fills the contexts, and prints what it really took.

    python benchmarks/plan_reality.py FILE --context 2048 --kv K8V8 --parallel 2 [--decode 64]

JSON: `plan` and `took`, in bytes, of anonymous memory and of the mapped file, what the program had
before left out; with --decode also tokens/s and major faults of one text. --copy DIR: of a private
copy there, so that its pages are charged to this process's cgroup.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
from pathlib import Path
from time import perf_counter
from typing import Any

from edgellm import _native
from edgellm.device_plan import plan_on
from edgellm.edgefile import read_header
from edgellm.errors import MemoryBudgetError


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("/proc/self/status has no RssAnon")


def mapped_bytes(path: Path) -> int:
    """Of the file that are in memory through a mapping of this process."""
    n_bytes, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        words = line.split(maxsplit=5)
        if "-" in words[0] and not words[0].endswith(":"):
            is_ours = len(words) == 6 and words[5] == str(path)
        elif is_ours and words[0] == "Rss:":
            n_bytes += 1024 * int(words[1])
    return n_bytes


def ids(n_tokens: int, n_vocab: int, text: int) -> list[int]:
    """Different from text to text, so that none has another's KV."""
    return [(7919 * at + 104729 * (text + 1)) % n_vocab for at in range(n_tokens)]


class Peak:
    def __init__(self) -> None:
        self.before = self.most = anonymous_bytes()

    def look(self) -> None:
        self.most = max(self.most, anonymous_bytes())

    @property
    def grown(self) -> int:
        return self.most - self.before


def fill(session: _native.Session, tokens: list[int], peak: Peak) -> None:
    session.append(tokens)
    while not session.run():
        peak.look()
    peak.look()


def decode(session: _native.Session, n_tokens: int, n_vocab: int) -> dict[str, float]:
    """Token by token, from where the context has room for them again."""
    session.rewind(session.n_tokens - n_tokens)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    started = perf_counter()
    for token_id in ids(n_tokens, n_vocab, 99):
        session.append([token_id])
        while not session.run():
            pass
    elapsed = perf_counter() - started
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults
    return {"tokens_per_s": n_tokens / elapsed, "major_faults_per_token": faults / n_tokens}


def measured(path: Path, wish: argparse.Namespace) -> dict[str, Any]:
    plan = plan_on(read_header(path), None, n_ctx=wish.context, kv=wish.kv, parallel=wish.parallel)
    # In whole pages from here on: what edgellm itself imports is none of the model.
    peak = Peak()
    started = perf_counter()
    try:
        model = _native.Model.load(
            path,
            n_threads=wish.threads,
            verify="always",
            kv_format=wish.kv,
            n_ctx=wish.context,
            max_memory_bytes=plan.max_memory_bytes,
        )
    except MemoryBudgetError as error:
        refused_ms = 1e3 * (perf_counter() - started)
        return {"refused_ms": refused_ms, "error": str(error), "mapped": mapped_bytes(path)}
    sessions = []
    for text in range(wish.parallel):
        sessions.append(_native.Session(model, wish.context))
        fill(sessions[-1], ids(wish.context, model.n_vocab, text), peak)
    took = {"anonymous": peak.grown, "mapped": mapped_bytes(path), "program": peak.before}
    parts = plan.parts
    planned = {
        "anonymous": parts["scratch"] + parts["logits"] + parts["kv"],
        "mapped": parts["file"],
        "program": parts["program"],
        "total": plan.total_bytes,
    }
    speed = decode(sessions[0], wish.decode, model.n_vocab) if wish.decode else {}
    return {"plan": planned, "took": took, **speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--kv", default="K8V8")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--decode", type=int, default=0)
    parser.add_argument("--copy", type=Path)
    wish = parser.parse_args()
    path = wish.file.resolve()
    if wish.copy is not None:
        path = Path(shutil.copyfile(path, wish.copy.resolve() / f"{os.getpid()}.edge"))
        with path.open("rb") as copied:
            os.fsync(copied.fileno())  # clean pages, which the kernel may take back
    try:
        print(json.dumps(measured(path, wish)))
    finally:
        if wish.copy is not None:
            path.unlink()


if __name__ == "__main__":
    main()
