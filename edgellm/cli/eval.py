"""`edgellm eval`: how good a model is, how far from another, and whether it may be released.

Results go to stdout, progress to stderr. What is measured and how stands in docs/EVALUATION.md.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FormatError, InvalidArgumentError
from ..locate import DEMO
from ..options import EVALUATION_KV
from .defaults import RequireSignatureOption
from .eval_tables import print_evaluation
from .exits import Exit
from .flags import JsonFlag, ThreadsOption
from .output import note, print_json
from .progress import progress_bar
from .stored import model_file

if TYPE_CHECKING:
    from ..evaluation import Evaluation, Limits, Question, WindowRule

_DEFAULT_N_CTX = 512
_DEFAULT_MAX_PPL_INCREASE = "1%"
_SHARE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*(%?)")
_GATE = "Release gate (with --compare)"


def command(
    models: Annotated[
        list[str], typer.Argument(help="A file, or a name in the store; with --compare: OLD NEW.")
    ],
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="UTF-8 text to score; repeat for several.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Measure next to this model, or .logits of --save-logits."),
    ] = None,
    save_logits: Annotated[
        Path | None, typer.Option(help="Write what the model says of the texts to this .logits.")
    ] = None,
    questions: Annotated[
        list[Path] | None, typer.Option("--questions", help="Golden set, JSON lines; repeat.")
    ] = None,
    n_ctx: Annotated[
        int | None, typer.Option(help="Tokens of a window; the second half is scored. Default 512.")
    ] = None,
    max_tokens_scored: Annotated[
        int | None, typer.Option(help="Of each text; rounded up to whole windows.", min=1)
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a report: FILE.md or FILE.html.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Judge NEW next to OLD; exit code 9 if it fails.")
    ] = False,
    max_ppl_increase: Annotated[
        str | None,
        typer.Option(help="1% or 0.01. Default: 1% if no limit is given.", rich_help_panel=_GATE),
    ] = None,
    max_kl: Annotated[
        float | None, typer.Option(help="Mean KL(old || new), nats.", rich_help_panel=_GATE)
    ] = None,
    min_top1: Annotated[
        str | None, typer.Option(help="Share of equal top tokens: 95%.", rich_help_panel=_GATE)
    ] = None,
    max_flips: Annotated[
        str | None, typer.Option(help="Share of answers that change: 2%.", rich_help_panel=_GATE)
    ] = None,
    max_accuracy_drop: Annotated[
        str | None, typer.Option(help="Old - new share of right answers.", rich_help_panel=_GATE)
    ] = None,
    certain: Annotated[
        bool,
        typer.Option(
            "--certain", help="The whole 95 % interval must be within.", rich_help_panel=_GATE
        ),
    ] = False,
    threads: ThreadsOption = None,
    kv: Annotated[
        str | None,
        typer.Option(help="Keys and values of the model, not of what it is held to. Default: F16."),
    ] = None,
    require_signature: RequireSignatureOption = None,
    json: JsonFlag = False,
) -> None:
    """Perplexity and golden questions; next to another model also KL divergence and flips."""
    limits = _limits(max_ppl_increase, max_kl, min_top1, max_flips, max_accuracy_drop, certain)
    name, against = _names(models, against, compare, save_logits, limits)
    if compare:
        saved = against is not None and against.endswith(".logits")
        limits = _with_default(limits, bool(text) or saved, bool(questions) and not saved)
    _check_report(report)
    found = _evaluate(
        name,
        against,
        texts=text or [],
        rule=_rule(n_ctx, max_tokens_scored),
        questions=_questions(questions or []),
        limits=limits if compare else None,
        save_logits=save_logits,
        threads=threads,
        kv=kv or EVALUATION_KV,
        require_signature=require_signature,
    )
    if report is not None:
        from ..evaluation.report import write_report

        for left_out in write_report(found, report):
            note(f"note: {left_out}")
    if json:
        print_json("eval", found.to_dict())
    else:
        print_evaluation(found)
    if found.verdict is not None and not found.verdict.passed:
        raise typer.Exit(Exit.GATE_FAILED)


def _evaluate(
    name: str,
    against: str | None,
    *,
    texts: list[Path],
    rule: WindowRule | None,
    questions: list[Question],
    limits: Limits | None,
    save_logits: Path | None,
    threads: int | None,
    kv: str,
    require_signature: str | None,
) -> Evaluation:
    from ..evaluation import EvaluatedModel, Reference, evaluate, read_text, windows_for

    contents = [read_text(path) for path in texts]
    with ExitStack() as stack:
        reference = file = None
        if against is not None:
            path, shown = _file_of(against)
            reference = stack.enter_context(
                Reference(path, threads=threads, name=shown, require_signature=require_signature)
            )
            file = reference.file
        if not contents and file is None and not questions:
            raise _usage("nothing to judge by: give --text FILE or --questions FILE")
        has_windows = bool(contents) or file is not None
        if not has_windows and (save_logits is not None or rule is not None):
            raise _usage("--save-logits, --n-ctx and --max-tokens-scored need --text FILE")
        path, shown = _file_of(name)
        model = stack.enter_context(
            EvaluatedModel(
                path, threads=threads, kv=kv, name=shown, require_signature=require_signature
            )
        )
        windows = windows_for(model, contents, rule, file) if has_windows else []
        show = stack.enter_context(progress_bar())
        return evaluate(
            model,
            windows=windows,
            questions=questions,
            reference=reference,
            limits=limits,
            save_to=save_logits,
            progress=show,
        )


def _file_of(name: str) -> tuple[Path, str | None]:
    """The file to load, and what reports call it where that is not the file's own name."""
    if name.endswith(".logits"):
        return Path(name), None
    path = model_file(name)
    return path, None if path.name == Path(name).name or name == DEMO else name


