"""What functions of the native module return as dictionaries; `_native.pyi` says which."""

from __future__ import annotations

from typing import TypedDict


class MemoryFigures(TypedDict):
    total_bytes: int  # of the machine, or of the cgroup if that is less
    available_bytes: int  # what may be taken without swapping
    rss_bytes: int  # of this process now
    peak_rss_bytes: int  # of this process so far


class TensorInfo(TypedDict):
    name: str
    role: str
    format: str  # a name of format_table(), "F32" (vectors) or "U8" (opaque blobs)
    act: str
    n_rows: int  # logical; 1 for vectors and blobs
    n_cols: int
    offset: int  # from EdgeFile.data_start
    n_bytes: int


class VerifyResult(TypedDict):
    root: str
    file_bytes: int
    n_leaves: int
    verify_ms: float


class SessionStats(TypedDict):
    n_prefill_tokens: int
    n_decode_tokens: int
    n_steps: int  # passes over the weights
    n_reused_tokens: int  # not processed: their KV was there from other texts
    n_disk_tokens: int  # of these: it was read from kv_cache_dir
    n_recomputed_tokens: int  # once more, after rewind(); their time is in prefill_ms
    prefill_ms: float
    decode_ms: float  # steps of single tokens appended after the first run
    kv_bytes: int  # KV pages held now
    is_speculating: bool
    drafters: dict[str, tuple[int, int]]  # tokens that each kind guessed, and that were right
    saved_ms: float  # by that, as far as measured
    n_capped_steps: int  # with fewer guesses or prompt tokens, for latency_budget_ms


class KvFigures(TypedDict):
    budget_bytes: int  # what the memory cap leaves for KV
    reserved_bytes: int  # promised to sessions, or taken by adapters, of which
    session_bytes: int  # the logits of open sessions
    kept_bytes: int  # in pages that texts share, of which
    idle_bytes: int  # no session holds
    used_bytes: int  # in all pages, each counted once
    n_reused_tokens: int  # found in the prefix tree so far
    n_evicted_tokens: int
    disk_bytes: int  # of the files in kv_cache_dir, as far as known
    n_disk_written_tokens: int  # by this model, as the rest
    n_disk_read_tokens: int
    n_disk_damaged_files: int  # found, and removed
    n_disk_failed_writes: int
