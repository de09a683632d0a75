"""A stand-in for `edgellm._native` with a scripted model, so that the SDK is tested on its own.

One token is one byte; id 256 ends the text and id 257 begins it. The model "predicts" a script of
ids whatever the prompt, its logits are the position in every column, and a slice of `run()`
processes at most `SLICE_TOKENS` tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from edgellm.errors import Cancelled, InvalidArgumentError

EOS, BOS, N_VOCAB, N_CTX, SLICE_TOKENS = 256, 257, 258, 64, 4
SCRIPT: list[int] = []  # ids the model will choose, in order; then EOS
LIVE_SESSIONS: set[int] = set()
RUN_CALLS: list[int] = []  # tokens processed by each run()


def memory_figures() -> dict[str, int]:
    return {"total_bytes": 8, "available_bytes": 4, "rss_bytes": 1, "peak_rss_bytes": 2}


def active_isa() -> str:
    return "scalar"


class Tokenizer:
    n_vocab = N_VOCAB

    def encode(self, text: str, special: bool = False, bos: bool = True) -> list[int]:
        return ([BOS] if bos else []) + list(text.encode())

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class StreamDecoder:
    def __init__(self, tokenizer: Tokenizer, special: bool = False) -> None:
        self._held = b""

    def push(self, id: int) -> str:
        if id >= 256:
            return ""
        self._held += bytes([id])
        try:
            text = self._held.decode()
        except UnicodeDecodeError:
            return ""
        self._held = b""
        return text

    def flush(self) -> str:
        held, self._held = self._held, b""
        return held.decode(errors="replace")


class Model:
    n_ctx_train = N_CTX
    n_vocab = N_VOCAB
    file_bytes = 1000
    kv_bytes_per_token = 16
    session_bytes = 4 * N_VOCAB

    def kv_bytes(self, n_ctx: int = 0) -> int:
        return 16 * (n_ctx or N_CTX)

    load_ms = 0.5
    verified_fraction = 1.0
    expert_load = ([], [])
    backend = "cpu"
    host_layers = 0
    graph_tokens = 0
    root = "00" * 32
    spec_json = json.dumps({"layers": [{}, {}]})
    metadata = {  # noqa: RUF012
        "edgellm.tensors": json.dumps(
            {
                "token_embd": {"role": "token_embd", "format": "F16", "shape": [258, 4]},
                "tokenizer": {"role": "tokenizer", "format": "U8", "shape": [9]},
            }
        )
    }

    def __init__(self, n_threads: int, kv_format: str = "K8V8") -> None:
        self.n_threads = n_threads
        self.kv_format = kv_format
        self.closed = False
        self.tokenizer: Tokenizer | None = Tokenizer()

    @staticmethod
    def load(
        path: object,
        *,
        n_threads: int,
        verify: str,
        max_memory_bytes: int,
        n_ctx: int,
        prefix_cache_bytes: int | None,
        latency_budget_ms: float = 0.0,
        kv_format: str = "K8V8",
        kv_cache_dir: object = None,
        kv_cache_disk_bytes: int = 0,
        speculate: str = "auto",
        draft_model: object = None,
        draft_layers: int = 0,
        backend: str = "cpu",
        npu: Sequence[tuple[str, str]] = (),
        header_sha256: str = "",
    ) -> Model:
        return Model(n_threads or 1, kv_format)

    @property
    def eos_ids(self) -> list[int]:
        return [EOS]

    def close(self) -> None:
        self.closed = True


class SamplerParams:
    def __init__(self, **values: float) -> None:
        self.values = values


class Session:
    def __init__(
        self,
        model: Model,
        n_ctx: int = 0,
        adapter: object = None,
        *,
        reuse_prefix: bool = True,
        namespace: str = "",
    ) -> None:
        self._model, self._n_ctx = model, n_ctx
        self._queue: list[int] = []
        self._ids: list[int] = []
        self._n_tokens = self._n_sampled = 0
        self._cancelled = self._closed = False
        self.n_dropped = self.priority = 0
        self.is_speculating = False
        LIVE_SESSIONS.add(id(self))

    def append(self, ids: Sequence[int]) -> None:
        self._check()
        assert self._n_tokens + len(self._queue) + len(ids) <= self._n_ctx
        self._queue.extend(ids)
        self._ids.extend(ids)

    def rewind(self, n_tokens: int) -> None:
        self._check()
        self._queue.clear()
        del self._ids[n_tokens:]
        self._n_tokens = n_tokens

    def most_tokens_after(self, n_tokens: int) -> int:
        return self._n_ctx

    def set_priority(self, priority: int) -> None:
        self.priority = priority

    def set_speculation(self, is_on: bool) -> None:
        self.is_speculating = is_on

    def run(self, budget_ms: float = 80.0) -> bool:
        self._check()
        if self._cancelled or self._model.closed:
            self._cancelled = False
            raise Cancelled("cancelled", code="cancelled")
        n = min(SLICE_TOKENS, len(self._queue))
        RUN_CALLS.append(n)
        del self._queue[:n]
        self._n_tokens += n
        return not self._queue

    def run_with_logits(self, budget_ms: float = 80.0) -> np.ndarray:
        before = self._n_tokens
        self.run(budget_ms)
        rows = np.arange(before, self._n_tokens, dtype=np.float32)
        return np.repeat(rows[:, None], N_VOCAB, axis=1)

    @property
    def n_ctx(self) -> int:
        return self._n_ctx

    @property
    def n_tokens(self) -> int:
        return self._n_tokens

    @property
    def n_recompute(self) -> int:
        return 0

    @property
    def pending(self) -> int:
        return len(self._queue)

    @property
    def stats(self) -> dict[str, object]:
        return {
            "n_reused_tokens": 0,
            "n_disk_tokens": 0,
            "is_speculating": self.is_speculating,
            "drafters": {},
            "saved_ms": 0.0,
            "n_capped_steps": 0,
        }

    @property
    def token_ids(self) -> list[int]:
        return self._ids[: self._n_tokens]

    def sample(
        self,
        params: SamplerParams,
        step: int | None = None,
        n_prompt: int | None = None,
        allowed: object = None,
    ) -> tuple[int, float]:
        self._n_sampled += 1
        script = [*SCRIPT, EOS]
        return script[min(self._n_sampled, len(script)) - 1], -0.5

    def cancel(self) -> None:
        self._check()
        self._cancelled = True

    def close(self) -> None:
        self._closed = True
        LIVE_SESSIONS.discard(id(self))

    def _check(self) -> None:
        if self._closed:
            raise InvalidArgumentError("the session is closed", code="invalid_argument")

    def __del__(self) -> None:
        LIVE_SESSIONS.discard(id(self))
