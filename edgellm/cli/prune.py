"""`edgellm prune`: a recipe in, a smaller checkpoint out, with what that will give said before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..sanitize import visible_line
from .convert import converters
from .flags import JsonFlag, ThreadsOption
from .output import note, print_json, print_text
from .progress import progress_bar


def command(
    recipe: Annotated[Path, typer.Argument(help="TOML: source, out, texts and what is to go.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go and what it gives; write nothing.")
    ] = False,
    threads: ThreadsOption = None,
    json: JsonFlag = False,
) -> None:
    """What is left is a checkpoint, to be healed by `edgellm train`. docs/COMPRESSION.md has a
    recipe."""
    tools = converters("edgellm.converters.prune")
    read = tools.read_prune_recipe(recipe)
    with progress_bar() as bar:
        options: dict[str, Any] = {
            "texts": read.texts,
            "n_threads": threads or 0,
            "predict_options": read.predict,
            "progress": bar,
        }
        report = (
            tools.predict(read.source, read.prune, **options)
            if dry_run
            else tools.prune(read.source, read.out, read.prune, **options)
        )
    for warning in report.warnings:
        note(f"note: {warning}")
    if json:
        print_json("prune", report.to_dict())
    else:
        print_text(_summary(report))


def _summary(report: Any) -> str:
    where = "nothing written" if report.out is None else visible_line(str(report.out))
    lines = [where]
    if report.layers_gone:
        gone = ", ".join(f"{index} ({score:.4f})" for index, score in report.layers_gone)
        lines.append(f"layers gone, in this order: {gone}")
    lines += [_layer(layer) for layer in report.cut.layers]
    if report.cut.tokens is not None:
        lines.append(
            f"vocabulary: {len(report.cut.tokens):,} tokens, {100 * report.coverage:.2f} % of the "
            "text's"
        )
    if report.divergence is not None:
        lines.append(f"KL from the source, of the layers that went: {report.divergence.kl:.4f}")
    before, after = report.predicted.before, report.predicted.after
    for name in ("n_weights", "file_bytes", "bytes_per_token"):
        then, now = getattr(before, name), getattr(after, name)
        lines.append(f"{name.replace('_', ' ')}: {then:,} -> {now:,} ({100 * now / then:.1f} %)")
    lines.append(f"tokens per second: {before.tokens_per_s:,.0f} -> {after.tokens_per_s:,.0f}")
    return "\n".join([*lines, f"predicted for {report.predicted.basis}"]) + "\n"


def _layer(layer: Any) -> str:
    channels = "all" if layer.channels is None else f"{len(layer.channels):,}"
    return (
        f"layer {layer.index}: {len(layer.heads)} heads, {len(layer.kv_heads)} key heads, "
        f"{channels} channels"
    )
