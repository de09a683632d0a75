"""`edgellm inspect`: what a file holds, from its header and its blobs: tokenizer, template, the
converter's report; no weights, no native code. GGUF files are inspect_gguf.py's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..chat_template import stored_tokens
from ..edgefile import read_header, read_tensor
from ..edgeheader import EdgeHeader, TensorInfo
from ..embedding import parse_defaults
from ..locate import explained, resolve
from ..npu.driver import placements
from ..strict_json import parse_json
from ..tokenizer_info import describe_tokenizer
from .flags import JsonFlag
from .output import print_json, print_table, print_text

MAX_TEMPLATE_BYTES = 1 << 20  # shown; chat takes less
MAX_REPORT_BYTES = 16 << 20  # more is no report of the converter


def command(
    file: Annotated[str, typer.Argument(help="A .edge or GGUF file, a name or demo.")],
    json: JsonFlag = False,
) -> None:
    """Show the model, its formats and its tensors; checks the header, not the data."""
    path = resolve(file)
    show: Callable[[dict[str, Any]], None] = _print_human
    with explained(path):
        if path.suffix.lower() == ".gguf" and path.is_file():
            from . import inspect_gguf  # and with it the offline tools

            data, show = inspect_gguf.describe(path), inspect_gguf.print_human
        else:
            data = {**_describe(read_header(path)), "graphs": _graphs(path)}
    if json:
        print_json("inspect", data)
    else:
        show(data)


def _describe(header: EdgeHeader) -> dict[str, Any]:
    tensors = list(header.tensors.values())
    weights = [t for t in tensors if t.format != "U8"]
    n_parameters = sum(math.prod(t.shape) for t in weights)
    weight_bytes = sum(t.n_bytes for t in weights)
    return {
        "path": str(header.path),
        "file_bytes": header.file_bytes,
        "version": header.version,
        "requires": list(header.requires),
        "root": header.root,
        "spec": header.spec,
        "n_parameters": n_parameters,
        "weight_bytes": weight_bytes,
        "bits_per_weight": 8 * weight_bytes / n_parameters if n_parameters else 0.0,
        "data_start": header.data_start,
        "metadata": {k: v for k, v in header.metadata.items() if not k.startswith("edgellm.")},
        "source": header.source,
        "tokenizer": _tokenizer(header),
        "chat_template": _template(header),
        "special_tokens": stored_tokens(_blob(header, "special_tokens"), header.path),
        "embedding": _embedding(header),
        "quality": _quality(header),
        "tensors": [_tensor(t) for t in tensors],
    }


def _graphs(path: Path) -> list[dict[str, Any]]:
    """Beside the file, for NPUs, and which processor has which part of the model."""
    return [{**one.to_dict(), "text": one.text()} for one in placements(path)]


def _tokenizer(header: EdgeHeader) -> dict[str, Any] | None:
    if "tokenizer" not in header.tensors:
        return None
    return asdict(describe_tokenizer(read_tensor(header, "tokenizer")))


def _blob(header: EdgeHeader, name: str) -> bytes | None:
    return bytes(read_tensor(header, name)) if name in header.tensors else None


def _template(header: EdgeHeader) -> str | None:
    if "chat_template" not in header.tensors:
        return None
    shown = read_tensor(header, "chat_template")[:MAX_TEMPLATE_BYTES]
    return bytes(shown).decode(errors="replace")


def _embedding(header: EdgeHeader) -> dict[str, Any] | None:
    blob = _blob(header, "embedding")
    return None if blob is None else asdict(parse_defaults(blob, header.path))


def _quality(header: EdgeHeader) -> dict[str, Any] | None:
    """The converter's report without its tensors: None if there is none, or none of the kind."""
    info = header.tensors.get("report")
    if info is None or info.n_bytes > MAX_REPORT_BYTES:
        return None
    found = parse_json(bytes(read_tensor(header, "report")), f"{header.path}: report")
    if not isinstance(found, dict):
        return None
    errors = found.get("tensors")
    worst = max(_errors(errors), default=None) if isinstance(errors, list) else None
    quality = found.get("quality")
    return {
        "divergence": quality.get("divergence") if isinstance(quality, dict) else None,
        "bits_by_part": found.get("bits_by_part"),
        "worst_tensor": None if worst is None else {"name": worst[1], "rel_rms_error": worst[0]},
    }


