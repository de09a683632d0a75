"""Which tokens stay, and the files around the tokenizer that say so.

What is trimmed is the description that the converter compiles: whatever files a checkpoint brings,
a pruned one has tokenizer.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm.errors import FormatError, InvalidArgumentError

from ..distill.data import Tokens
from ..extras import INPUT_FILES
from ..plan import Job
from ..tokenizer.trim import kept_tokens, trimmed, trimmed_config
from .config import token_ids

_REPLACED = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
# Other forms of what tokenizer.json says.
_SUPERSEDED = ("tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")


@dataclass(frozen=True)
class KeptTokens:
    """coverage: share of the text's tokens that stay."""

    tokens: tuple[int, ...]
    coverage: float


def choose_tokens(job: Job, text: Tokens, n_wanted: int) -> KeptTokens:
    """text: token ids of the domain, any shape."""
    if n_wanted >= job.spec.n_vocab:
        raise InvalidArgumentError(
            f"vocab is {n_wanted}, the model has {job.spec.n_vocab} tokens; ask for fewer, or 0 to "
            "leave the vocabulary as it is",
            code="invalid_argument",
        )
    counts = np.bincount(text.reshape(-1), minlength=job.spec.n_vocab).astype(np.int64)
    tokens = kept_tokens(_description(job), counts, n_wanted, _named_ids(job))
    return KeptTokens(tokens, float(counts[list(tokens)].sum() / max(1, counts.sum())))


def write_text_files(job: Job, tokens: tuple[int, ...] | None, folder: Path) -> None:
    """Tokenizer and template beside a pruned model's weights. tokens: None for all."""
    directory = job.checkpoint.directory
    for name in INPUT_FILES:
        path = directory / name
        is_superseded = tokens is not None and name in _SUPERSEDED
        if name not in _REPLACED and not is_superseded and path.exists():
            (folder / name).write_bytes(path.read_bytes())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = directory / name
        if tokens is None:
            if path.exists():
                (folder / name).write_bytes(path.read_bytes())
        elif name == "tokenizer.json":
            _write(folder / name, trimmed(_description(job), tokens))
        elif path.exists():
            _write(folder / name, trimmed_config(job.checkpoint.optional_json(name), tokens))


def _named_ids(job: Job) -> set[int]:
    """Tokens that the configs name by id."""
    values = (job.config, job.checkpoint.optional_json("generation_config.json"))
    found = {job.spec.bos_id, *job.spec.eos_ids}
    found |= {id for config in values for ids in token_ids(config).values() for id in ids}
    return {id for id in found if 0 <= id < job.spec.n_vocab}


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _description(job: Job) -> dict[str, object]:
    found = job.checkpoint.tokenizer_description()
    if found is None:
        raise FormatError(
            f"{job.checkpoint.directory}: no tokenizer files, so the vocabulary cannot be trimmed",
            code="tokenizer_invalid",
        )
    return found.data
