"""Moments kept between conversions, found again only where they would come out the same.

A key holds all that a measurement depends on: the checkpoint's digests, the tokens, the matrix, and
every code and scale that was chosen before it. So a second recipe finds what it shares with an
earlier one up to the first difference, and the moments of the original model always. Knows neither
model nor method.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..quant.methods import InputStats
from ..quant.tiles import F32Array, U8Array
from .work import WorkDir

STATS_VERSION = 1  # raised when the same inputs would give other moments


class StatsCache:
    """root: a folder to keep, None to keep nothing. FormatError where it cannot be written."""

    def __init__(self, root: Path | None, source: Mapping[str, Any], tokens_digest: str) -> None:
        self._so_far = hashlib.sha256()
        self._files: WorkDir | None = None
        if root is not None:
            # Another torch may sum in another order.
            value = [STATS_VERSION, torch.__version__, dict(source), tokens_digest]
            key = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
            self._files = WorkDir(root, key)

    def chosen(self, name: str, what: str, data: U8Array) -> None:
        """What later measurements depend on: the strips (what: their format) or the scales of
        tensor `name`."""
        if self._files is not None:
            self._so_far.update(f"{name} {what} {data.size} ".encode())
            self._so_far.update(np.ascontiguousarray(data).data)

    def found(
        self, place: str, n_cols: int, with_drift: bool, measure: Callable[[], InputStats]
    ) -> Callable[[], InputStats]:
        """measure(), or what it gave before, under the key of this moment. place: what is measured,
        one name for each thing; with_drift: whether it gives the drift, too."""
        if self._files is None:
            return measure
        files, key = self._files, self._so_far.copy()
        key.update(f"{place} {with_drift}".encode())
        name, shape = f"{place}.{key.hexdigest()[:32]}", (1 + with_drift, n_cols, n_cols)

        def get() -> InputStats:
            stored = files.load(name, 4 * int(np.prod(shape)))
            if stored is not None:
                return _stats(stored.view("<f4").reshape(shape).astype(np.float32))
            stats = measure()
            parts = [stats.moments] if stats.drift is None else [stats.moments, stats.drift]
            files.store(name, np.stack(parts).astype("<f4").reshape(-1).view(np.uint8))
            return stats

        return get


def _stats(values: F32Array) -> InputStats:
    return InputStats(values[0], values[1] if len(values) > 1 else None)