def _names(
    models: list[str],
    against: str | None,
    compare: bool,
    save_logits: Path | None,
    limits: Limits,
) -> tuple[str, str | None]:
    """The model to judge and what to lay beside it."""
    if not compare:
        if len(models) != 1:
            raise _usage(f"{len(models)} models; give one, or --compare OLD NEW")
        if limits.need_text or limits.need_questions or limits.certain:
            raise _usage("limits are for the release gate: edgellm eval --compare OLD NEW ...")
        return models[0], against
    if len(models) != 2:
        raise _usage(f"--compare takes two models, OLD and NEW, not {len(models)}")
    if against is not None or save_logits is not None:
        raise _usage("--compare already lays NEW against OLD; leave --against and --save-logits")
    return models[1], models[0]


def _limits(
    max_ppl_increase: str | None,
    max_kl: float | None,
    min_top1: str | None,
    max_flips: str | None,
    max_accuracy_drop: str | None,
    certain: bool,
) -> Limits:
    from ..evaluation import Limits

    if max_kl is not None and not 0 <= max_kl < float("inf"):
        raise _usage(f"--max-kl must be 0 or more, but is {max_kl}")
    return Limits(
        max_ppl_increase=_share(max_ppl_increase, "--max-ppl-increase"),
        max_kl=max_kl,
        min_top1=_share(min_top1, "--min-top1"),
        max_flips=_share(max_flips, "--max-flips"),
        max_accuracy_drop=_share(max_accuracy_drop, "--max-accuracy-drop"),
        certain=certain,
    )


def _with_default(limits: Limits, has_text: bool, has_questions: bool) -> Limits:
    """Known before any work: what is asked, and that there is something to answer it with."""
    if limits.need_text and not has_text:
        raise _usage("limits on perplexity, KL and top-1 need --text FILE or saved logits as OLD")
    if limits.need_questions and not has_questions:
        raise _usage("limits on flips and accuracy need --questions FILE and a model as OLD")
    if limits.need_text or limits.need_questions:
        return limits
    if not has_text:
        raise _usage("a gate needs --text FILE, or --questions FILE and --max-flips")
    default = _share(_DEFAULT_MAX_PPL_INCREASE, "--max-ppl-increase")
    return replace(limits, max_ppl_increase=default)


def _share(text: str | None, option: str) -> float | None:
    """ "1%" and "0.01" as 0.01."""
    if text is None:
        return None
    match = _SHARE.fullmatch(text.strip())
    if match is None:
        raise _usage(f"{option} is {text!r}; write a share such as 1% or 0.01")
    return float(match[1]) / (100 if match[2] else 1)


def _rule(n_ctx: int | None, max_tokens_scored: int | None) -> WindowRule | None:
    from ..evaluation import WindowRule

    if n_ctx is None and max_tokens_scored is None:
        return None
    n_ctx = _DEFAULT_N_CTX if n_ctx is None else n_ctx
    return WindowRule(n_ctx, max_scored_tokens=max_tokens_scored)


def _questions(paths: list[Path]) -> list[Question]:
    from ..evaluation import read_questions

    questions: list[Question] = []
    for path in paths:
        questions += read_questions(path)
    ids = {question.id for question in questions}
    if len(ids) != len(questions):
        raise _usage("two --questions files share an id; make the ids different")
    return questions


def _check_report(path: Path | None) -> None:
    """Before the work, not after it."""
    if path is None:
        return
    if path.suffix not in (".md", ".html"):
        raise _usage(f"--report {path}: a report is FILE.md or FILE.html")
    if not path.parent.is_dir():
        message = f"--report {path}: there is no folder {path.parent}"
        raise FormatError(message, "file_write_failed")


def _usage(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, code="invalid_argument")
