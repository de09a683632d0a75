"""How long it takes from the start of a process to its first byte: `--version`, `--help`, a text.

    python benchmarks/first_token.py [--model demo] [--rounds 15]

Every round runs each command once, in turn, as a user does, on files that are in the page cache;
the first round is not counted. Prints medians and the slowest, in milliseconds. Wants an idle
machine: the goals are 150 ms for --version and --help, 400 ms for the first token of the demo.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter

GOALS_MS = {"--version": 150, "--help": 150, "first token": 400}


def first_byte_ms(command: list[str]) -> float:
    started = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        took = perf_counter() - started
        process.stdout.read()
    if process.returncode != 0 or not first:
        sys.exit(f"{' '.join(command)} failed with {process.returncode}")
    return 1e3 * took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    edgellm = str(Path(sys.executable).with_name("edgellm"))
    commands = {
        "--version": [edgellm, "--version"],
        "--help": [edgellm, "--help"],
        # The text is printed as it comes: its first byte is the first token's.
        "first token": [edgellm, "run", given.model, "Once upon a time", "--max-tokens", "4"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for at in range(given.rounds + 1):
        for name, command in commands.items():
            took = first_byte_ms(command)
            if at > 0:
                times[name].append(took)
    for name, all_ms in times.items():
        median, worst = statistics.median(all_ms), max(all_ms)
        goal = GOALS_MS[name]
        print(f"{name:12} {median:6.0f} ms, slowest {worst:6.0f} (goal {goal})")


if __name__ == "__main__":
    main()
