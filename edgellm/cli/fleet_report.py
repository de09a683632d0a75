"""A build as reports for people and programs: OUT.report.json, .md and .html."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..durable import write_whole
from ..errors import UnsupportedError
from ..evaluation.report_render import (
    Block,
    Heading,
    Paragraph,
    Plot,
    Table,
    to_html,
    to_markdown,
)

_HEAD = ("device", "model", "recipe", "", "MiB", "memory MiB", "tokens/s", "KL", "same top token")
_NOTES = (
    "KL: from the source, nats per token, on held-out text, weights and int8 activations as the "
    "runtime has them. Tokens/s: predicted from the device's memory bandwidth, a bound from above. "
    "Memory: planned for the device's context. * is what a device gets where it fits."
)


def write_fleet_reports(report: Any) -> list[Path]:
    """report: a FleetReport. Their paths; FormatError where one cannot be written."""
    stem = report.out.with_name(report.out.name + ".report")
    title = f"Fleet {report.name} {report.version}"
    blocks = list(_blocks(report, title))
    texts = {
        ".json": json.dumps(report.to_dict(), indent=1) + "\n",
        ".md": to_markdown(blocks),
        ".html": to_html(title, [*blocks, *_plots(report)]),
    }
    paths = [stem.with_name(stem.name + suffix) for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_whole(path, text)
    return paths


def summary(report: Any) -> str:
    """A few lines for the terminal."""
    counted: dict[str, int] = {}
    for one in report.variants:
        counted[one.state] = counted.get(one.state, 0) + 1
    variants = ", ".join(f"{n} {state}" for state, n in counted.items())
    before = sum(one.was_done for one in report.outcomes)
    steps = f"{len(report.outcomes)} steps, {before} of them done before"
    where = "nothing was written" if report.index is None else str(report.index)
    return f"{where}\nvariants: {variants}\n{steps}; {report.seconds:.1f} s\n"


def _blocks(report: Any, title: str) -> Iterator[Block]:
    yield Heading(title, 1)
    yield Table(_HEAD, tuple(_row(one) for one in report.variants))
    yield Paragraph(_NOTES)
    reasons = [one for one in report.variants if one.reason]
    if reasons:
        yield Heading("Not shipped")
        rows = tuple((f"{one.device}, {one.model}, {one.recipe}", one.reason) for one in reasons)
        yield Table(("variant", "why"), rows)
    yield Heading("Steps")
    head = ("step", "", "s", "estimated s", "peak MiB", "estimated MiB", "digest")
    yield Table(head, tuple(_step_row(one) for one in report.to_dict()["steps"]))
    yield Paragraph(
        f"{len(report.outcomes)} steps; every device on its own would be "
        f"{report.n_without_sharing}."
    )


def _row(one: Any) -> tuple[str, ...]:
    state = f"{one.state} *" if one.is_first else one.state
    figures = (
        _number(one.n_bytes / 2**20 or None, ".2f"),
        _number(one.memory_bytes / 2**20 or None, ".1f"),
        _number(one.tokens_per_s, ".1f"),
        _number(one.kl, ".5f"),
        _number(None if one.top1 is None else 100 * one.top1, ".2f"),
    )
    return (one.device, one.model, one.recipe, state, *figures)


def _step_row(one: dict[str, Any]) -> tuple[str, ...]:
    peak = one["peak_rss_bytes"]
    return (
        one["label"],
        "done before" if one["was_done"] else one["state"],
        f"{one['seconds']:.1f}",
        f"{one['estimated_seconds']:.1f}",
        _number(None if peak is None else peak / 2**20, ".0f"),
        f"{one['estimated_memory_bytes'] / 2**20:.0f}",
        one["digest"][:12],
    )


def _plots(report: Any) -> Iterator[Block]:
    """Size against quality, every file once; models by number, as texts of others are no markup."""
    files = {one.sha256: one for one in report.variants if one.kl is not None and one.sha256}
    if not files:
        yield Paragraph("No plot: the manifest names no text to measure on ([texts] valid).")
        return
    names = sorted({one.model for one in files.values()})
    points = [
        (one.n_bytes / 2**20, one.kl, f"model {names.index(one.model) + 1}")
        for one in files.values()
    ]
    from ..evaluation.plots import fleet_svg

    try:
        numbered = "; ".join(f"model {at}: {name}" for at, name in enumerate(names, 1))
        yield Plot(f"Size and divergence of every file. {numbered}", fleet_svg(points))
    except UnsupportedError as error:
        yield Paragraph(f"The plot is left out: {error.message}")


def _number(value: float | None, format: str) -> str:
    return "-" if value is None else f"{value:{format}}"
