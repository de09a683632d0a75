"""`edgellm export`: a checkpoint in, a model for other programs out, progress on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..locate import find
from ..sanitize import visible_line
from .convert import converters
from .flags import JsonFlag
from .output import note, print_json, print_text
from .progress import progress_bar

_W8A8 = "With --as w8a8-onnx"


def command(
    src: Annotated[
        Path,
        typer.Argument(
            help="Directory with config.json and *.safetensors, or its name; for GGUF any model."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="What to write; must not exist yet.")],
    kind: Annotated[
        str,
        typer.Option(
            "--as",
            help="fp8-block, fp8-tensor or fp8-e5m2: a directory. w8a8-onnx, or gguf-f16, -q8_0, "
            "-q4_0, -iq4_nl: a file.",
        ),
    ],
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="Text, .jsonl or .edge to find ranges on; repeatable.", rich_help_panel=_W8A8
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Share of outliers moved into weights, 0 to 1; default 0.5.",
            rich_help_panel=_W8A8,
        ),
    ] = None,
    dynamic: Annotated[
        bool,
        typer.Option(
            "--dynamic", help="A scale for every token, not one per matrix.", rich_help_panel=_W8A8
        ),
    ] = False,
    windows: Annotated[
        int | None,
        typer.Option(
            help="Of text to calibrate on; default 32. 8 more are measured on.",
            rich_help_panel=_W8A8,
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """What is written appears whole or not at all. docs/EXPORT.md says who can read it."""
    export = converters("edgellm.converters.export")
    chosen: dict[str, Any] = {"alpha": alpha, "dynamic": dynamic or None, "n_windows": windows}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    source = find(str(src)).path
    if source != src:
        note(f"note: {src} is {source}")
    with progress_bar() as bar:
        report = export.export(
            source,
            out,
            kind,
            calibration=tuple(calibration or ()),
            w8a8=export.W8A8Options(**chosen) if chosen else None,
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
    text = (
        f"{visible_line(str(report.path))}: {report.n_weights:,} weights in "
        f"{report.n_bytes / 1e6:.2f} MB, {len(report.matrices)} matrices as {worst.format}, "
        f"largest relative RMS error {worst.rel_rms_error:.4f} ({visible_line(worst.name)}), "
        f"{report.seconds:.1f} s\n"
    )
    quality = report.quality
    if quality is None:
        return text
    text += (
        f"KL from float32 {quality.kl_nats:.5f} nats, same top token {quality.top1:.2%}, on "
        f"{quality.n_held_out_tokens:,} held-out tokens\n"
    )
    if quality.onnxruntime_nmse is not None:
        text += f"onnxruntime's logits: NMSE {quality.onnxruntime_nmse:.1e} against torch's\n"
    return text
