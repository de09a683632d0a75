"""The scores that a converter got of a file's own tokens, and what they are here.

Every machine computes the same bits from the same file (docs/KERNELS.md), so another bit is a fault
of the machine or of the build, or another version's arithmetic.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .doctor import Check
from .errors import FormatError, NumericError
from .strict_json import parse_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MAX_BLOB_BYTES = 65536
_MAX_TOKENS = 128
_NEAR = 1e-3  # of the largest score: what another order of the same sums may do


@dataclass(frozen=True)
class StoredScores:
    """sha256: of the float32 logits [len(ids), n_vocab], little-endian. best: (id, logit) of the
    last token, the largest first. version: of the edgellm that computed them."""

    ids: list[int]
    sha256: str
    best: list[tuple[int, float]]
    version: str


def parse_scores(blob: bytes, path: Path) -> StoredScores:
    """The blob "scores" of the file at `path`. Its ids may be of another vocabulary."""
    where = f"{path}: scores"
    value = parse_json(blob, where) if len(blob) <= _MAX_BLOB_BYTES else None
    if not isinstance(value, dict):
        raise FormatError(f"{where}: no object of a few kilobytes", code="json_type")
    ids, digest, version = value.get("ids"), value.get("sha256"), value.get("version")
    rows = value.get("best")
    numbers = [i for i in ids if type(i) is int] if isinstance(ids, list) else []
    best = [pair for row in rows if (pair := _pair(row))] if isinstance(rows, list) else []
    if (
        isinstance(ids, list)
        and 0 < len(numbers) == len(ids) <= _MAX_TOKENS
        and isinstance(rows, list)
        and 0 < len(best) == len(rows)
        and isinstance(digest, str)
        and isinstance(version, str)
    ):
        return StoredScores(numbers, digest, best, version[:40])
    raise FormatError(
        f"{where} must hold ids, sha256, best and version; convert the model again",
        code="json_type",
    )


def compared(stored: StoredScores, scores: npt.NDArray[np.float32]) -> Check:
    """What doctor says of scores [n_tokens, n_vocab] computed here."""
    digest = hashlib.sha256(scores.astype("<f4", copy=False).tobytes()).hexdigest()
    if digest == stored.sha256:
        return Check("scores", "ok", "the same bits as when the file was converted")
    last = scores[-1]
    off = max(
        abs(float(last[at]) - wanted) if 0 <= at < len(last) else math.inf
        for at, wanted in stored.best
    )
    scale = max(abs(wanted) for _, wanted in stored.best)
    what = f"{off:.3g} from those of edgellm {stored.version}, which are up to {scale:.3g}"
    if off > _NEAR * max(scale, 1e-6):
        error = NumericError(f"the scores of the next token are {what}", code="numeric")
        fix = "the processor, its memory or this build computes wrong: try EDGELLM_ISA=scalar"
        return Check("scores", "failure", error.message, fix, error)
    found = f"near, but not the same bits: {what}"
    return Check("scores", "warning", found, "convert the model again with this edgellm")


def _pair(row: object) -> tuple[int, float] | None:
    if not isinstance(row, list) or len(row) != 2:
        return None
    at, score = row
    is_right = type(at) is int and isinstance(score, int | float) and math.isfinite(score)
    return (at, float(score)) if is_right else None
