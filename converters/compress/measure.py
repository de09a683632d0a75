"""How good the models of a compression are: divergence from its source, on held-out text.

Weights and int8 activations as the runtime has them; keys and values in float32.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calibrate.convert import edge_blobs, text_reader
from ..distill.data import Packed, TextReader, pack
from ..extras import text_blobs
from ..plan import Job, Options
from ..sources import open_checkpoint
from .recipe import TextOptions
from .step import CHECKPOINT, EDGE
from .store import StepStore, digest_of

if TYPE_CHECKING:
    from ..distill.measure import Measured

VERSION = 1  # raised when the same model would be measured otherwise
AS_IT_IS = Options("F16", None, None, None)


class Judge:
    """Measures what a recipe makes. source_digest: of the source. What was measured is kept."""

    def __init__(
        self,
        store: StepStore,
        source: Path,
        source_digest: str,
        texts: TextOptions,
        n_threads: int,
    ) -> None:
        self._store, self._source, self._texts = store, source, texts
        self._n_threads = n_threads
        valid = [digest_of(path) for path in texts.valid]
        windows = [texts.window_tokens, texts.valid_windows]
        self._key = [VERSION, source_digest, valid, windows, n_threads]

    def measure(self, model: Path, kind: str, digest: str) -> dict[str, Any] | None:
        """Divergence(source || model) as a dict. Where the model has other tokens than the source
        its own losses only, with `kl` and `top1` None. None without text to measure on."""
        if not self._texts.valid:
            return None
        key = hashlib.sha256(json.dumps([*self._key, digest]).encode()).hexdigest()
        found = self._store.measured(key)
        if found is None:
            found = self._measured(model, kind)
            self._store.note_measured(key, found)
        return found

    def _measured(self, path: Path, kind: str) -> dict[str, Any]:
        from ..distill.measure import divergence
        from ..distill.trainer import same_bits

        with same_bits(self._n_threads):
            original = _opened(self._source, CHECKPOINT)
            if path == self._source:
                return asdict(divergence(original, original, self._windows))
            model, blobs = _opened(path, kind), tokenizer_blobs(path, kind)
            if blobs.get("tokenizer") == self._source_blobs.get("tokenizer"):
                return asdict(divergence(original, model, self._windows))
            alone = divergence(model, model, self._packed(path, blobs))
            return {**asdict(alone), "kl": None, "top1": None, "loss_before": None}

    @cached_property
    def _source_blobs(self) -> dict[str, bytes]:
        return tokenizer_blobs(self._source, CHECKPOINT)

    @cached_property
    def _windows(self) -> Packed:
        return self._packed(self._source, self._source_blobs)

    def _packed(self, path: Path, blobs: dict[str, bytes]) -> Packed:
        texts = self._texts
        reader = TextReader(*text_reader(path, blobs), -1)
        n_tokens = texts.window_tokens * texts.valid_windows
        return pack(texts.valid, reader, texts.window_tokens, n_tokens, 0)


def _opened(path: Path, kind: str) -> Measured:
    """A model that does not learn."""
    if kind == EDGE:
        from ..distill.refined import CompressedModel

        return CompressedModel(path)
    from ..distill.student import Teacher

    with open_checkpoint(path) as checkpoint:
        return Teacher(Job(checkpoint, AS_IT_IS))


def tokenizer_blobs(path: Path, kind: str) -> dict[str, bytes]:
    """What the texts of a model are read with."""
    if kind == EDGE:
        return edge_blobs(path)
    with open_checkpoint(path) as checkpoint:
        return text_blobs(Job(checkpoint, AS_IT_IS))
