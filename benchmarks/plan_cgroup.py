"""Decoding in a memory cgroup of exactly the plan and 3 %, against decoding without one.

    python benchmarks/plan_cgroup.py FILE DIR [--context 2048 --kv K8V8 --parallel 2 --rounds 5]

In turn, on private copies that are written to DIR inside the cgroup; medians. Says, too, how long
the refusal takes at the plan less 10 %. Needs to be root, or a delegated cgroup (version 1 or 2).
For a machine on which nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent / "plan_reality.py"
LEAST_SPEED, MOST_REFUSAL_MS = 0.9, 100.0


def own_paths() -> dict[str, str]:
    paths = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path.lstrip("/")
    return paths


def make_cgroup() -> tuple[Path, Path]:
    """A new one inside ours, and the file of its limit."""
    paths, root = own_paths(), Path("/sys/fs/cgroup")
    for parent, limit in (
        (root / "memory" / paths.get("memory", ""), "memory.limit_in_bytes"),
        (root / paths.get("", ""), "memory.max"),
    ):
        made = parent / f"edgellm-plan-{os.getpid()}"
        try:
            made.mkdir()
        except OSError:
            continue
        if (made / limit).exists():
            return made, made / limit
        made.rmdir()
    raise SystemExit("no memory cgroup can be made here: be root, or in a delegated one")


def run(command: list[str], group: Path | None) -> dict[str, Any]:
    enter = "" if group is None else f"echo $$ > {group}/cgroup.procs && "
    shell = ["sh", "-c", f'{enter}exec "$@"', "sh", *command]
    done = subprocess.run(shell, capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise SystemExit(f"ended with {done.returncode} (-9: killed)\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--kv", default="K8V8")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    wish = parser.parse_args()
    options = ("--context", wish.context, "--kv", wish.kv, "--parallel", wish.parallel)
    options += ("--threads", wish.threads, "--decode", 64, "--copy", wish.directory)
    command = [sys.executable, str(SCRIPT), str(wish.file), *map(str, options)]
    group, limit = make_cgroup()
    try:
        free, tight = [], []
        for _ in range(wish.rounds):
            free.append(run(command, None))
            total = free[-1]["plan"]["total"]
            limit.write_text(str(int(1.03 * total)), encoding="ascii")
            tight.append(run(command, group))
        limit.write_text(str(int(0.9 * total)), encoding="ascii")
        refused = run(command, group)["refused_ms"]
    finally:
        group.rmdir()
    pairs = zip(tight, free, strict=True)
    ratio = statistics.median(t["tokens_per_s"] / f["tokens_per_s"] for t, f in pairs)
    faults = max(one["major_faults_per_token"] for one in tight)
    print(f"plan {total:,} bytes; at 103 %: decode {ratio:.3f} of that without a limit,")
    print(f"{faults:.3f} major faults a token at most; at 90 %: refused in {refused:.1f} ms")
    sys.exit(not (ratio >= LEAST_SPEED and faults < 1 and refused < MOST_REFUSAL_MS))


if __name__ == "__main__":
    main()
