"""What a sentence-transformers directory says of a model's embeddings, for the file's own defaults.

Such a directory lists its steps in modules.json: the model, a pooling, perhaps a normalisation.
What edgellm cannot do of them is written down by name, never skipped in silence. All in the
directory is untrusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgellm.errors import FormatError

from .checkpoint import Checkpoint

MODULES_FILE = "modules.json"
LENGTH_FILE = "sentence_bert_config.json"
PROMPTS_FILE = "config_sentence_transformers.json"
_MAX_MODULES = 32
_MAX_NOTE = 400
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TRANSFORMER, _POOLING, _NORMALIZE = "Transformer", "Pooling", "Normalize"
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
# The same in newer files, which name one.
_NAMES = {"cls": "cls", "mean": "mean", "lasttoken": "last"}


def read_embedding(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The blob "embedding" of the file, see docs/FORMAT.md; None: the directory is not one of
    sentence-transformers."""
    text = checkpoint.optional_text(MODULES_FILE)
    if text is None:
        return None
    modules = _modules(text)
    left_out: list[str] = []
    pooling: str | None = None
    for kind, folder in modules[1:]:
        if kind == _POOLING and pooling is None:
            config = checkpoint.optional_json(f"{folder}/config.json")
            pooling, other = _pooling(config)
            left_out += other
        elif kind != _NORMALIZE:
            left_out.append(kind)
    if modules[0][0] != _TRANSFORMER:
        left_out.insert(0, modules[0][0])
    if pooling is None and not left_out:
        left_out.append("embeddings without a pooling")
    if modules[-1][0] != _NORMALIZE and any(kind == _NORMALIZE for kind, _ in modules):
        left_out.append("Normalize before other steps")
    values: dict[str, Any] = {"pooling": pooling, "normalize": modules[-1][0] == _NORMALIZE}
    lengths = checkpoint.optional_json(LENGTH_FILE)
    max_tokens = lengths.get("max_seq_length")
    if max_tokens is not None:
        if type(max_tokens) is not int or not 1 <= max_tokens < 2**31:
            raise FormatError(
                f"{LENGTH_FILE}: 'max_seq_length' must be a positive integer", code="json_type"
            )
        values["max_tokens"] = max_tokens
    if lengths.get("do_lower_case") is True:
        left_out.append("lower-casing of the text")
    prompt = checkpoint.optional_json(PROMPTS_FILE).get("default_prompt_name")
    if prompt is not None:
        left_out.append(f"the prompt {str(prompt)[:80]!r} in front of every text")
    if left_out:
        values["left_out"] = "; ".join(left_out)[:_MAX_NOTE]
    return values


def embedding_steps(values: Mapping[str, Any]) -> dict[str, Any]:
    """The way back: the files of a directory, by name, from which read_embedding() makes `values`;
    what was left out stays so."""
    if not values:
        return {}
    steps = [("", _TRANSFORMER)]
    files: dict[str, Any] = {}
    named = {ours: name for name, ours in _NAMES.items()}
    if (pooling := named.get(values.get("pooling", ""))) is not None:
        steps.append(("1_Pooling", _POOLING))
        files["1_Pooling/config.json"] = {"pooling_mode": pooling}
    if values.get("normalize"):
        steps.append(("2_Normalize", _NORMALIZE))
    if "max_tokens" in values:
        files[LENGTH_FILE] = {"max_seq_length": values["max_tokens"]}
    files[MODULES_FILE] = [{"path": path, "type": kind} for path, kind in steps]
    return files


def embedding_files(checkpoint: Checkpoint) -> list[str]:
    """The files that read_embedding() reads, by their paths in the directory."""
    text = checkpoint.optional_text(MODULES_FILE)
    if text is None:
        return []
    folders = [folder for kind, folder in _modules(text)[1:] if kind == _POOLING]
    return [
        MODULES_FILE,
        LENGTH_FILE,
        PROMPTS_FILE,
        *(f"{folder}/config.json" for folder in folders),
    ]


def _modules(text: str) -> list[tuple[str, str]]:
    """(last part of the class name, folder) of each step, in order."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{MODULES_FILE}: not JSON: {error}", code="json_syntax") from error
    if not isinstance(rows, list) or not 1 <= len(rows) <= _MAX_MODULES:
        raise FormatError(
            f"{MODULES_FILE}: must be an array of 1 to {_MAX_MODULES} steps", code="json_type"
        )
    return [_module(row, at) for at, row in enumerate(rows)]


def _module(row: object, at: int) -> tuple[str, str]:
    kind, folder = (row.get("type"), row.get("path")) if isinstance(row, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(folder, str):
        raise FormatError(
            f"{MODULES_FILE}: step {at} must have a 'type' and a 'path'", code="json_type"
        )
    name = kind.rpartition(".")[2]
    if name == _POOLING and not _FOLDER.fullmatch(folder):
        raise FormatError(
            f"{MODULES_FILE}: step {at}: {folder[:80]!r} is no folder of the directory",
            code="json_type",
        )
    return name[:80], folder


def _pooling(config: dict[str, Any]) -> tuple[str | None, list[str]]:
    """The pooling, or what it is called if it is none of ours."""
    named = config.get("pooling_mode")
    if isinstance(named, str):
        modes = [named]
        found = _NAMES.get(named)
    else:
        modes = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
        found = _MODES.get(modes[0]) if len(modes) == 1 else None
    if found is not None:
        return found, []
    return None, [f"pooling by {', '.join(modes) or 'nothing'}"]
