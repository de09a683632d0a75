"""`edgellm convert`: a checkpoint or a GGUF file in, one compact file out, progress on stderr; with
`--base` a PEFT directory in, one adapter file out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from ..errors import InvalidArgumentError, UnsupportedError
from ..locate import find, resolve
from .allocate import (
    CacheDirOption,
    MaxKlOption,
    MaxSizeOption,
    MethodOption,
    PassesOption,
    PlotOption,
    SaveRecipeOption,
    TargetBpwOption,
    Wishes,
    limit_of,
    refuse_others,
    shown_on,
    summary,
)
from .convert_plan import ShownPlan
from .flags import JsonFlag, ThreadsOption
from .npu import (
    BitsOption,
    BucketsOption,
    ContextOption,
    NpuEmbedOption,
    NpuHeadOption,
    NpuShareOption,
    RowsOption,
    TargetOption,
    add_graphs,
    check_choices,
    folder_beside,
    graph_choices,
    graphs_text,
    show_graphs,
)
from .output import note, print_json, print_text
from .progress import progress_bar
from .self_draft import DraftTextOption, SelfDraftOption, add_head, show

FormatOption = Annotated[
    str | None,
    typer.Option(
        help="Of all weights: E2_16 to E8_32, K4_32, L4_32, L8_32, F16; default: E4_32 to E6_16"
    ),
]
EmbedOption = Annotated[str | None, typer.Option(help="Of the embedding; default: as the others.")]
HeadOption = Annotated[str | None, typer.Option(help="Of the output head; default: as the others.")]
RecipeOption = Annotated[
    Path | None, typer.Option(help="TOML: format and method per tensor; instead of the above.")
]
CalibrationOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="<path>",
        help="Text, .jsonl, .edge (its own text) or builtin, to quantize on; repeatable.",
    ),
]
WorkDirOption = Annotated[
    Path | None,
    typer.Option(help="Keep what calibration has done here; default: OUT.work, removed."),
]
StatsDirOption = Annotated[
    Path | None, typer.Option(help="Keep what calibration measures here, for other recipes.")
]
ReportOption = Annotated[
    Path | None,
    typer.Option(help="Write what was done, with figures and samples, as FILE.md or FILE.html."),
]
BaseOption = Annotated[
    Path | None,
    typer.Option(help="SRC is a PEFT adapter directory, for this .edge model."),
]


def command(
    src: Annotated[
        Path,
        typer.Argument(
            help="Directory with config.json and *.safetensors, or a .gguf file; with --dry-run "
            "config.json will do."
        ),
    ],
    out: Annotated[
        Path | None, typer.Argument(help="The .edge file to write; not needed with --dry-run.")
    ] = None,
    format: FormatOption = None,
    embed_format: EmbedOption = None,
    head_format: HeadOption = None,
    recipe: RecipeOption = None,
    calibration: CalibrationOption = None,
    work_dir: WorkDirOption = None,
    stats_dir: StatsDirOption = None,
    target_bpw: TargetBpwOption = None,
    max_size: MaxSizeOption = None,
    max_kl: MaxKlOption = None,
    method: MethodOption = None,
    passes: PassesOption = None,
    save_recipe: SaveRecipeOption = None,
    plot: PlotOption = None,
    cache_dir: CacheDirOption = None,
    report: ReportOption = None,
    base: BaseOption = None,
    target: TargetOption = None,
    npu_context: ContextOption = None,
    npu_buckets: BucketsOption = None,
    npu_rows: RowsOption = None,
    npu_bits: BitsOption = None,
    npu_embed: NpuEmbedOption = None,
    npu_head: NpuHeadOption = None,
    npu_share: NpuShareOption = None,
    self_draft: SelfDraftOption = False,
    draft_text: DraftTextOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")
    ] = False,
    threads: ThreadsOption = None,
    json: JsonFlag = False,
) -> None:
    """The file appears whole or not at all: Ctrl-C and errors leave nothing behind."""
    if not dry_run and out is None:
        raise InvalidArgumentError("OUT is missing: the file to write", code="invalid_argument")
    if base is not None:
        _adapter(src, out, base, json, locals())
        return
    check_choices(target, graph_choices(locals()))
    if target is not None and src.suffix == ".edge" and not self_draft:
        _graphs_alone(src, out, target, json, locals())
        return
    if target is not None and dry_run:
        refuse_others({"target": target}, "a dry run writes no graphs")
    if not self_draft:
        refuse_others({"draft_text": draft_text}, "only with --self-draft")
    elif dry_run:
        refuse_others({"self_draft": self_draft}, "a dry run trains nothing")
    elif src.suffix == ".edge":
        _head_alone(src, out, json, locals())
        return
    _check_not_adapter(src)
    tools = converters("edgellm.converters")
    src = _cached(src)
    out = None if dry_run else out
    if report is not None:
        _check_report(report, dry_run)
    own: dict[str, Any] = {"format": format, "embed_format": embed_format}
    own |= {"head_format": head_format, "recipe": recipe}
    folders = {"work_dir": work_dir, "stats_dir": stats_dir}
    texts = tuple(
        tools.BUILTIN_TEXT if text == Path("builtin") else text for text in calibration or ()
    )
    wishes = Wishes(method, passes, save_recipe, plot, cache_dir)
    limit = limit_of(tools, target_bpw, max_size, max_kl)
    if limit is not None:
        refuse_others(own | folders, "a limit chooses the formats itself")
        texts = texts or (tools.BUILTIN_TEXT,)
        result, text = wishes.run(tools, src, out, limit, texts, threads or 0)
    else:
        refuse_others(vars(wishes), "only with --target-bpw, --max-size or --max-kl")
        own["calibration"] = texts
        result, text = _plain(tools, src, out, own, folders, threads or 0)
    if report is not None:
        _write_report(result, report)
    for warning in result.warnings:
        note(f"note: {warning}")
    head = None
    if self_draft and out is not None:
        heads = converters("edgellm.converters.draft_head")
        head = add_head(heads, out, out, draft_text, None, threads or 0)
    graphs = None
    if target is not None and out is not None:
        npu, folder = converters("edgellm.converters.npu"), folder_beside(out, target)
        graphs = add_graphs(npu, src, folder, target, out, graph_choices(locals()))
    if json:
        extra = {} if head is None else {"draft_head": head.to_dict()}
        extra |= {} if graphs is None else {"npu": graphs.to_dict()}
        print_json("convert", {**result.to_dict(), **extra})
        return
    print_text(text)
    if head is not None:
        show(head, json=False)
    if graphs is not None:
        print_text(graphs_text(graphs))


def _head_alone(src: Path, out: Path | None, json: bool, options: Mapping[str, Any]) -> None:
    own = ("src", "out", "json", "self_draft", "draft_text", "work_dir", "threads")
    refuse_others(
        {name: value for name, value in options.items() if name not in own},
        "has no effect where SRC is a .edge file: only a draft head is added",
    )
    assert out is not None  # without --dry-run
    heads = converters("edgellm.converters.draft_head")
    work, n_threads = options["work_dir"], options["threads"] or 0
    show(add_head(heads, resolve(src), out, options["draft_text"], work, n_threads), json)


def _graphs_alone(
    src: Path, out: Path | None, target: str, json: bool, options: Mapping[str, Any]
) -> None:
    choices = graph_choices(options)
    own = ("src", "out", "json", "target", *choices)
    refuse_others(
        {name: value for name, value in options.items() if name not in own},
        "has no effect where SRC is a .edge file: only graphs are written",
    )
    assert out is not None  # without --dry-run
    npu, path = converters("edgellm.converters.npu"), resolve(src)
    show_graphs(add_graphs(npu, path, out, target, path, choices), json)


def _adapter(
    src: Path, out: Path | None, base: Path, json: bool, options: Mapping[str, object]
) -> None:
    own = ("src", "out", "base", "json")
    refuse_others(
        {name: value for name, value in options.items() if name not in own},
        "has no effect with --base: an adapter's matrices are F16",
    )
    assert out is not None  # without --dry-run
    result = converters("edgellm.converters.adapter").convert_adapter(src, out, base=resolve(base))
    if json:
        print_json("convert", result.to_dict())
    else:
        print_text(
            f"{out}: {result.n_bytes / 2**20:.1f} MiB, {result.n_matrices} matrices of rank "
            f"{result.rank} or less, {result.n_parameters} parameters\n"
        )


def _check_not_adapter(src: Path) -> None:
    if (src / "adapter_config.json").is_file() and not (src / "config.json").exists():
        message = f"{src}: is a PEFT adapter; name the model it is for: --base MODEL.edge"
        raise InvalidArgumentError(message, code="invalid_argument")


def _cached(src: Path) -> Path:
    """The checkpoint that a name means; what is no such name stays what it is."""
    found = find(str(src))
    if found.is_source and found.path != src:
        note(f"note: {src} is {found.path}")
        return found.path
    return src


def _check_report(path: Path, dry_run: bool) -> None:
    from .convert_report import check_report

    if dry_run:
        refuse_others({"report": path}, "a dry run converts nothing to report on")
    check_report(path)


def _write_report(result: Any, path: Path) -> None:
    from .convert_report import write_convert_report

    allocation = result if hasattr(result, "conversion") else None
    write_convert_report(result if allocation is None else result.conversion, path, allocation)
    note(f"report: {path}")


def _plain(
    tools: ModuleType,
    src: Path,
    out: Path | None,
    choices: dict[str, Any],
    folders: dict[str, Path | None],
    n_threads: int,
) -> tuple[Any, str]:
    if out is None:
        plan = ShownPlan(tools.plan_conversion(src, **choices))
        return plan, plan.text()
    with progress_bar() as bar:
        result = tools.convert(
            src, out, n_threads=n_threads, progress=shown_on(bar), **folders, **choices
        )
    return result, summary(result)


def converters(name: str) -> ModuleType:
    """The offline tools, or a part of them; UnsupportedError names the package that is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("edgellm"):
            raise
        message = f"converting needs {error.name}: pip install 'edgellm[convert]'"
        raise UnsupportedError(message, code="feature_unsupported") from error
