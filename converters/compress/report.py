"""What a compression did, step by step: for programs as JSON, for people as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..export.whole import whole_files

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StepReport:
    """A model on its way; the first is the source. n_bytes: of its weights, or of the .edge file.
    kl: KL(source || model), nats per token; None without text, and where tokens are not the
    source's. seconds: of all attempts. was_done: before this call."""

    name: str
    n_bytes: int
    kl: float | None
    top1: float | None
    loss: float | None
    tokens: int
    seconds: float
    was_done: bool
    key: str
    figures: dict[str, Any]

    @property
    def perplexity(self) -> float | None:
        return None if self.loss is None else math.exp(self.loss)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "perplexity": self.perplexity}


@dataclass(frozen=True)
class CompressReport:
    """The result of compress(). steps: the source, then a step each. n_tokens_measured: of the
    held-out text, 0 without any."""

    name: str
    out: Path
    steps: tuple[StepReport, ...]
    n_tokens_measured: int
    warnings: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        return self.steps[-1].n_bytes

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        value = {**asdict(self), "out": str(self.out), "schema_version": SCHEMA_VERSION}
        value["steps"] = [step.to_dict() for step in self.steps]
        return {**value, "n_bytes": self.n_bytes, "seconds": self.seconds}

    def to_markdown(self) -> str:
        return "\n".join(_lines(self)) + "\n"


def report_paths(out: Path) -> tuple[Path, Path]:
    """Where the reports of a file stand: JSON, Markdown."""
    return out.with_suffix(".report.json"), out.with_suffix(".report.md")


def write_reports(report: CompressReport) -> None:
    """Both, whole or not at all."""
    as_json, as_markdown = report_paths(report.out)
    with whole_files(as_json, as_markdown) as folder:
        text = json.dumps(report.to_dict(), indent=1) + "\n"
        (folder / as_json.name).write_text(text, encoding="utf-8")
        (folder / as_markdown.name).write_text(report.to_markdown(), encoding="utf-8")


def _lines(report: CompressReport) -> Iterator[str]:
    yield f"# {_cell(report.name)}"
    yield ""
    yield "| after | MB | KL from the source | same top token | perplexity | tokens | minutes |"
    yield "|---|---|---|---|---|---|---|"
    for step in report.steps:
        cells = [_cell(step.name), f"{step.n_bytes / 1e6:.3f}", _number(step.kl, ".5f")]
        top1 = None if step.top1 is None else 100 * step.top1
        cells += [_number(top1, ".2f", " %"), _number(step.perplexity, ".3f")]
        cells += [f"{step.tokens:,}", f"{step.seconds / 60:.2f}"]
        yield f"| {' | '.join(cells)} |"
    yield ""
    if report.n_tokens_measured:
        yield (
            f"Measured on {report.n_tokens_measured:,} held-out tokens, with the weights and int8 "
            "activations of the runtime; KL in nats per token."
        )
    else:
        yield "Nothing was measured: the recipe names no text for it ([texts] valid)."
    for step in report.steps:
        for name, value in step.figures.items():
            yield f"\n* {_cell(step.name)}, {_cell(name)}: `{_cell(json.dumps(value))}`"
    for warning in report.warnings:
        yield f"\nNote: {_cell(warning)}"


def _number(value: float | None, format: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{format}}{unit}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())
