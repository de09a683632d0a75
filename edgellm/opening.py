"""Opens what `load()` names: the runtime's model, and the small one that guesses for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InvalidArgumentError, MemoryBudgetError
from .locate import explained, resolve
from .options import DEFAULT_KV, SPECULATE_NAMES, LoadOptions, VerifyMode, uses_graphs
from .reading_ahead import read_ahead

if TYPE_CHECKING:
    from . import _native
    from .signature import Signers


class Opened:
    """`native`, the model in the file at `path`. close() is for it and for a draft model that was
    opened here; one that was open stays. signers: whose files may be opened for it; None: any."""

    def __init__(self, path: Path, options: LoadOptions) -> None:
        self._draft: _native.Model | None = None
        self.signers = _signers(path, options)
        try:
            self.native = self._open(path, options, self._draft_model(options))
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
            self._draft = self._open(resolve(given), plain, None)
            return self._draft
        native: _native.Model | None = getattr(given, "_native", None)
        if given is not None and native is None:
            kind = type(given).__name__
            message = f"draft_model must be a file, a name or a model, but is of type {kind}"
            raise InvalidArgumentError(message, code="invalid_argument")
        return native

    def _open(self, path: Path, options: LoadOptions, draft: _native.Model | None) -> _native.Model:
        if self.signers is None:
            return _load(path, path, options, draft, options.verify)
        from .signature import signed_file

        remembers = options.verify != "always"
        with signed_file(
            path, self.signers, n_threads=options.threads, remembers=remembers
        ) as signed:
            # Where the name may mean another file by now, its hashes are needed as well.
            verify = options.verify if signed.is_bound else "always"
            return _load(signed.path, path, options, draft, verify, signed.header_sha256)


def _signers(path: Path, options: LoadOptions) -> Signers | None:
    if options.require_signature is None or options.require_signature is False:
        return None
    read_ahead(path)  # meanwhile what verifies is imported
    from .signature import signers_of

    return signers_of(options.require_signature, options.backend)


def _load(
    path: Path,
    named: Path,
    options: LoadOptions,
    draft: _native.Model | None,
    verify: VerifyMode,
    header_sha256: str = "",
) -> _native.Model:
    """named: the file as the caller knows it, which graphs stand beside."""
    from . import _native

    backend, kv = options.backend, options.kv
    npu: list[tuple[str, str]] = []
    if uses_graphs(backend):
        from .npu.driver import BACKEND, KV, settings_for

        npu = settings_for(named, backend)
        backend, kv = BACKEND, KV if kv == DEFAULT_KV else kv
    with explained(path):
        return _native.Model.load(
            path,
            n_threads=options.threads or 0,
            verify=verify,
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
            header_sha256=header_sha256,
        )
