"""`edgellm compress`: a recipe of steps in, one file and its reports out, progress on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .convert import converters
from .flags import JsonFlag
from .output import note, print_json, print_text
from .progress import progress_bar


def command(
    recipe: Annotated[Path, typer.Argument(help="TOML: source, out, texts, steps.")],
    json: JsonFlag = False,
) -> None:
    """Interrupted, it goes on when it is called again. docs/COMPRESSION.md has a recipe."""
    tools = converters("edgellm.converters.compress")
    read = tools.read_compress_recipe(recipe)
    with progress_bar() as bar:
        report = tools.compress(read, progress=lambda at: bar(_doing(at), at.n_done, at.n_total))
    for warning in report.warnings:
        note(f"note: {warning}")
    if json:
        print_json("compress", report.to_dict())
    else:
        print_text(f"{report.out}: {report.n_bytes:,} bytes\n\n{report.to_markdown()}")


def _doing(at: Any) -> str:
    return f"{at.step}: {at.what}"
