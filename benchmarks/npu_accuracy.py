"""How far graphs for NPUs are from the CPU runtime, on whole models: the table of docs/NPU.md.

    python benchmarks/npu_accuracy.py SOURCE... [--targets npu:ort npu:intel ...] [--rows 1]

Each source is converted to F16 and to L4_32 files; graphs in 16 bits are compared with the first,
those in 4 bits that keep the file's weights with the second, and Qualcomm's 4 bits with the first.
Targets whose package is missing are named and left out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu

from edgellm.errors import EdgeError

TARGETS = ("npu:ort", "npu:intel", "npu:apple", "npu:qualcomm-v79")


def row(source: Path, target: str, bits: int, options: dict[str, object], work: Path) -> str:
    format = "F16" if bits == 16 or "qualcomm" in target else "L4_32"
    edge, out = work / f"{source.name}.{format}.edge", work / f"{source.name}{target[4:]}{bits}"
    if not edge.exists():
        convert(source, edge, format=format, act="f32")
    rounds = "qualcomm" in target
    chosen = NpuOptions(bits=bits if rounds else None, **options)
    try:
        report = export_npu(source if rounds else edge, out, target, chosen, against=edge)
    except EdgeError as error:
        return f"{source.name} {target} {bits}: not measured: {error.message[:200]}"
    found = report.difference
    assert found is not None
    return (
        f"{source.name} {target} {bits} bits: logits {found.relative:.1e} KL {found.kl_nats:.5f} "
        f"top token {found.top1:.1%} of {found.n_tokens}, {report.n_bytes / 1e6:.2f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--rows", type=int, nargs="+", default=[1])
    parser.add_argument("--context", type=int, default=64)
    chosen = parser.parse_args()
    options: dict[str, object] = {"rows": tuple(chosen.rows), "context": chosen.context}
    with tempfile.TemporaryDirectory() as work:
        for target in chosen.targets:
            for source in chosen.sources:
                for bits in (4, 16):
                    print(row(source, target, bits, options, Path(work)), flush=True)


if __name__ == "__main__":
    main()
