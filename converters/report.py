"""What a conversion did: sizes and errors per tensor, and what was ignored or substituted.

The part stored in the file depends on the inputs and the recipe only, never on the machine or the
clock, so that the same inputs give the same file.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .sizes import overhead_bytes, stored_bytes
from .spec import ModelSpec


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the file to be. source: its name in the checkpoint, None if computed."""

    name: str
    role: str
    format: str
    act: str | None
    shape: tuple[int, ...]
    source: str | None
    n_bytes: int

    @property
    def n_weights(self) -> int:
        n_rows, n_cols = self.rows_cols
        return n_rows * n_cols

    @property
    def rows_cols(self) -> tuple[int, int]:
        return (self.shape[0], self.shape[1]) if len(self.shape) == 2 else (1, self.shape[0])


@dataclass(frozen=True)
class ConvertProgress:
    """Passed to the progress callback after every block written; in a calibrated conversion before
    that after every matrix quantized, `stage` then saying so."""

    tensor: str
    n_weights_done: int
    n_weights_total: int
    stage: str = "write"


ProgressFn = Callable[[ConvertProgress], None]


@dataclass(frozen=True)
class ConvertPlan:
    """What convert() would write."""

    source: Path
    spec: ModelSpec
    recipe_name: str
    tensors: tuple[PlannedTensor, ...]
    warnings: tuple[str, ...]

    @property
    def n_weights(self) -> int:
        return sum(tensor.n_weights for tensor in self.tensors)

    @property
    def n_bytes(self) -> int:
        """Of the tensors; the header and the tokenizer come on top."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def file_bytes(self) -> int:
        """Of the whole file but its tokenizer, to a few KiB."""
        stored = sum(stored_bytes(tensor.n_bytes) for tensor in self.tensors)
        return stored + overhead_bytes(len(self.tensors), stored, n_files=1)

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": str(self.source),
            "arch": self.spec.arch,
            "recipe": self.recipe_name,
            "n_weights": self.n_weights,
            "n_bytes": self.n_bytes,
            "file_bytes": self.file_bytes,
            "spec": self.spec.to_dict(),
            "tensors": [asdict(tensor) for tensor in self.tensors],
            "warnings": list(self.warnings),
        }

    def table(self) -> str:
        """One line per role, in execution order of the first layer."""
        rows: dict[str, list[PlannedTensor]] = {}
        for tensor in self.tensors:
            rows.setdefault(tensor.role, []).append(tensor)
        lines = [f"{'role':<19} {'n':>4} {'format':<6} {'act':<4} {'shape':<16} {'MiB':>9}"]
        for role, group in rows.items():
            shapes = sorted({"x".join(map(str, tensor.shape)) for tensor in group})
            n_mib = sum(tensor.n_bytes for tensor in group) / (1 << 20)
            shape = shapes[0] + (" ..." if len(shapes) > 1 else "")
            act = group[0].act or "-"
            lines.append(
                f"{role:<19} {len(group):>4} {group[0].format:<6} {act:<4} {shape:<16} "
                f"{n_mib:>9.2f}"
            )
        bits = 8 * self.n_bytes / self.n_weights
        lines.append(
            f"{self.n_weights:,} weights, {self.n_bytes / (1 << 20):.2f} MiB, "
            f"{bits:.3f} bits per weight"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class TensorReport:
    """How one matrix fared. The error is measured on n_rows_measured rows, evenly spread."""

    name: str
    format: str
    act: str
    bits_per_weight: float
    rel_rms_error: float  # sqrt(sum (w - w')^2 / sum w^2)
    n_rows_measured: int


@dataclass(frozen=True)
class Divergence:
    """kl: KL(original || model), mean over tokens, nats. top1: share of positions where both find
    the same token most likely. losses: of the next token, nats, mean."""

    kl: float
    top1: float
    loss_before: float
    loss_after: float
    n_tokens: int

    @property
    def perplexity_before(self) -> float:
        return math.exp(self.loss_before)

    @property
    def perplexity_after(self) -> float:
        return math.exp(self.loss_after)


@dataclass(frozen=True)
class Sample:
    """What follows a prompt, greedily: from the original, and from the converted weights."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class KvDivergence:
    """kl: KL(F16 || format) of the converted model, mean over tokens, nats. Then: with queries and
    keys rotated, balanced, and both; kl_other_values: with values rotated where the file's are not,
    and not where they are."""

    format: str
    kl: float
    kl_rotated_keys: float
    kl_balanced_keys: float
    kl_both: float
    kl_other_values: float

    def kl_with(self, rotate_keys: bool, balance_keys: bool) -> float:
        if balance_keys:
            return self.kl_both if rotate_keys else self.kl_balanced_keys
        return self.kl_rotated_keys if rotate_keys else self.kl


@dataclass(frozen=True)
class KvQuality:
    """What the formats of the KV cache cost. rotate_keys, balance_keys: whether keys are, by the
    recipe or because it is worth it (kv_gain.py); values_gain: whether changing the rotation of
    values would be."""

    formats: tuple[KvDivergence, ...]
    rotate_keys: bool
    balance_keys: bool
    values_gain: bool
    n_tokens: int


@dataclass(frozen=True)
class Quality:
    """Measured on held-out text, weights and KV formats only. note: why there are no samples."""

    divergence: Divergence
    samples: tuple[Sample, ...]
    note: str | None
    kv: KvQuality


@dataclass(frozen=True)
class ConvertReport:
    """The result of convert()."""

    path: Path
    recipe_name: str
    n_weights: int
    n_bytes: int
    tensors: tuple[TensorReport, ...]
    source: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: float
    peak_rss_bytes: int | None  # of this process, None where the system does not tell
    bits_by_part: dict[str, float]  # embedding, attention, ffn, head, vectors
    recipe_json: str  # as in the file, with the digest of the calibration tokens
    quality: Quality | None = None  # None without held-out text

    @property
    def divergence(self) -> Divergence | None:
        return None if self.quality is None else self.quality.divergence

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.n_bytes / self.n_weights

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path), "bits_per_weight": self.bits_per_weight}


def bits_by_part(planned: Iterable[PlannedTensor]) -> dict[str, float]:
    """Bits per weight of embedding, attention, ffn, head and vectors, those that there are."""
    n_bytes: dict[str, int] = {}
    n_weights: dict[str, int] = {}
    for item in planned:
        part = _part(item)
        n_bytes[part] = n_bytes.get(part, 0) + item.n_bytes
        n_weights[part] = n_weights.get(part, 0) + item.n_weights
    return {part: 8 * n_bytes[part] / n_weights[part] for part in n_bytes}


def _part(item: PlannedTensor) -> str:
    if item.act is None:
        return "vectors"
    named = {"token_embd": "embedding", "output": "head"}
    return named.get(item.role) or ("attention" if item.role.startswith("attn") else "ffn")


def quality_json(
    tensors: tuple[TensorReport, ...],
    warnings: tuple[str, ...],
    parts: dict[str, float],
    quality: Quality | None,
) -> bytes:
    """The "report" blob."""
    value: dict[str, Any] = {"tensors": [asdict(tensor) for tensor in tensors]}
    value |= {"warnings": list(warnings), "bits_by_part": parts}
    value["quality"] = None if quality is None else asdict(quality)
    return json.dumps(value, separators=(",", ":")).encode()


def peak_rss_bytes() -> int | None:
    """Of this process so far."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
