"""What `make nightly-npu` measured, as the table of docs/NPU.md.

    python benchmarks/npu_report.py build/npu.jsonl

The lines were written by the tests of tests/npu with EDGELLM_NPU_REPORT set, one for each whole
model, by what ran it. What is not there was not measured: its tests said why they were skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SMALLEST = 1e-5  # below it a KL is the rounding of logits


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not measured"
    kl = f"{row['kl_nats']:.1e}" if row["kl_nats"] >= SMALLEST else f"below {SMALLEST:.0e}"
    top = f"{100 * row['top1']:.4g} % of {row['n_tokens']}"
    return f"{row['relative']:.1e}; {row['norm']:.1e}; {kl}; {top}"


def main() -> None:
    path = Path(sys.argv[1])
    rows = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    if not rows:
        raise SystemExit(f"{path}: nothing was measured")
    models = sorted({row["model"] for row in rows})
    by_place = {(row["ran_by"], row["weights"], row["model"]): row for row in rows}
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    seconds = sum(row["cpu_s"] for row in rows)
    today = datetime.now(UTC).date()
    print(f"{today}, commit {commit or 'unknown'}, {seconds:.0f} s of processor time\n")
    print(f"| ran by | weights | {' | '.join(models)} |")
    print("|" + "---|" * (2 + len(models)))
    for ran_by, weights in sorted({place[:2] for place in by_place}):
        cells = [cell(by_place.get((ran_by, weights, model))) for model in models]
        print(f"| {ran_by} | {weights} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
