"""The files a checkpoint brings -> one description with the structure of `tokenizer.json`.

Every loader makes such a description; one compiler compiles it. Which files are looked at, in this
order: `tokenizer.json`, `tokenizer.model` (SentencePiece or tiktoken ranks, told apart by content),
`vocab.json` with `merges.txt`. Knows which file is which, not what is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import FormatError

from .bpe_files import describe_bpe_files
from .components import Json
from .files import load_json
from .sentencepiece import describe_sentencepiece
from .tiktoken import describe_tiktoken, is_tiktoken


@dataclass(frozen=True)
class Description:
    """What `tokenizer.json` would say, and the file to name in messages about it."""

    path: Path
    data: Json


def describe(directory: Path) -> Description:
    path = directory / "tokenizer.json"
    data = load_json(path)
    if data is not None:
        return Description(path, data)
    model_path = directory / "tokenizer.model"
    if model_path.exists():
        content = model_path.read_bytes()
        loader = describe_tiktoken if is_tiktoken(content) else describe_sentencepiece
        return Description(model_path, loader(model_path, content))
    vocab_path = directory / "vocab.json"
    if vocab_path.exists():
        return Description(vocab_path, describe_bpe_files(vocab_path))
    raise FormatError(
        f"{path}: no such file, nor tokenizer.model or vocab.json beside it; copy the tokenizer's "
        "files into this directory",
        code="file_not_found",
    )
