"""`edgellm train`: a recipe in, a checkpoint or a refined file out, progress on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InvalidArgumentError
from ..sanitize import visible_line
from .convert import converters
from .flags import JsonFlag
from .output import note, print_json, print_text
from .progress import progress_bar

_PLOTS = (".svg", ".png")


def command(
    recipe: Annotated[Path, typer.Argument(help="TOML: student, teacher, texts, loss, steps.")],
    plot: Annotated[
        Path | None, typer.Option(help="Draw the losses by kind of text, as FILE.svg or FILE.png.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Interrupted, it goes on when it is called again. docs/TRAINING.md has recipes."""
    if plot is not None and plot.suffix not in _PLOTS:
        message = f"{plot}: a plot is FILE.svg or FILE.png"
        raise InvalidArgumentError(message, code="invalid_argument")
    tools = converters("edgellm.converters.distill")
    read = tools.read_train_recipe(recipe)
    with progress_bar() as bar:
        report = tools.train(read, progress=lambda at: bar(_doing(at), at.n_done, at.n_total))
    if plot is not None:
        from ..evaluation.plots import curve_image

        lines = tools.read_curve(read.work_dir)
        plot.write_bytes(curve_image(lines, plot.suffix[1:]))
        note(f"plot: {plot}")
    for warning in report.warnings:
        note(f"note: {warning}")
    if json:
        print_json("train", report.to_dict())
    else:
        print_text(_summary(report))


def _doing(at: Any) -> str:
    return "teacher's tokens" if at.loss is None else f"step, loss {at.loss:.4f}"


def _summary(report: Any) -> str:
    text = (
        f"{visible_line(str(report.out))}: {report.steps:,} steps now, {report.n_tokens:,} tokens "
        f"in all, loss {report.loss:.4f}, {report.seconds:.1f} s\n"
    )
    if report.before is None:
        return text
    before, after = report.before, report.after
    text += f"on valid text: loss {before.loss_after:.4f} before, {after.loss_after:.4f} after"
    if before.kl or after.kl:
        text += f"; KL from the teacher {before.kl:.5f} before, {after.kl:.5f} after"
    return text + "\n"