def _errors(tensors: list[Any]) -> Iterator[tuple[float, str]]:
    for one in tensors:
        if isinstance(one, dict) and isinstance(one.get("rel_rms_error"), int | float):
            yield float(one["rel_rms_error"]), str(one.get("name"))


def _quality_rows(found: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if found is None:
        return
    parts = found["bits_by_part"]
    if isinstance(parts, dict):
        shown = (f"{part} {bits:.3f}" for part, bits in parts.items() if _is_number(bits))
        yield "bits by part", ", ".join(shown)
    measured = found["divergence"]
    names = ("kl", "top1", "loss_before", "loss_after", "n_tokens")
    if not isinstance(measured, dict) or not all(_is_number(measured.get(k)) for k in names):
        yield "divergence", "not measured when it was converted"
    else:
        kl, top1, before, after, n_tokens = (measured[name] for name in names)
        tokens = f"{n_tokens:,.0f} held-out tokens, weights only"
        yield "divergence", f"KL {kl:.6f} nats, same top token {100 * top1:.2f} % ({tokens})"
        yield "loss", f"{before:.4f} nats before, {after:.4f} after"
    if found["worst_tensor"] is not None:
        worst = found["worst_tensor"]
        yield "largest error", f"{worst['rel_rms_error']:.5f} relative RMS, {worst['name']}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tensor(tensor: TensorInfo) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "role": tensor.role,
        "format": tensor.format,
        "shape": list(tensor.shape),
        "act": tensor.act,
        "offset": tensor.offset,
        "n_bytes": tensor.n_bytes,
    }


def _tokenizer_rows(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    if found is None:
        return [("tokenizer", "none")]
    counts = f"{found['n_tokens']:,} tokens, {found['n_added']:,} of them added"
    return [
        ("tokenizer", f"{found['kind']}, {counts}"),
        ("normalizer", "; ".join(found["normalizer"]) or "none"),
        ("pre-tokenizer", "; ".join(found["pre_tokenizer"]) or "none"),
    ]


def _text_rows(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    tokens = ", ".join(f"{role} {text!r}" for role, text in data["special_tokens"].items())
    if tokens:
        yield "special tokens", tokens
    template = data["chat_template"]
    yield "chat template", f"{len(template):,} characters" if template else "none"
    found = data["embedding"]
    if found is not None:
        length = "length 1" if found["normalize"] else "any length"
        most = f", at most {found['max_tokens']:,} tokens" if found["max_tokens"] else ""
        left = f"; left out: {found['left_out']}" if found["left_out"] else ""
        yield "embeddings", f"pooling {found['pooling'] or 'not named'}, {length}{most}{left}"


def _spec_rows(spec: dict[str, Any]) -> Iterator[tuple[str, object]]:
    if "kind" in spec:  # no model, but what goes beside one
        yield "kind", f"{spec['kind']} for {spec.get('arch', 'unknown')}"
        yield "layers", f"{spec.get('n_layers')} of width {spec.get('d_model')}"
        return
    yield "architecture", spec.get("arch", "unknown")
    yield "layers", len(spec.get("layers", ()))


def _print_human(data: dict[str, Any]) -> None:
    print_table(
        [
            ("file", data["path"]),
            ("bytes", data["file_bytes"]),
            ("format version", data["version"]),
            ("requires", ", ".join(data["requires"]) or "nothing"),
            *_spec_rows(data["spec"]),
            ("parameters", f"{data['n_parameters']:,}"),
            ("bits per weight", f"{data['bits_per_weight']:.3f}"),
            ("root", data["root"]),
            *_tokenizer_rows(data["tokenizer"]),
            *_text_rows(data),
            *_quality_rows(data["quality"]),
            *((f"graphs npu:{one['target']}", one["text"]) for one in data["graphs"]),
        ]
    )
    print_text("\n")
    print_table(
        (t["name"], f"{t['format']:<6} {'x'.join(map(str, t['shape'])):<14} {t['n_bytes']:>12,}")
        for t in data["tensors"]
    )
