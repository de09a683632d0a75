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

COLUMNS = ("model", "ran by", "weights", "tokens", "logits", "as norms", "KL, nats", "top token")


def line(row: dict[str, object]) -> str:
    cells = [
        *(str(row[key]) for key in ("model", "ran_by", "weights", "n_tokens")),
        f"{row['relative']:.1e}",
        f"{row['norm']:.1e}",
        f"{row['kl_nats']:.5f}",
        f"{row['top1']:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    path = Path(sys.argv[1])
    rows = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    if not rows:
        raise SystemExit(f"{path}: nothing was measured")
    rows.sort(key=lambda row: (row["ran_by"], row["model"], row["weights"]))
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    seconds = sum(row["cpu_s"] for row in rows)
    today = datetime.now(UTC).date()
    print(f"{today}, commit {commit or 'unknown'}, {seconds:.0f} s of processor time\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|" + "---|" * len(COLUMNS))
    print("\n".join(map(line, rows)))


if __name__ == "__main__":
    main()
