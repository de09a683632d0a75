"""What `edgellm convert --self-draft` does: a draft head in the file, and what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..sanitize import visible_line
from .output import print_json, print_text
from .progress import progress_bar

SelfDraftOption = Annotated[
    bool,
    typer.Option(
        "--self-draft",
        help="Train a draft head on the model's own text and keep it in the file; SRC may be a "
        ".edge file.",
    ),
]
DraftTextOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="<path>",
        help="With --self-draft: text, .jsonl or .jsonl.xz by which own text begins; repeatable.",
    ),
]


def add_head(
    tools: Any, edge: Path, out: Path, texts: list[Path] | None, work: Path | None, n_threads: int
) -> Any:
    """tools: converters.draft_head. work: default OUT.draft-work, removed in the end; a run that is
    interrupted goes on there."""
    import shutil

    own = work or out.with_name(out.name + ".draft-work")
    with progress_bar() as bar:
        report = tools.add_draft_head(
            edge,
            out,
            tools.DraftHeadOptions(),
            texts=texts or [],
            work=own,
            n_threads=n_threads,
            progress=bar,
        )
    if work is None:
        shutil.rmtree(own, ignore_errors=True)
    return report


def show(report: Any, json: bool) -> None:
    if json:
        print_json("convert", {"draft_head": report.to_dict()})
        return
    print_text(
        f"{visible_line(str(report.out))}: draft head of {report.vocab} tokens, width "
        f"{report.d_ffn}, {report.format}: {report.n_bytes / 2**20:.2f} MiB, {report.layers:.2f} "
        f"layers of the model, {100 * report.step_share:.1f} % of what a token reads\n"
    )
    for name, depths in (("texts", report.text), ("its own text", report.own)):
        for at, one in enumerate(depths, start=1):
            print_text(
                f"on {name}, {at} ahead: {100 * one.greedy:.1f} % of the likeliest tokens, "
                f"{100 * one.sampled:.1f} % at temperature 1\n"
            )
