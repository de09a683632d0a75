"""`edgellm run`: continue a prompt, text to stdout as it comes, timings to stderr."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from ..errors import ContextOverflowError, InvalidArgumentError
from ..model import Model, load
from ..results import Stats
from .defaults import MaxMemoryOption, model_and_prompt, size_bytes
from .output import JsonFlag, ThreadsOption, note, print_json, print_text

_DEFAULT_MAX_TOKENS = 256


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="A .edge file. Left out, or demo: the built-in model."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; - reads it from stdin.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", "-n", help="Default: 256, or what the context has left if less."
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0: always the most likely token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Keep the k most likely tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the most likely mass; 1: all.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Drop below this share of the best; 0: none.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; may be repeated.")
    ] = None,
    special: Annotated[
        bool, typer.Option("--special", help="Read special tokens written out in the prompt.")
    ] = False,
    threads: ThreadsOption = None,
    max_memory: MaxMemoryOption = None,
    json: JsonFlag = False,
) -> None:
    """Load, generate, report."""
    name, text = model_and_prompt(model, prompt)
    limit_bytes = size_bytes(max_memory, "--max-memory")
    if text == "-":
        text = _stdin_text()
    with load(name, threads=threads, max_memory=limit_bytes) as loaded:
        ids = loaded.tokenize(text, special=special)
        with loaded.stream(
            ids,
            max_tokens=_room(loaded, len(ids)) if max_tokens is None else max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            stop=stop or (),
        ) as stream:
            if not json:
                for token in stream:
                    print_text(token.text)
            result = stream.result()
    if json:
        print_json("run", {"model": name, **asdict(result)})
    else:
        print_text("\n")
        note(_timings(result.stats, result.finish_reason))


def _stdin_text() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        message = f"the prompt on stdin is not {error.encoding} text: {error.reason}"
        raise InvalidArgumentError(message, code="invalid_utf8") from None


def _room(model: Model, n_prompt: int) -> int:
    """Tokens to generate when the caller did not say."""
    n_ctx = model.info().n_ctx
    if n_prompt == 0:
        raise InvalidArgumentError("the prompt is empty", code="invalid_argument")
    if n_prompt >= n_ctx:
        message = (
            f"the prompt has {n_prompt} tokens and the context of this model is {n_ctx}; "
            f"cut at least {n_prompt - n_ctx + 1} tokens"
        )
        raise ContextOverflowError(message, code="context_overflow")
    return min(_DEFAULT_MAX_TOKENS, n_ctx - n_prompt)


def _timings(stats: Stats, finish_reason: str) -> str:
    return (
        f"[{stats.prompt_tokens} prompt tokens at {stats.prefill_tokens_per_s:.0f}/s, "
        f"first token after {stats.ttft_ms:.1f} ms, "
        f"{stats.generated_tokens} tokens at {stats.tokens_per_s:.1f} tokens/s, "
        f"peak memory {stats.peak_rss_bytes / 2**20:.0f} MiB, finished: {finish_reason}]"
    )
