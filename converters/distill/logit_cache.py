"""The teacher's predictions on disk: for each position some tokens drawn from them.

Random sampling knowledge distillation (Anshumann et al. 2025, arXiv:2503.16870): `samples` draws
with replacement from p itself; the share in which a token was drawn has expectation p, so that the
cross-entropy with it has the gradient of KL(p || q) on average; the k most likely tokens alone
would be biased. 48 draws are about 12 different tokens. A draw depends on the seed and the window
alone. One file per SHARD_WINDOWS windows, each whole or absent: making a cache goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgellm.errors import FormatError, InvalidArgumentError

from ..calibrate.work import make_folder
from ..export.whole import whole_directory
from .data import Packed

SHARD_WINDOWS = 64
SHARDS_IN_MEMORY = 64  # of windows of 512 tokens, about 2 MB each
VERSION = 1

# log-probabilities [b, n, n_vocab] of some windows of the data
TeacherFn = Callable[[npt.NDArray[np.int64]], Tensor]


class LogitCache:
    """The cache of a teacher (its digest) on some windows; a folder per such pair in `root`."""

    def __init__(self, root: Path, data: Packed, teacher: str, samples: int, seed: int) -> None:
        key = json.dumps([VERSION, data.digest, teacher, samples, seed])
        self._folder = root / hashlib.sha256(key.encode()).hexdigest()[:32]
        self._data, self._samples, self._seed = data, samples, seed
        self._shards: dict[int, dict[str, Tensor]] = {}
        make_folder(self._folder)

    def fill(self, teacher: TeacherFn, progress: Callable[[int, int], None] | None = None) -> None:
        """Makes what is not there. progress: of windows done and in all."""
        n_windows = len(self._data)
        for first in range(0, n_windows, SHARD_WINDOWS):
            if not self._path(first).exists():
                end = min(first + SHARD_WINDOWS, n_windows)
                self._store(first, [self._drawn(teacher, w) for w in range(first, end)])
            if progress is not None:
                progress(min(first + SHARD_WINDOWS, n_windows), n_windows)

    def ids_per_token(self) -> float:
        """Different tokens drawn at a position, mean."""
        n_ids = sum(len(self._shard(w)["ids"]) for w in range(0, len(self._data), SHARD_WINDOWS))
        return n_ids / self._data.tokens.size

    def cross_entropy(self, windows: npt.NDArray[np.int64], log_q: Tensor) -> Tensor:
        """-sum of share times log q over what was drawn: log_q [b, n, n_vocab] -> [b, n]."""
        rows = []
        for place, window in enumerate(windows.tolist()):
            ids, shares, owners = self._window(window)
            if int(ids.max()) >= log_q.shape[-1]:
                raise FormatError(
                    f"{self._path(window // SHARD_WINDOWS * SHARD_WINDOWS)}: holds tokens that the "
                    "model has not; remove it, and it is made again",
                    code="file_unreadable",
                )
            terms = -shares * log_q[place][owners, ids]
            rows.append(torch.zeros(log_q.shape[1], dtype=terms.dtype).index_add(0, owners, terms))
        return torch.stack(rows)

    def _drawn(self, teacher: TeacherFn, window: int) -> tuple[Tensor, Tensor, Tensor]:
        """(ids, counts, different ids of each position)."""
        probs = teacher(np.array([window]))[0].exp()
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + window) % (1 << 63))
        drawn = torch.multinomial(probs, self._samples, replacement=True, generator=generator)
        ids, counts, lengths = [], [], []
        for row in drawn:
            unique, count = torch.unique(row, return_counts=True)
            ids.append(unique)
            counts.append(count)
            lengths.append(len(unique))
        return torch.cat(ids), torch.cat(counts), torch.tensor(lengths)

    def _window(self, window: int) -> tuple[Tensor, Tensor, Tensor]:
        """(ids, shares, positions) of what was drawn in a window."""
        shard = self._shard(window)
        n = self._data.tokens.shape[1]
        inside = window % SHARD_WINDOWS
        lengths = shard["lengths"].long()
        ends = lengths.cumsum(0)
        first = int(ends[inside * n - 1]) if inside else 0
        own = lengths[inside * n : (inside + 1) * n]
        part = slice(first, first + int(own.sum()))
        shares = shard["counts"][part].float() / self._samples
        return shard["ids"][part].long(), shares, torch.arange(n).repeat_interleave(own)

    def _store(self, first: int, drawn: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        from safetensors.torch import save_file

        ids, counts, lengths = (torch.cat(part) for part in zip(*drawn, strict=True))
        tensors = {
            "ids": ids.to(torch.int32),
            "counts": counts.to(torch.uint8),
            "lengths": lengths.to(torch.uint8),
        }
        with whole_directory(self._path(first)) as folder:
            save_file(tensors, folder / "drawn.safetensors")

    def _shard(self, window: int) -> dict[str, Tensor]:
        first = window // SHARD_WINDOWS * SHARD_WINDOWS
        if first not in self._shards:
            while len(self._shards) >= SHARDS_IN_MEMORY:
                self._shards.pop(next(iter(self._shards)))
            self._shards[first] = self._load(first)
        return self._shards[first]

    def _load(self, first: int) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(first) / "drawn.safetensors"
        n_tokens = self._data.tokens[first : first + SHARD_WINDOWS].size
        try:
            shard = load_file(path)
            lengths, n_ids = shard["lengths"], len(shard["ids"])
            is_good = len(lengths) == n_tokens and int(lengths.long().sum()) == n_ids
            is_good = is_good and len(shard["counts"]) == n_ids and int(shard["ids"].min()) >= 0
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise FormatError(
                f"{path}: cannot be read ({error}); remove it, and it is made again",
                code="file_unreadable",
            ) from error
        if not is_good:
            raise InvalidArgumentError(
                f"{path}: not what was drawn for this text; remove it, and it is made again",
                code="invalid_argument",
            )
        return shard

    def _path(self, first: int) -> Path:
        return self._folder / f"windows-{first:08d}"
