"""The native runtime: what native/python/ exports, and nothing else.

Every failure raises a class of `edgellm.errors` as `Class(message, code=name)`; `error_table()`
lists the codes and the class of each. Calls that can take longer than 0.1 ms run without the GIL.
No C++ thread ever calls Python. Loop over `Session.run()`, and Python sees Ctrl-C between slices.

Importing this module imports no numpy; functions that return arrays do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

from ._native_adapter import Adapter as Adapter
from ._native_batch import run_batch as run_batch
from ._native_batch import sample_batch as sample_batch
from ._native_draft_head import DraftHead as DraftHead
from ._native_gptq import gptq_descend as gptq_descend
from ._native_gptq import gptq_sweep as gptq_sweep
from ._native_sampling import SamplerParams as SamplerParams
from ._native_sampling import apply_rules as apply_rules
from ._native_sampling import distribution as distribution
from ._native_session_file import SessionFile as SessionFile
from ._native_text import StreamDecoder as StreamDecoder
from ._native_text import Tokenizer as Tokenizer
from ._native_types import KvFigures, MemoryFigures, SessionStats, TensorInfo, VerifyResult

def version() -> str:
    """The version of the package this module was built for."""

def isa_levels() -> list[str]:
    """Kernel levels that this CPU can run, best first; "scalar" is always the last."""

def active_isa() -> str:
    """The level in use: the best one, or what EDGELLM_ISA says (UnsupportedError if it cannot)."""

def default_n_threads() -> int:
    """Physical performance cores within affinity and the cgroup quota."""

def memory_figures() -> MemoryFigures: ...
def format_table() -> list[tuple[str, int, int, int]]:
    """(name, columns per scale, bytes of a 16 x 32 tile, of a head of 8) of every weight format."""

def error_table() -> list[tuple[str, str]]:
    """(code, class name in edgellm.errors) of every error this module can raise."""

def measure_read_bandwidth(n_threads: int = 0) -> float:
    """Bytes per second of a plain read over 256 MiB, best of several; 0 threads: the default."""

def measure_int8_peak(n_threads: int = 0) -> float:
    """Multiply-accumulates per second of the 16-row int8 kernel on data that stays in L1."""

def encode_tensor(
    format: str,
    weights: npt.NDArray[np.float32],
    importance: npt.NDArray[np.float32] | None = None,
    n_threads: int = 0,
) -> npt.NDArray[np.uint8]:
    """Quantize weights [n_rows, n_cols] to R16 strips; the same bytes for any CPU and threads.

    importance: [n_cols], >= 0, weighs the squared error of each input column.
    """

def decode_rows(
    format: str, data: Buffer, n_rows: int, n_cols: int, row0: int, n: int
) -> npt.NDArray[np.float32]:
    """Rows [row0, row0 + n) of a tensor [n_rows, n_cols] as f32; data: all bytes of the tensor."""

class EdgeFile:
    """A `.edge` file, mapped; structure, header hash and hash root are checked, data is not."""

    def __init__(self, path: str | os.PathLike[str]) -> None: ...
    @property
    def metadata(self) -> dict[str, str]: ...
    @property
    def tensors(self) -> list[TensorInfo]:
        """In file order, blobs included."""

    @property
    def root(self) -> str:
        """The hash root, as 64 hex digits: the identity of the model."""

    @property
    def file_bytes(self) -> int: ...
    @property
    def data_start(self) -> int: ...
    def read(self, name: str) -> bytes | None:
        """A copy of the stored bytes of a tensor or blob; None if there is none of that name."""

def verify_file(path: str | os.PathLike[str], n_threads: int = 0) -> VerifyResult:
    """Hash the whole file now; IntegrityError on the first leaf that is wrong."""

class Model:
    """A loaded model. Sessions that run at once share steps; a waiting thread holds no GIL.

    After close() every call that needs the file, and any of its sessions, raises
    InvalidArgumentError; a run() under way in another thread raises Cancelled there. A child of
    fork() may use the models that its parent loaded, and sessions that no other thread was in.
    """

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        n_threads: int = 0,
        verify: Literal["once", "always", "never"] = "once",
        max_memory_bytes: int = 0,
        n_ctx: int = 0,
        prefix_cache_bytes: int | None = None,
        latency_budget_ms: float = 0.0,
        kv_format: str = "K8V8",
        kv_cache_dir: str | os.PathLike[str] | None = None,
        kv_cache_disk_bytes: int = 2**30,
        speculate: Literal["off", "auto", "on", "always"] = "auto",
        draft_model: Model | None = None,
        draft_layers: int = 0,
        backend: str = "cpu",
        npu: list[tuple[str, str]] = [],
        header_sha256: str = "",
    ) -> Model:
        """Map the file and make it ready; weights are read when they are first used.

        n_threads: 0 means default_n_threads().
        verify: "once" hashes in the background and remembers success; what it finds wrong makes the
            next run() raise IntegrityError. "always" hashes before it returns.
        max_memory_bytes: cap on file + scratch + KV of all sessions; 0 means what the machine has
            available. MemoryBudgetError says what is needed, what there is and what to do.
        n_ctx: the longest context planned, for LongRoPE and the cap; 0: n_ctx_train, one page.
        prefix_cache_bytes: KV of ended texts kept for those that begin alike; None: 1/8 of all.
        latency_budget_ms: of a step that reads a prompt while other sessions decode; 0: twice what
            one without a prompt takes.
        kv_format: "F16", "K8V8", "K8V4" or "K6V4"; UnsupportedError for another name.
        kv_cache_dir: where KV goes that leaves memory, up to kv_cache_disk_bytes; None: nowhere.
            FormatError for a directory that cannot be used or that others may look into.
        speculate: as set_speculation(); "auto": if there is memory; "always": in any case.
        draft_model: guesses where sessions speculate; FormatError for other tokens.
        draft_layers: guess by the first so many layers; 0: none.
        header_sha256: what the file's edgellm.header_sha256 must be, or IntegrityError; "": any.
        """

    def close(self) -> None:
        """Free everything but what Tokenizer objects still use. Idempotent."""

    @property
    def closed(self) -> bool: ...
    @property
    def spec_json(self) -> str: ...
    @property
    def tokenizer(self) -> Tokenizer | None:
        """None if the file holds no tokenizer."""

    @property
    def metadata(self) -> dict[str, str]: ...
    def blob(self, name: str) -> bytes | None:
        """A copy of an opaque blob ("chat_template", "recipe", ...); None if absent."""

    @property
    def root(self) -> str: ...
    @property
    def n_vocab(self) -> int: ...
    @property
    def d_model(self) -> int: ...
    @property
    def n_ctx_train(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_ids(self) -> list[int]: ...
    @property
    def kv_format(self) -> str: ...
    @property
    def kv_bytes_per_token(self) -> int: ...  # until it leaves a layer's window
    @property
    def kv_groups(self) -> list[tuple[int, int, int]]:
        """By window (0: none), states last, with the bytes of a token and what the first 32 take
        beyond."""

    def kv_bytes(self, n_ctx: int = 0) -> int: ...  # of KV, that Session(self, n_ctx) reserves
    @property
    def session_bytes(self) -> int: ...  # that it reserves besides, for logits
    @property
    def scratch_bytes(self) -> int: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def load_ms(self) -> float: ...
    @property
    def verified_fraction(self) -> float:
        """Share of the file known to be right: 1.0 when verified now or before, 0.0 for "never"."""

    @property
    def kv_figures(self) -> KvFigures: ...
    def trim(self, n_bytes: int = 2**64 - 1) -> int:
        """Give back KV that no session holds, least recently used first; returns the bytes."""

    @property
    def expert_load(self) -> list[list[int]]:
        """By layer: tokens that went to each expert since load(), cancelled runs' included."""

    @property
    def n_threads(self) -> int: ...
    @property
    def backend(self) -> str: ...
    @property
    def host_layers(self) -> int: ...
    @property
    def graph_tokens(self) -> int: ...

