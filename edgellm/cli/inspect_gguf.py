"""`edgellm inspect FILE.gguf`: what llama.cpp's file holds, and what it means here; no weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import EdgeError
from .convert import converters
from .output import print_table, print_text

_SHOWN_VALUES = 8  # of an array; its length always
_SHOWN_CHARS = 4096  # of a text


def describe(path: Path) -> dict[str, Any]:
    """As data. FormatError, UnsupportedError: it is not a whole GGUF file. What is not understood
    of a whole one is in "not_read"."""
    file = converters("edgellm.converters.gguf.reader").read_gguf(path)
    vocabulary = converters("edgellm.converters.gguf.tokenizer").Vocabulary(path, file.metadata)
    tensors = list(file.tensors.values())
    n_parameters = sum(tensor.n_elements for tensor in tensors)
    weight_bytes = sum(tensor.n_bytes for tensor in tensors)
    spec, not_read = _spec(path)
    return {
        "path": str(path),
        "kind": "gguf",
        "files": [str(part) for part in file.paths],
        "file_bytes": sum(part.stat().st_size for part in file.paths),
        "architecture": file.metadata.get("general.architecture"),
        "spec": spec,
        "not_read": not_read,
        "n_parameters": n_parameters,
        "weight_bytes": weight_bytes,
        "bits_per_weight": 8 * weight_bytes / n_parameters if n_parameters else 0.0,
        "tokenizer": {"kind": vocabulary.kind, "n_tokens": vocabulary.n_tokens},
        "special_tokens": vocabulary.special_tokens(),
        "chat_template": vocabulary.chat_template(),
        "metadata": {key: _short(value) for key, value in file.metadata.items()},
        "tensors": [
            {
                "name": tensor.name,
                "type": tensor.dtype,
                "shape": list(tensor.shape),
                "n_bytes": tensor.n_bytes,
            }
            for tensor in tensors
        ],
    }


def _spec(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The model as data, or what stands in the way."""
    try:
        with converters("edgellm.converters.gguf.checkpoint").GgufCheckpoint(
            path, without_weights=True
        ) as checkpoint:
            spec: dict[str, Any] = checkpoint.arch.to_spec(checkpoint.config, {}).to_dict()
            checkpoint.tokenizer_description()
            return spec, None
    except EdgeError as error:
        return None, str(error)


def _short(value: Any) -> Any:
    """Arrays, which may have a million texts, by their length and first values; what JSON has no
    number for as text."""
    if isinstance(value, list):
        return {"n_values": len(value), "first": [_short(one) for one in value[:_SHOWN_VALUES]]}
    if isinstance(value, str):
        return value[:_SHOWN_CHARS]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_human(data: Mapping[str, Any]) -> None:
    """The same for people."""
    print_table(_rows(data))
    print_text("\n")
    print_table(
        (key, f"{value['n_values']:,} values" if isinstance(value, dict) else value)
        for key, value in data["metadata"].items()
        if key != "tokenizer.chat_template"
    )
    print_text("\n")
    print_table(
        (t["name"], f"{t['type']:<6} {'x'.join(map(str, t['shape'])):<14} {t['n_bytes']:>12,}")
        for t in data["tensors"]
    )


def _rows(data: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield "file", data["path"]
    if len(data["files"]) > 1:
        yield "parts", len(data["files"])
    yield "bytes", data["file_bytes"]
    yield "architecture", data["architecture"]
    if data["spec"] is not None:
        yield "layers", len(data["spec"]["layers"])
    yield "parameters", f"{data['n_parameters']:,}"
    yield "bits per weight", f"{data['bits_per_weight']:.3f}"
    types = Counter(tensor["type"] for tensor in data["tensors"])
    yield "types", ", ".join(f"{name} {n}" for name, n in types.most_common()) or "no tensors"
    yield "tokenizer", f"{data['tokenizer']['kind']}, {data['tokenizer']['n_tokens']:,} tokens"
    tokens = ", ".join(f"{role} {text!r}" for role, text in data["special_tokens"].items())
    if tokens:
        yield "special tokens", tokens
    template = data["chat_template"]
    yield "chat template", f"{len(template):,} characters" if template else "none"
    yield "converts", "yes" if data["not_read"] is None else f"no: {data['not_read']}"
