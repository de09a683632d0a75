"""A conversion as a report for people: `edgellm convert --report FILE.md` or `FILE.html`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..durable import write_whole
from ..errors import InvalidArgumentError
from ..evaluation.report import SUFFIXES
from ..evaluation.report_render import (
    Block,
    Heading,
    Paragraph,
    Quote,
    Table,
    to_html,
    to_markdown,
)

_WEIGHTS_ONLY = (
    "Of the weights alone, activations in float32 on both sides; `edgellm eval` measures the "
    "runtime."
)
_NOT_MEASURED = (
    "Divergence, perplexity and samples were not measured: that takes text, --calibration FILE, "
    "with more windows than calibrate."
)


def check_report(path: Path) -> None:
    """InvalidArgumentError before the work, not after it."""
    if path.suffix not in SUFFIXES:
        raise InvalidArgumentError(
            f"{path}: a report is FILE.md or FILE.html", code="invalid_argument"
        )


def write_convert_report(report: Any, path: Path, allocation: Any = None) -> None:
    """report: a ConvertReport. allocation: what chose its formats, if something did."""
    check_report(path)
    blocks = list(_blocks(report, allocation))
    title = f"Conversion to {report.path.name}"
    write_whole(path, to_html(title, blocks) if path.suffix == ".html" else to_markdown(blocks))


def _blocks(report: Any, allocation: Any) -> Iterator[Block]:
    yield Heading(f"Conversion to {report.path.name}", 1)
    yield Table(("", "value"), tuple(_summary(report)))
    yield Heading("Quality")
    if report.quality is None:
        yield Paragraph(_NOT_MEASURED)
    else:
        yield Table(("on held-out text", "value"), tuple(quality_rows(report.to_dict())))
        yield Paragraph(_WEIGHTS_ONLY)
    if allocation is not None:
        yield Heading("Formats within the limit")
        rows = tuple(
            (f"{p.bits_per_weight:.3f}", f"{p.n_tensor_bytes / 1e6:.2f}", f"{p.kl:.6f}")
            for p in allocation.front
        )
        yield Table(("bits per weight", "MB", "KL, predicted"), rows)
    yield Heading("Bits per weight")
    parts = tuple((part, f"{bits:.3f}") for part, bits in report.bits_by_part.items())
    yield Table(("part", "bits"), (*parts, ("all", f"{report.bits_per_weight:.3f}")))
    yield Heading("Relative error of the weights")
    yield Table(("layer", "formats", "RMS, worst", "tensor"), tuple(_layer_rows(report)))
    yield from _samples(report)
    yield Heading("Recipe")
    yield Quote("As stored in the file", json.dumps(json.loads(report.recipe_json), indent=1))
    for warning in report.warnings:
        yield Paragraph(f"Note: {warning}")


def _summary(report: Any) -> Iterator[tuple[str, str]]:
    recipe = json.loads(report.recipe_json)
    yield "recipe", report.recipe_name
    yield "weights", f"{report.n_weights:,}"
    yield "bytes of tensors", f"{report.n_bytes:,}"
    yield "bits per weight", f"{report.bits_per_weight:.4f}"
    calibration = recipe.get("calibration")
    if calibration is None:
        yield "calibration", "none"
    else:
        yield (
            "calibration",
            f"{calibration['n_windows']} windows of {calibration['window_tokens']} tokens",
        )
        yield "SHA-256 of its tokens", calibration["sha256"]
    yield "time", f"{report.seconds:.1f} s"
    if report.peak_rss_bytes is not None:
        yield "peak memory of the process", f"{report.peak_rss_bytes / 1e6:.0f} MB"


def quality_rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """report: with "quality", as ConvertReport.to_dict() and the file's own report have it."""
    found = report["quality"]["divergence"]
    before, after = (math.exp(found[key]) for key in ("loss_before", "loss_after"))
    yield "KL(original, file)", f"{found['kl']:.6f} nats per token"
    yield "same top token", f"{100 * found['top1']:.2f} %"
    yield "perplexity", f"{before:.4f} before, {after:.4f} after"
    yield "tokens", f"{found['n_tokens']:,}"
    yield from _kv_rows(report["quality"].get("kv"))


def _kv_rows(kv: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Nothing of a file made before this was measured."""
    if kv is None or "balance_keys" not in kv:
        return
    for found in kv["formats"]:
        yield (
            f"KL(F16, {found['format']}) of the KV cache",
            f"{found['kl']:.6f} nats per token; keys balanced {found['kl_balanced_keys']:.6f}, "
            f"rotated {found['kl_rotated_keys']:.6f}, both {found['kl_both']:.6f}; "
            f"rotation of values changed {found['kl_other_values']:.6f}",
        )
    yield "keys are balanced", "yes" if kv["balance_keys"] else "no"
    yield "keys are rotated", "yes" if kv["rotate_keys"] else "no"
    yield "changing the rotation of values", "gains" if kv["values_gain"] else "no gain"


def _layer_rows(report: Any) -> Iterator[tuple[str, str, str, str]]:
    layers: dict[str, list[Any]] = {}
    for tensor in report.tensors:
        parts = tensor.name.split(".")
        layers.setdefault(parts[1] if parts[0] == "layers" else tensor.name, []).append(tensor)
    for layer, tensors in layers.items():
        worst = max(tensors, key=lambda tensor: tensor.rel_rms_error)
        formats = ", ".join(sorted({tensor.format for tensor in tensors}))
        yield layer, formats, f"{worst.rel_rms_error:.5f}", worst.name


def _samples(report: Any) -> Iterator[Block]:
    if report.quality is None:
        return
    yield Heading("Samples, greedy")
    if report.quality.note is not None:
        yield Paragraph(report.quality.note)
    for number, sample in enumerate(report.quality.samples, start=1):
        yield Quote(f"{number}: prompt", sample.prompt)
        same = sample.before == sample.after
        yield Quote(f"{number}: original{', and file' if same else ''}", sample.before)
        if not same:
            yield Quote(f"{number}: file", sample.after)
