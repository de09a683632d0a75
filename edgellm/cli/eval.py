"""`edgellm eval`: how good a model is, and how far from another; results on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidArgumentError
from .defaults import MaxMemoryOption, size_bytes
from .eval_tables import print_texts
from .output import JsonFlag, ThreadsOption, print_json
from .progress import progress_bar

if TYPE_CHECKING:
    from ..evaluation import WindowRule

_DEFAULT_N_CTX = 512


def command(
    model: Annotated[str, typer.Argument(help="A .edge file, or demo for the built-in model.")],
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="UTF-8 text to score; repeat for several.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Compare with this .edge file, or with .logits that --save-logits made."),
    ] = None,
    save_logits: Annotated[
        Path | None, typer.Option(help="Write MODEL's log probabilities to this .logits file.")
    ] = None,
    n_ctx: Annotated[
        int | None, typer.Option(help="Tokens of a window; the second half is scored.")
    ] = None,
    max_tokens_scored: Annotated[
        int | None, typer.Option(help="Of each text; rounded up to whole windows.", min=1)
    ] = None,
    threads: ThreadsOption = None,
    max_memory: MaxMemoryOption = None,
    json: JsonFlag = False,
) -> None:
    """Perplexity of texts; against another model also KL divergence and agreement."""
    from ..evaluation import EvaluatedModel, Reference, evaluate_texts, read_text, windows_for

    limit_bytes = size_bytes(max_memory, "--max-memory")
    rule = _rule(n_ctx, max_tokens_scored)
    texts = [read_text(path) for path in text or []]
    if not texts and (against is None or not against.endswith(".logits")):
        message = "nothing to judge by: give --text FILE, or --against FILE.logits"
        raise InvalidArgumentError(message, code="invalid_argument")
    reference = None if against is None else Reference(against, threads=threads)
    with EvaluatedModel(model, threads=threads, max_memory=limit_bytes) as loaded:
        windows = windows_for(loaded, texts, rule, reference.file if reference else None)
        with progress_bar() as show:
            found = evaluate_texts(loaded, windows, reference, save_to=save_logits, progress=show)
    if json:
        print_json("eval", found.to_dict())
    else:
        print_texts(found)


def _rule(n_ctx: int | None, max_tokens_scored: int | None) -> WindowRule | None:
    from ..evaluation import WindowRule

    if n_ctx is None and max_tokens_scored is None:
        return None
    return WindowRule(n_ctx or _DEFAULT_N_CTX, max_scored_tokens=max_tokens_scored)
