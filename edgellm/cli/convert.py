"""`edgellm convert`: a Hugging Face checkpoint in, one compact file out, progress on stderr."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from ..errors import InvalidArgumentError, UnsupportedError
from ..sanitize import visible_line
from .output import JsonFlag, ThreadsOption, note, print_json, print_text
from .progress import progress_bar


def command(
    src: Annotated[Path, typer.Argument(help="Directory with config.json and *.safetensors.")],
    out: Annotated[
        Path | None, typer.Argument(help="The .edge file to write; not needed with --dry-run.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="Weights: E4_16 (the default), E4_32, E6_16, E8_32, L4_32 or F16."),
    ] = None,
    embed_format: Annotated[
        str | None, typer.Option(help="Of the embedding; default: as the others.")
    ] = None,
    head_format: Annotated[
        str | None, typer.Option(help="Of the output head; default: as the others.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML: format and method per tensor; instead of the above.")
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="Text, .jsonl or .edge (its own text) to quantize on; repeatable."),
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(help="Keep what calibration has done here; default: OUT.work, removed."),
    ] = None,
    stats_dir: Annotated[
        Path | None,
        typer.Option(help="Keep what calibration measures here, for other recipes."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")
    ] = False,
    threads: ThreadsOption = None,
    json: JsonFlag = False,
) -> None:
    """The file appears whole or not at all: Ctrl-C and errors leave nothing behind."""
    tools = converters("edgellm.converters")
    choices: dict[str, Any] = {
        "format": format,
        "embed_format": embed_format,
        "head_format": head_format,
    }
    choices |= {"recipe": recipe, "calibration": tuple(calibration or ())}
    if dry_run:
        result = tools.plan_conversion(src, **choices)
        text = result.table() + "\n"
    else:
        if out is None:
            raise InvalidArgumentError("OUT is missing: the file to write", code="invalid_argument")
        with progress_bar() as bar:
            result = tools.convert(
                src,
                out,
                work_dir=work_dir,
                stats_dir=stats_dir,
                n_threads=threads or 0,
                progress=lambda at: bar(
                    f"{at.stage} {at.tensor}", at.n_weights_done, at.n_weights_total
                ),
                **choices,
            )
        text = _summary(result)
    for warning in result.warnings:
        note(f"note: {warning}")
    if json:
        print_json("convert", result.to_dict())
    else:
        print_text(text)


def converters(name: str) -> ModuleType:
    """The offline tools, or a part of them; UnsupportedError names the package that is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("edgellm"):
            raise
        message = f"converting needs {error.name}: pip install 'edgellm[convert]'"
        raise UnsupportedError(message, code="feature_unsupported") from error


def _summary(report: Any) -> str:
    return (
        f"{visible_line(str(report.path))}: {report.n_weights:,} weights in "
        f"{report.n_bytes / 1e6:.2f} MB ({report.bits_per_weight:.3f} bits each), "
        f"{report.seconds:.1f} s\n"
    )
