"""What the verbs take for an argument that was left out, and how sizes are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from ..errors import InvalidArgumentError
from ..locate import DEMO, means_model
from .output import note

DEMO_PROMPT = "Once upon a time, there was a"
_MODEL_SUFFIXES = (".edge", ".gguf", ".safetensors", ".bin")
_SIZE = re.compile(r"(\d{1,15})(?:\.(\d{1,3}))?\s*([KMGT]?)(i?)B?", re.IGNORECASE)

MaxMemoryOption = Annotated[
    str | None, typer.Option(help="Take at most this much: 800MiB, 2GB. Default: what is free.")
]

KvCacheDirOption = Annotated[
    Path | None,
    typer.Option(help="Keep KV that leaves memory in this directory, for later runs, too."),
]
KvCacheSizeOption = Annotated[
    str | None, typer.Option(help="What the files in --kv-cache-dir may take. Default: 1GiB.")
]

GovernFlag = Annotated[
    bool, typer.Option("--govern", help="Work less when it gets hot or the battery low.")
]

AdapterOption = Annotated[
    Path | None,
    typer.Option(help="A LoRA adapter: a file of convert --base, or a PEFT directory."),
]


DraftModelOption = Annotated[
    str | None,
    typer.Option(help="A small model with the same tokens that guesses ahead: a file or a name."),
]
DraftLayersOption = Annotated[
    int, typer.Option(help="Guess ahead by the first so many layers of the model.", min=0)
]


RequireSignatureOption = Annotated[
    str | None,
    typer.Option(
        metavar="KEY.pub",
        help="Open nothing that is not signed with this key; fleet: of a fleet trusted here.",
    ),
]


def model_and_prompt(model: str | None, prompt: str | None) -> tuple[str, str]:
    """The two arguments of `run`; without a model it is the demo, and a note on stderr says so."""
    if model is not None and prompt is not None:
        return model, prompt
    if model is None:
        note(
            f'note: no model and no prompt given: the built-in demo continues "{DEMO_PROMPT}" '
            '(yours: edgellm run MODEL "PROMPT")'
        )
        return DEMO, DEMO_PROMPT
    if _names_a_model(model):
        message = f'PROMPT is missing: edgellm run {model} "TEXT", or - to read it from stdin'
        raise InvalidArgumentError(message, code="invalid_argument")
    note(
        "note: no model given: the built-in demo continues this prompt "
        '(yours: edgellm run MODEL "PROMPT")'
    )
    return DEMO, model


def size_bytes(text: str | None, option: str) -> int | None:
    """ "1.5 GiB" in bytes; a plain number is bytes, KB to TB are powers of 1000."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        message = f"{option} is {text!r}; write a size such as 800MiB, 2GB or a number of bytes"
        raise InvalidArgumentError(message, code="invalid_argument")
    whole, decimals, unit, binary = match.groups()
    factor = (1024 if binary else 1000) ** ("KMGT".index(unit.upper()) + 1) if unit else 1
    thousandths = int(whole) * 1000 + int((decimals or "").ljust(3, "0"))
    return thousandths * factor // 1000


class KvCacheArguments(TypedDict, total=False):
    """Of `edgellm.load()`."""

    kv_cache_dir: Path
    kv_cache_disk_bytes: int


def kv_cache(directory: Path | None, size: str | None) -> KvCacheArguments:
    """What --kv-cache-dir and --kv-cache-size say."""
    n_bytes = size_bytes(size, "--kv-cache-size")
    if directory is None:
        if n_bytes is None:
            return {}
        message = "--kv-cache-size needs --kv-cache-dir"
        raise InvalidArgumentError(message, code="invalid_argument")
    if n_bytes is None:
        return {"kv_cache_dir": directory}
    return {"kv_cache_dir": directory, "kv_cache_disk_bytes": n_bytes}


def _names_a_model(text: str) -> bool:
    return text.endswith(_MODEL_SUFFIXES) or means_model(text)
