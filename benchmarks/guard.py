"""Counts the instructions of the matmul and attention kernels against the committed counts.

A count is the same on a quiet and on a busy machine, so a kernel that a change or a compiler flag
made longer shows here when no timing can be trusted. Callgrind knows no AVX-512: levels avx2, sse41
and scalar are counted. Counts of one compiler say nothing about another one's.

    python benchmarks/guard.py build/release/tools/edge_kernels [--write]

Exit status: 0 counts hold or another compiler built the kernels (said on stderr), 1 a count moved
by more than 2 %, 2 something could not be counted. --write stores the counts of this build.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

COUNTS = Path(__file__).parent / "instruction_counts.json"
TOLERANCE = 0.02
FORMATS = ("E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32", "K4_32", "L4_32", "L8_32")
GEMM_ROWS = 64
ROWS = {"avx2": (1, 2, 4, 16, GEMM_ROWS), "sse41": (1, 2, 16, GEMM_ROWS), "scalar": (1, 16)}
KV_FORMATS = ("F16", "K8V8", "K8V4", "K6V4")
QUERIES = (1, 4)


class CountError(Exception):
    """A count could not be taken or read."""


@dataclass(frozen=True)
class Case:
    isa: str
    name: str
    function: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Counts:
    compiler: str
    instructions: dict[str, int]


def matmul_case(isa: str, weights: str, rows: int) -> Case:
    kind = "gemm" if rows >= GEMM_ROWS else "matmul"
    return Case(
        isa,
        f"{isa} {weights} rows={rows}",
        f"edge::{kind}_{weights.lower()}_a8_{isa}(edge::MatmulArgs const&)",
        (weights, "--rows", str(rows), "--columns", "256", "--strips", "4"),
    )


def attention_case(isa: str, kv: str, queries: int) -> Case:
    namespace = isa if isa == "scalar" else f"x86_{isa}"
    return Case(
        isa,
        f"{isa} attention {kv} queries={queries}",
        f"edge::{namespace}::(anonymous namespace)::segment(edge::AttentionSegmentArgs&)",
        (f"attention_{kv}", "--queries", str(queries), "--positions", "256"),
    )


def cases() -> list[Case]:
    return [
        *(
            matmul_case(isa, weights, rows)
            for isa, all_rows in ROWS.items()
            for weights in FORMATS
            for rows in all_rows
        ),
        *(
            attention_case(isa, kv, queries)
            for isa in ROWS
            for kv in KV_FORMATS
            for queries in QUERIES
        ),
    ]


def compiler_of(program: Path) -> str:
    done = subprocess.run([program, "--compiler"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def count(program: Path, case: Case) -> int:
    """Instructions of one call of the case's kernel, callees included."""
    command = [
        *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
        f"--toggle-collect={case.function}",
        *(str(program), *case.arguments, "--calls", "1"),
    ]
    env = {**os.environ, "EDGELLM_ISA": case.isa}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    ran = f'"isa": "{case.isa}"' in done.stdout
    if done.returncode != 0 or not ran or collected is None or int(collected[1]) == 0:
        raise CountError(
            f"{case.name}: callgrind counted nothing of {case.function}; is {program} an "
            f"unstripped release build?\n{done.stderr.strip()[-1000:]}"
        )
    return int(collected[1])


def require(program: Path) -> None:
    if shutil.which("valgrind") is None:
        raise CountError("valgrind is not installed; install it (package valgrind)")
    if not program.is_file():
        raise CountError(f"{program} does not exist; build the target edge_kernels_bench")


def measure(program: Path) -> Counts:
    return Counts(compiler_of(program), {case.name: count(program, case) for case in cases()})


def read(path: Path) -> Counts:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Counts(str(data["compiler"]), {k: int(n) for k, n in data["instructions"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CountError(f"{path}: {error!r}; store new counts with --write") from error


def complaints(committed: Counts, now: Counts) -> list[str]:
    """What moved by more than the tolerance, either way: a count that fell is one to commit."""
    found = []
    for name in sorted(committed.instructions.keys() | now.instructions.keys()):
        before, after = committed.instructions.get(name), now.instructions.get(name)
        if before is None or after is None:
            found.append(f"{name}: {'not committed' if before is None else 'not counted any more'}")
        elif abs(after - before) > TOLERANCE * before:
            found.append(f"{name}: {before} -> {after} instructions ({after / before - 1:+.1%})")
    return found


def is_comparable(committed: Counts, compiler: str) -> bool:
    if compiler == committed.compiler:
        return True
    print(
        f"WARNING: NOT COMPARED: the kernels were built by {compiler}, "
        f"the counts in {COUNTS.name} are of {committed.compiler}",
        file=sys.stderr,
    )
    return False


def verdict(committed: Counts, now: Counts) -> int:
    found = complaints(committed, now)
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("If that is meant, run again with --write and commit the file.", file=sys.stderr)
        return 1
    print(f"{len(now.instructions)} instruction counts within {TOLERANCE:.0%}")
    return 0


def run(program: Path, *, write: bool) -> int:
    require(program)
    if write:
        COUNTS.write_text(json.dumps(asdict(measure(program)), indent=1) + "\n", "utf-8")
        return 0
    committed = read(COUNTS)
    if not is_comparable(committed, compiler_of(program)):
        return 0
    return verdict(committed, measure(program))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("program", type=Path, help="the tool edge_kernels of a release build")
    parser.add_argument("--write", action="store_true", help="store the counts of this build")
    args = parser.parse_args()
    try:
        return run(args.program, write=args.write)
    except CountError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