class Session:
    """One sequence of tokens and its KV pages. For one thread at a time, except cancel().

    Tokens are queued by append() and processed by run(). n_tokens and token_ids count processed
    tokens only. A result never depends on how run() cut the queue into steps.
    """

    def __init__(
        self,
        model: Model,
        n_ctx: int = 0,
        adapter: Adapter | None = None,
        *,
        reuse_prefix: bool = True,
        namespace: str = "",
    ) -> None:
        """KV for n_ctx (0: n_ctx_train, the most) is reserved against the memory cap here, with
        MemoryBudgetError where it does not fit, and taken page by page as tokens come. adapter: one
        loaded with this model, through which all tokens go. reuse_prefix: run() takes the KV that
        texts of the same namespace and adapter have left, and leaves its own; bits are the same."""

    def fork(self) -> Session:
        """Another one with the same tokens, queue and logits; common KV is held once."""

    @property
    def n_ctx(self) -> int: ...
    @property
    def n_tokens(self) -> int: ...
    @property
    def pending(self) -> int: ...  # tokens queued and not yet processed
    @property
    def n_recompute(self) -> int: ...  # of n_tokens, by the next run: see rewind()
    @property
    def token_ids(self) -> list[int]: ...
    def append(self, ids: Sequence[int]) -> None:
        """Queue tokens: all or, on an error, none (InvalidArgumentError for an id outside the
        vocabulary, ContextOverflowError when n_tokens + pending would exceed n_ctx)."""

    def run(self, budget_ms: float = 80.0) -> bool:
        """Process queued tokens until none is left (True) or the budget is spent (False); at least
        one step, of up to 128 tokens. In the main thread Ctrl-C ends it within 80 ms or a part of a
        layer. Raises Cancelled after cancel() or Model.close(): the rest stays queued.
        """

    def run_with_logits(self, budget_ms: float = 80.0) -> npt.NDArray[np.float32]:
        """As run(); returns the logits [n_processed, n_vocab] of every token processed now."""

    def run_with_hidden(self, budget_ms: float = 80.0) -> npt.NDArray[np.float32]:
        """As run() without the head: returns what it would read, [n_processed, d_model]."""

    def rewind(self, n_tokens: int) -> None:
        """Keep the first n_tokens processed tokens; drop the others and the queue.

        Logits stay only if they are those of the last kept token; to sample again, rewind to one
        less and append it again. Farther back than 128 tokens layers with a window compute again.
        """

    def shift(self, n_sink: int, n_drop: int) -> None:
        """Tokens [n_sink, n_sink + n_drop) of the KV go, and the keys behind are turned to where
        they come to stand. Multiples of 16, n_sink at least 32. They still count in n_tokens and
        stand in token_ids. UnsupportedError for learned positions and after compress()."""

    def stream_within(self, n_sink: int, window: int) -> None:
        """From now on a full KV shifts out all but n_sink and at least `window` of the last
        tokens; n_sink + window <= n_ctx - 16."""

    def compress(self, n_keep: int, *, n_sink: int = 4, window: int = 32, pool: int = 7) -> None:
        """Leave every kv head n_keep tokens: the first n_sink, the last `window`, and those that
        these pay attention to, shares pooled over `pool` tokens. Processes the window once more.
        Nothing may be pending. UnsupportedError for layers with a window and after shift()."""

    def trim(self, n_bytes: int = ...) -> int:
        """Give KV back until the OS has got n_bytes, as far as the next run() can compute it again
        with the same bits (n_recompute); returns the bytes that the OS got."""

    @property
    def kept_ranges(self) -> list[tuple[int, int]]: ...  # (first, end) that any kv head sees
    @property
    def n_dropped(self) -> int: ...  # of n_tokens, those that a kv head does not see
    def most_tokens_after(self, n_tokens: int) -> int:
        """How many tokens the session may come to have after rewind(n_tokens): n_ctx, and as many
        more as were shifted or compressed out of its KV before, within the model's positions."""

    def set_priority(self, priority: int) -> None:
        """Before sessions of lower priority where a step has not room for all; 0 at first."""

    def set_speculation(self, is_on: bool) -> None:
        """Guess what follows a single token. MemoryBudgetError; UnsupportedError if namespaced."""

    def set_adapter(self, adapter: Adapter | None) -> None:
        """Another adapter from now on. Unless its root is the same, all tokens and the queue go,
        since their keys and values are the other one's.
        """

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits [n_vocab] of the last processed token; InvalidArgumentError if there are none."""

    def sample(
        self,
        params: SamplerParams,
        step: int | None = None,
        n_prompt: int | None = None,
        allowed: npt.NDArray[np.uint32] | None = None,
    ) -> tuple[int, float]:
        """Choose the next token: (id, log probability under the raw softmax). Does not append it.

        step: counter of the random stream, the position of the token to come if None. The same
        (logits, params, history, step) gives the same token on any CPU. NumericError on non-finite
        logits. n_prompt: how many of the tokens so far were not generated; rules about generated
        tokens raise InvalidArgumentError without it. allowed: uint32 [ceil(n_vocab / 32)], one bit
        for each id, the lowest id in the lowest bit; ids without it are out before rules and
        filters, and InvalidArgumentError if none is left.
        """

    def top_logprobs(self, k: int) -> list[tuple[int, float]]:
        """The k most likely next tokens with their log probabilities under the raw softmax."""

    def save(self, path: str | os.PathLike[str], note: bytes = b"") -> None:
        """Write what was processed, its KV and `note` (at most 64 MiB) to a file, which is there
        whole or not at all. InvalidArgumentError while tokens are pending, FormatError when it
        cannot be written."""

    def restore(self, file: SessionFile) -> None:
        """Of a session without tokens: go on where the saved one stopped, with the same bits.
        SessionError, ContextOverflowError: the session has no tokens then, as before."""

    @property
    def identity(self) -> dict[str, str]: ...  # as SessionFile's
    def cancel(self) -> None:
        """Make the current run(), or else the next one, raise Cancelled once. From any thread."""

    @property
    def stats(self) -> SessionStats: ...
    def close(self) -> None:
        """Free the KV pages now; any later use raises InvalidArgumentError. Idempotent."""
