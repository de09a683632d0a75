"""Opens what `load()` names: the runtime's model, and the small one that guesses for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InvalidArgumentError, MemoryBudgetError
from .locate import explained, resolve
from .options import DEFAULT_KV, SPECULATE_NAMES, LoadOptions, uses_graphs

if TYPE_CHECKING:
    from . import _native


class Opened:
    """`native`, the model in the file at `path`. close() is for it and for a draft model that was
    opened here; one that was open stays."""

    def __init__(self, path: Path, options: LoadOptions) -> None:
        self._draft: _native.Model | None = None
        try:
            self.native = _open(path, options, self._draft_model(options))
        except BaseException as error:
            self._close_draft()
            if not isinstance(error, MemoryBudgetError):
                raise
            from .planner import with_formats_that_fit

            raise with_formats_that_fit(error, path, options.max_memory) from None

    def close(self) -> None:
        """Idempotent."""
        self.native.close()
        self._close_draft()

    def _close_draft(self) -> None:
        if self._draft is not None:
            self._draft.close()

    def _draft_model(self, options: LoadOptions) -> _native.Model | None:
        given = options.draft_model
        if isinstance(given, (str, os.PathLike)):
            # Its memory is checked with the model's; sessions of its own it will not have.
            plain = LoadOptions(threads=options.threads, kv=options.kv, verify=options.verify)
            self._draft = _open(resolve(given), plain, None)
            return self._draft
        native: _native.Model | None = getattr(given, "_native", None)
        if given is not None and native is None:
            kind = type(given).__name__
            message = f"draft_model must be a file, a name or a model, but is of type {kind}"
            raise InvalidArgumentError(message, code="invalid_argument")
        return native


def _open(path: Path, options: LoadOptions, draft: _native.Model | None) -> _native.Model:
    from . import _native

    backend, kv = options.backend, options.kv
    npu: list[tuple[str, str]] = []
    if uses_graphs(backend):
        from .npu.driver import BACKEND, KV, settings_for

        npu = settings_for(path, backend)
        backend, kv = BACKEND, KV if kv == DEFAULT_KV else kv
    with explained(path):
        return _native.Model.load(
            path,
            n_threads=options.threads or 0,
            verify=options.verify,
            max_memory_bytes=options.max_memory or 0,
            n_ctx=options.n_ctx or 0,
            latency_budget_ms=options.latency_budget_ms or 0.0,
            prefix_cache_bytes=options.prefix_cache,
            kv_format=kv,
            kv_cache_dir=options.kv_cache_dir,
            kv_cache_disk_bytes=options.kv_cache_disk_bytes,
            speculate=SPECULATE_NAMES[options.speculate],
            draft_model=draft,
            draft_layers=options.draft_layers,
            backend=backend,
            npu=npu,
        )
