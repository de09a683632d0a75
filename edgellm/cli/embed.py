"""`edgellm embed`: texts to vectors, one JSON line each, as they come."""

from __future__ import annotations

import json as json_text
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..embedding import POOLINGS, Pooling
from ..errors import EdgeError, InvalidArgumentError
from ..model import load
from ..options import DEFAULT_KV
from .defaults import MaxMemoryOption, RequireSignatureOption, size_bytes
from .flags import JsonFlag, KvOption, ThreadsOption
from .output import print_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]  # [d_model]
    Vectors = npt.NDArray[np.float32]  # [n_texts, d_model]


def command(
    model: Annotated[str, typer.Argument(help="A .edge file, or demo for the built-in model.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Left out: every line of stdin is a text."),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(POOLINGS)}. Default: as the model's author says, else last."
        ),
    ] = None,
    no_normalize: Annotated[
        bool, typer.Option("--no-normalize", help="Leave the vectors as long as they are.")
    ] = False,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut a text that is too long; default: refuse it.")
    ] = False,
    threads: ThreadsOption = None,
    kv: KvOption = None,
    max_memory: MaxMemoryOption = None,
    require_signature: RequireSignatureOption = None,
    json: JsonFlag = False,
) -> None:
    """Each line is {"index", "embedding"}; with --json one document holds them all."""
    limit_bytes = size_bytes(max_memory, "--max-memory")
    with load(
        model,
        threads=threads,
        kv=kv or DEFAULT_KV,
        max_memory=limit_bytes,
        require_signature=require_signature,
    ) as loaded:
        embed = partial(
            loaded.embed,
            pooling=cast("Pooling | None", pooling),
            normalize=False if no_normalize else None,
            truncate=truncate,
        )
        _print(model, embed(texts) if texts else _of_stdin(embed), json)


def _of_stdin(embed: Callable[[str], Vectors]) -> Iterator[Vector]:
    """Line by line, as they come."""
    for at, text in enumerate(_stdin_lines(), start=1):
        try:
            yield embed(text)[0]
        except EdgeError as error:
            message = f"line {at} of stdin: {error.message}"
            raise type(error)(message, code=error.code) from error


def _print(model: str, vectors: Iterable[Vector], as_json: bool) -> None:
    rows = ({"index": at, "embedding": _numbers(row)} for at, row in enumerate(vectors))
    if as_json:
        print_json("embed", {"model": model, "embeddings": list(rows)})
        return
    for row in rows:
        sys.stdout.write(json_text.dumps(row) + "\n")
        sys.stdout.flush()


def _numbers(row: Vector) -> list[float]:
    """With as few digits as make the same float32 again."""
    return [float(str(value)) for value in row]


def _stdin_lines() -> Iterator[str]:
    if sys.stdin.isatty():
        message = 'TEXT is missing: edgellm embed MODEL "TEXT" ..., or a text a line on stdin'
        raise InvalidArgumentError(message, code="invalid_argument")
    try:
        for line in sys.stdin:
            yield line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        message = f"stdin is not {error.encoding} text: {error.reason}"
        raise InvalidArgumentError(message, code="invalid_utf8") from None
