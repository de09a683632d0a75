"""`python -m edgellm.converters SRC OUT`: convert a checkpoint, or print the plan."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgellm.errors import EdgeError

from .pipeline import convert, plan_conversion
from .recipe import ACTS, preset_names
from .report import ConvertProgress, ConvertReport


def main(argv: Sequence[str] | None = None) -> int:
    """0: done. 1: refused, with the reason on stderr."""
    args = _parser().parse_args(argv)
    choices: dict[str, Any] = {
        "format": args.format,
        "embed_format": args.embed_format,
        "head_format": args.head_format,
        "act": args.act,
        "recipe": args.recipe,
        "calibration": tuple(args.calibration or ()),
    }
    try:
        if args.dry_run:
            plan = plan_conversion(args.src, **choices)
            print(plan.table())
            warnings = plan.warnings
        else:
            report = _convert_with_bar(args.src, args.out or _default_out(args.src), choices)
            print(_summary(report))
            warnings = report.warnings
    except EdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for warning in warnings:
        print(f"note: {warning}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgellm.converters", description=__doc__)
    parser.add_argument("src", type=Path, help="directory with config.json and *.safetensors")
    parser.add_argument("out", type=Path, nargs="?", help="file to write; default SRC.edge")
    parser.add_argument(
        "--format", choices=preset_names(), help="of all weights; default: E4_32 to E6_16, by role"
    )
    parser.add_argument("--embed-format", choices=preset_names())
    parser.add_argument("--head-format", choices=preset_names())
    parser.add_argument("--act", choices=ACTS, help="activations; default: what the format likes")
    parser.add_argument("--recipe", type=Path, help="TOML, instead of the four options above")
    parser.add_argument("--calibration", type=Path, action="append", help="text or .jsonl")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, write nothing")
    return parser


def _default_out(src: Path) -> Path:
    return Path.cwd() / f"{src.resolve().name}.edge"


def _convert_with_bar(src: Path, out: Path, choices: dict[str, Any]) -> ConvertReport:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("reading", total=None)

    def show(state: ConvertProgress) -> None:
        bar.start()  # here, so that a refused input leaves no bar
        bar.update(
            task,
            description=f"{state.stage} {state.tensor}",
            completed=state.n_weights_done,
            total=state.n_weights_total,
        )

    try:
        return convert(src, out, **choices, progress=show)
    finally:
        if bar.live.is_started:
            bar.stop()


def _summary(report: ConvertReport) -> str:
    worst = max(report.tensors, key=lambda tensor: tensor.rel_rms_error)
    memory = f", peak {report.peak_rss_bytes / 1e6:.0f} MB" if report.peak_rss_bytes else ""
    return (
        f"{report.path}: {report.n_weights:,} weights in {report.n_bytes / 1e6:.2f} MB "
        f"({report.bits_per_weight:.3f} bits each), {report.seconds:.1f} s{memory}\n"
        f"largest relative RMS error {worst.rel_rms_error:.4f} ({worst.name})"
    )


if __name__ == "__main__":
    sys.exit(main())
