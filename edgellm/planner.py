"""What a file needs in memory, from its header alone: no weight is read, nothing is loaded.

Knows the container, KV pages and the scratch of a step, not the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .edgefile import read_header
from .edgeheader import BLOB_ALIGNMENT, FORMATS, EdgeHeader, TensorInfo, round_up, tensor_bytes
from .errors import EdgeError, MemoryBudgetError

Fields = Mapping[str, object]

PAGE_TOKENS = 32  # KV is taken in pages of this many tokens
_KV_BYTES = 2  # of a value in the F16 cache
_MAX_ROWS = 128  # rows of one step, which scratch is sized for
_HEAD_ROWS = 16
# Formats that a model may be rounded to. L4_32 keeps what was quantized elsewhere; rounding to it
# is worse than to E4_16, which is smaller.
_ADVISED = tuple(name for name in FORMATS if name != "L4_32")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a model takes, and how much of its context fits under `limit_bytes`."""

    file_bytes: int
    scratch_bytes: int
    kv_bytes_per_token: int
    n_ctx_train: int
    limit_bytes: int

    @property
    def n_ctx_fit(self) -> int:
        """The longest context that fits, in whole pages; 0 if not even one page does."""
        left = self.limit_bytes - self.file_bytes - self.scratch_bytes
        return max(0, left // (self.kv_bytes_per_token * PAGE_TOKENS)) * PAGE_TOKENS

    @property
    def full_bytes(self) -> int:
        """With the whole context the model was trained for."""
        return self.bytes_at(self.n_ctx_train)

    def bytes_at(self, n_ctx: int) -> int:
        """With a context of so many tokens."""
        n_tokens = round_up(n_ctx, PAGE_TOKENS)
        return self.file_bytes + self.scratch_bytes + n_tokens * self.kv_bytes_per_token


def plan_of(header: EdgeHeader, limit_bytes: int) -> MemoryPlan:
    """The plan of one file. The spec is a stranger's: fields that are missing count as 0."""
    acts = {tensor.act for tensor in header.tensors.values() if tensor.format in FORMATS}
    return plan_of_spec(header.spec, acts, header.file_bytes, limit_bytes)


def plan_of_spec(
    spec: Fields, acts: set[str | None], file_bytes: int, limit_bytes: int
) -> MemoryPlan:
    """The plan of a file that need not be there yet. acts: of its matrices."""
    layers = [layer for layer in _list(spec, "layers") if isinstance(layer, dict)]
    kv_values = sum(2 * _int(la, "n_kv_heads") * _int(la, "head_dim") for la in layers)
    return MemoryPlan(
        file_bytes=file_bytes,
        scratch_bytes=_scratch_bytes(spec, layers, acts),
        kv_bytes_per_token=_KV_BYTES * kv_values,
        n_ctx_train=_int(spec, "n_ctx_train"),
        limit_bytes=limit_bytes,
    )


def file_bytes_as(header: EdgeHeader, format: str) -> int:
    """Size of the file if all its quantized tensors had `format`; to a few kB of header."""
    weights = [tensor for tensor in header.tensors.values() if tensor.format in FORMATS]
    now = sum(tensor.stored_bytes for tensor in weights)
    return header.file_bytes - now + sum(_stored_as(tensor, format) for tensor in weights)


def formats_that_fit(header: EdgeHeader, limit_bytes: int) -> list[tuple[str, int]]:
    """(format, file bytes) of smaller forms of this model that fit with one KV page, best first."""
    plan = plan_of(header, limit_bytes)
    room = limit_bytes - plan.scratch_bytes - PAGE_TOKENS * plan.kv_bytes_per_token
    sizes = ((file_bytes_as(header, format), format) for format in _ADVISED)
    fitting = sorted((size, name) for size, name in sizes if size < header.file_bytes)
    return [(name, size) for size, name in reversed(fitting) if size <= room]


def with_formats_that_fit(
    error: MemoryBudgetError, path: Path, max_memory: int | None
) -> MemoryBudgetError:
    """The same error, naming the weight formats in which this model would fit."""
    from . import _native

    available = _native.memory_figures()["available_bytes"]
    limit = available if max_memory is None else min(available, max_memory)
    try:
        fitting = formats_that_fit(read_header(path), limit)
    except EdgeError:  # unreadable by now: the first error is the one to report
        return error
    if fitting:
        sizes = ", ".join(f"{name} ({mib(size)})" for name, size in fitting)
        advice = f"files of this model that would fit: {sizes}; edgellm convert --format makes them"
    else:
        advice = "no smaller weight format of this model fits either: take a smaller model"
    return MemoryBudgetError(f"{error.message}; {advice}", code=error.code)


def mib(n_bytes: int) -> str:
    """Bytes for people, rounded down as the native layer does: "12.3 MiB"."""
    return f"{n_bytes >> 20}.{(n_bytes % 2**20) * 10 >> 20} MiB"


def _stored_as(tensor: TensorInfo, format: str) -> int:
    rows, cols = tensor.shape
    return round_up(tensor_bytes(format, rows, cols), BLOB_ALIGNMENT)


def _scratch_bytes(spec: Fields, layers: Sequence[Fields], acts: set[str | None]) -> int:
    """Rows of activations as floats and in the forms the weights want, and logits of a few rows.

    As native/src/model/decoder.cc lays it out, if all weights want the same form; else more.
    """
    heads = max((_int(la, "n_heads") * _int(la, "head_dim") for la in layers), default=0)
    ffn = max((_int(la, "d_ffn") for la in layers), default=0)
    d_model, n_vocab = _int(spec, "d_model"), _int(spec, "n_vocab")
    queries = max(round_up(d_model, 16), round_up(heads, 16))
    row_bytes = 4 * (round_up(d_model, 16) + queries + _int(spec, "n_rope"))
    for width in (d_model, heads, ffn):
        padded = round_up(width, 32)
        int8_bytes = padded + padded // 32 * 4 + padded // 16 * 4  # values, scales, sums
        if not acts or "a8" in acts:
            row_bytes += int8_bytes
        if "a8x2" in acts:
            row_bytes += 2 * int8_bytes
        if "f32" in acts:
            row_bytes += 4 * padded
    n_logits = 0 if n_vocab % 16 == 0 else _HEAD_ROWS * round_up(n_vocab, 16)
    return _MAX_ROWS * row_bytes + 4 * n_logits


def _int(fields: Fields, key: str) -> int:
    value = fields.get(key)
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


def _list(fields: Fields, key: str) -> Sequence[object]:
    value = fields.get(key)
    return value if isinstance(value, list) else []
