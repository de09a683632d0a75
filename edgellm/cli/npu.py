"""`edgellm convert --target npu:...`: graphs of the model for an NPU, in a folder of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from ..errors import InvalidArgumentError
from ..sanitize import visible_line
from .output import print_json, print_text
from .progress import progress_bar

_CHOICES = (
    *("npu_context", "npu_buckets", "npu_rows", "npu_bits"),
    *("npu_embed", "npu_head", "npu_share"),
)
_PANEL = "Graphs for an NPU (docs/NPU.md)"
TargetOption = Annotated[
    str | None,
    typer.Option(
        help="npu:ort, npu:intel, npu:apple, npu:qualcomm-v75 ...: graphs beside OUT, too; of a "
        ".edge file of L4_32 or F16 alone, as the folder OUT.",
        rich_help_panel=_PANEL,
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(help="Tokens that the graphs take; default 512.", rich_help_panel=_PANEL),
]
BucketsOption = Annotated[
    list[int] | None,
    typer.Option(
        "--npu-buckets",
        help="A smaller context to make graphs for as well; may be given more than once.",
        rich_help_panel=_PANEL,
    ),
]
RowsOption = Annotated[
    list[int] | None,
    typer.Option(
        "--npu-rows",
        help="Tokens of a step to make graphs for: 1, and others; default 1, 4 and 64.",
        rich_help_panel=_PANEL,
    ),
]
BitsOption = Annotated[
    int | None,
    typer.Option(
        help="Of their weights: 4, 16 or 32; default 4, or as the .edge file.",
        rich_help_panel=_PANEL,
    ),
]


NpuHeadOption = Annotated[
    str | None,
    typer.Option(
        "--npu-head",
        help="Where logits are computed: npu or host; default as the target has it.",
        rich_help_panel=_PANEL,
    ),
]
NpuEmbedOption = Annotated[
    str | None,
    typer.Option(
        "--npu-embed",
        help="Where tokens become vectors: npu or host; default as the target has it.",
        rich_help_panel=_PANEL,
    ),
]


NpuShareOption = Annotated[
    bool | None,
    typer.Option(
        "--npu-share",
        help="Of npu:qualcomm-*: one context binary for all shapes, with the weights once.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]


def graph_choices(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of all options of the verb, those of graphs."""
    given = {name: options[name] for name in _CHOICES}
    return {
        name: (tuple(value) or None) if isinstance(value, list) else value
        for name, value in given.items()
    }


def check_choices(target: str | None, choices: Mapping[str, Any]) -> None:
    """Options of graphs need a target."""
    given = [name for name, value in choices.items() if value is not None]
    if target is None and given:
        raise InvalidArgumentError(
            f"--{given[0].replace('_', '-')}: only with --target", code="invalid_argument"
        )


def folder_beside(out: Path, target: str) -> Path:
    """Of `model.edge` and npu:ort: `model.npu-ort`."""
    return out.with_suffix("." + target.replace(":", "-"))


def add_graphs(
    tools: ModuleType,
    src: Path,
    folder: Path,
    target: str,
    against: Path | None,
    choices: Mapping[str, Any],
) -> Any:
    """The report of what was written. choices: by the names of the verb's options."""
    chosen = {name.removeprefix("npu_"): value for name, value in choices.items()}
    options = tools.NpuOptions(**{k: v for k, v in chosen.items() if v is not None})
    with progress_bar() as bar:
        return tools.export_npu(src, folder, target, options, against=against, progress=bar)


def show_graphs(report: Any, json: bool) -> None:
    if json:
        print_json("convert", {"npu": report.to_dict()})
    else:
        print_text(graphs_text(report))


def graphs_text(report: Any) -> str:
    """A line for each graph, and how far they are from the CPU runtime."""
    folder = visible_line(str(report.path))
    lines = [f"{folder}: {len(report.parts)} graphs in {report.n_bytes / 1e6:.2f} MB"]
    for part in report.parts:
        stages = f"{part.stages[0]} to {part.stages[-1]}"
        where = " on the host" if part.placement == "host" else ""
        n_mb = part.n_constant_bytes / 1e6
        lines.append(
            f"  {part.name}: {stages}{where}, {part.n_ops} operators, {n_mb:.2f} MB of constants"
        )
    n_ops = sum(part.n_ops for part in report.parts)
    n_covered = sum(part.n_ops for part in report.parts if part.placement == "npu")
    lines.append(f"  {n_covered} of {n_ops} operators are for {report.target.partition(':')[2]}")
    found = report.difference
    if found is None:
        lines.append("  not compared with the CPU runtime")
    else:
        lines.append(f"  {report.checked_by} against the CPU runtime, {found.n_tokens} tokens:")
        lines.append(
            f"  KL {found.kl_nats:.5f} nats, same top token {found.top1:.2%}, logits "
            f"{found.relative:.1e} of the largest apart ({found.norm:.1e} of all, as norms)"
        )
    return "\n".join(lines) + "\n"
