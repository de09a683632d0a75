"""What the terminal chat costs, by a scripted engine: its share of a core while a reply comes, how
soon a long chat is there, how soon a key is seen.

    python benchmarks/chat_costs.py [--out chat_costs.json] [--rounds 5] [--only stream|mount|keys]

In windows of 80x24 and 140x40. `stream`: 1,200 tokens of all kinds of Markdown at 50 a second on a
pseudo-terminal, CPU time of the process without the engine's thread, by stretches of two seconds;
the goal is a median of 5 % of a core. `mount`: a chat of 1,000 messages from the library to the
screen, wall and CPU time, median of --rounds; the goal is 0.6 s of wall time. `keys`: from a byte
written to the terminal to its paint while a reply comes at 50 tokens/s, wall time of 60 keys; the
goal is 50 ms. Wall times want an idle machine. Takes two minutes; prints the figures, and writes
them as one JSON object. Needs the tests beside it, and Linux or macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from tui.costs import seconds_to_paint_keys, shares_of_a_core, time_to_show

SIZES = ((24, 80), (40, 140))
N_MESSAGES = 1000


def spread(values: Sequence[float], factor: float) -> dict[str, float]:
    ordered = sorted(values)
    at_95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    named = {"median": median(ordered), "p95": at_95, "least": ordered[0], "most": ordered[-1]}
    return {name: round(factor * value, 2) for name, value in named.items()}


def stream(size: tuple[int, int], _rounds: int) -> dict[str, object]:
    return {"percent_of_a_core": spread(shares_of_a_core(size), 100.0), "goal": 5.0}


def mount(size: tuple[int, int], rounds: int) -> dict[str, object]:
    took = [time_to_show(N_MESSAGES, size) for _ in range(rounds + 1)][1:]
    wall, cpu = [one.wall_s for one in took], [one.cpu_s for one in took]
    return {"wall_ms": spread(wall, 1e3), "cpu_ms": spread(cpu, 1e3), "goal": 600.0}


def keys(size: tuple[int, int], _rounds: int) -> dict[str, object]:
    return {"wall_ms": spread(seconds_to_paint_keys(size), 1e3), "goal": 50.0}


PARTS: dict[str, Callable[[tuple[int, int], int], dict[str, object]]] = {
    "stream": stream,
    "mount": mount,
    "keys": keys,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("chat_costs.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS)
    given = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    for name, part in PARTS.items():
        if given.only in (None, name):
            found[name] = {
                f"{cols}x{rows}": part((rows, cols), given.rounds) for rows, cols in SIZES
            }
            print(name, json.dumps(found[name]), flush=True)
    report = {"load": os.getloadavg(), "n_messages": N_MESSAGES, **found}
    given.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
