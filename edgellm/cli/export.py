"""`edgellm export`: a checkpoint in, a model for other programs out, progress on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..sanitize import visible_line
from .convert import converters
from .output import JsonFlag, note, print_json, print_text
from .progress import progress_bar


def command(
    src: Annotated[Path, typer.Argument(help="Directory with config.json and *.safetensors.")],
    out: Annotated[Path, typer.Argument(help="What to write; must not exist yet.")],
    kind: Annotated[
        str,
        typer.Option("--as", help="fp8-block, fp8-tensor or fp8-e5m2: a directory."),
    ],
    json: JsonFlag = False,
) -> None:
    """What is written appears whole or not at all. docs/EXPORT.md says who can read it."""
    export = converters("edgellm.converters.export")
    with progress_bar() as bar:
        report = export.export(
            src,
            out,
            kind,
            progress=lambda at: bar(
                f"{at.stage} {at.tensor}", at.n_weights_done, at.n_weights_total
            ),
        )
    for warning in report.warnings:
        note(f"note: {warning}")
    if json:
        print_json("export", report.to_dict())
    else:
        print_text(_summary(report))


def _summary(report: Any) -> str:
    worst = report.worst
    return (
        f"{visible_line(str(report.path))}: {report.n_weights:,} weights in "
        f"{report.n_bytes / 1e6:.2f} MB, {len(report.matrices)} matrices as {worst.format}, "
        f"largest relative RMS error {worst.rel_rms_error:.4f} ({visible_line(worst.name)}), "
        f"{report.seconds:.1f} s\n"
    )
