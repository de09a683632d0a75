"""What a caller can ask for, checked before any work: load options and generation options.

Knows no model: limits that depend on one (context length, vocabulary) are checked in `stream.py`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Required, get_args

from .errors import InvalidArgumentError, UnsupportedError
from .response_format import ResponseFormat
from .sampling import SamplingArguments, SamplingRules
from .watching import CancelToken, PrefillProgress

if TYPE_CHECKING:
    from .model import Model
    from .signature import RequireSignature

VerifyMode = Literal["once", "always", "never"]
Speculate = bool | Literal["auto", "always"]
DEFAULT_SPECULATE: Speculate = "auto"  # as the runtime's
SPECULATE_NAMES: dict[Speculate, Literal["off", "auto", "on", "always"]] = {  # the runtime's
    False: "off",
    True: "on",
    "auto": "auto",
    "always": "always",
}
BACKENDS = ("cpu", "cuda", "cuda-fp8", "metal", "vulkan", "npu")
KvFormat = Literal["F16", "K8V8", "K8V4", "K6V4"]
KV_FORMATS: tuple[str, ...] = get_args(KvFormat)
DEFAULT_KV: KvFormat = "K8V8"
EVALUATION_KV: KvFormat = "F16"  # so that figures are of the weights
DEFAULT_KV_CACHE_DISK_BYTES = 2**30
_MAX_SEED = 2**64 - 1
_MAX_TEMPERATURE = 100.0
_MAX_COMPRESS = 1000.0
_MAX_NAMESPACE_BYTES = 1024


def speculate_as(asked: Speculate | None, has_drafts: bool) -> Speculate:
    """`asked`, or else the default, but on where something was given to guess with."""
    if asked is not None:
        return asked
    return True if has_drafts else DEFAULT_SPECULATE


def device_of(backend: str) -> str:
    """What a backend drives, as hardware profiles name it: "cuda" of "cuda-fp8"."""
    return backend.removesuffix("-fp8")


def uses_graphs(backend: str) -> bool:
    """ "npu", or "npu:TARGET" where a model has graphs for several targets."""
    return backend.partition(":")[0] == "npu"


def _fail(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, code="invalid_argument")


@dataclass(frozen=True)
class LoadOptions:
    """How a model is opened. `threads=None`: the physical performance cores this process may use.

    `backend`: "cpu", "cuda", "metal", "vulkan", or "npu" for graphs beside the file, "npu:TARGET"
    where there are several (docs/NPU.md). Graphs keep KV as F16: "K8V8", the default, stands for
    that there, and others are refused. "cuda-fp8" is "cuda" that reads prompts with 8-bit floats,
    which changes answers a little (docs/backends.md).
    `max_memory` is in bytes: file + KV cache + scratch must fit, or loading fails before any
    weight is read. `verify`: "once" hashes in the background and remembers, "always" hashes
    everything before the model can be used, "never" checks the header only. `n_ctx`: the longest
    context meant, None for all that the model was trained for; its KV cache must fit as well, and a
    model that turns short and long contexts by different tables gets the right one for good. With
    graphs for an NPU None stands for what they hold; what is beyond runs on the CPU.
    `kv`: how keys and values are kept: "K8V8"; "F16", which takes twice as much; "K8V4" or "K6V4",
    three quarters and two thirds, of which answers differ a little more (docs/KV.md).
    `prefix_cache`: bytes of KV of ended texts that are kept for texts that begin alike, None for an
    eighth of the memory left for KV; it gives way where sessions need the memory.
    `kv_cache_dir`: a directory for KV that leaves memory, None for none; a later text, in a later
    process, too, begins with what is there. Up to `kv_cache_disk_bytes`, used least recently goes
    first; private, and made if it is not there (docs/SESSIONS.md).
    `latency_budget_ms`: what a step of the model may take that reads a prompt while other texts go
    on; None: twice what one without a prompt takes.
    `speculate`: guess tokens and verify several in one step, which changes no token
    (docs/SPECULATION.md): True, False, or "auto", which is True where there is memory to spare.
    "always" does not ask whether it pays, for tests and measurements.
    `draft_model`: a small model with the same tokens that guesses as well: a file, a name or an
    open model, of which file, scratch and KV count for `max_memory`. `draft_layers`: guess by the
    first so many layers of the model itself; 0: not (docs/SPECULATION.md says when that pays).
    `require_signature`: the file of a public key with which every file that is opened must be
    signed, before it is mapped; True: one of those of the fleets that this device trusts; None: no
    signature is asked for (docs/SIGNING.md).
    """

    backend: str = "cpu"
    threads: int | None = None
    kv: str = DEFAULT_KV
    max_memory: int | None = None
    verify: VerifyMode = "once"
    n_ctx: int | None = None
    prefix_cache: int | None = None
    latency_budget_ms: float | None = None
    kv_cache_dir: str | os.PathLike[str] | None = None
    kv_cache_disk_bytes: int = DEFAULT_KV_CACHE_DISK_BYTES
    speculate: Speculate = DEFAULT_SPECULATE
    draft_model: str | os.PathLike[str] | Model | None = None
    draft_layers: int = 0
    require_signature: RequireSignature = None

    def __post_init__(self) -> None:
        if self.speculate not in (True, False, "auto", "always"):
            known = "True, False, 'auto' or 'always'"
            raise _fail(f"speculate must be {known}, but is {self.speculate!r}")
        if not 0 <= self.draft_layers < 2**31:
            raise _fail(f"draft_layers must be in 0..2**31-1, but is {self.draft_layers}")
        if self.backend not in BACKENDS and not uses_graphs(self.backend):
            known = ", ".join(BACKENDS)
            message = f"backend {self.backend!r} is not available; this version has: {known}"
            raise UnsupportedError(message, code="backend_unsupported")
        if self.kv not in KV_FORMATS:
            known = ", ".join(KV_FORMATS)
            message = f"KV format {self.kv!r} is not available; this version has: {known}"
            raise UnsupportedError(message, code="feature_unsupported")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise _fail(f"threads must be in 1..1024 or None, but is {self.threads}")
        if self.max_memory is not None and not 1 <= self.max_memory < 2**63:
            raise _fail(f"max_memory must be in 1..2**63-1 bytes, but is {self.max_memory}")
        if self.verify not in get_args(VerifyMode):
            raise _fail(f"verify must be 'once', 'always' or 'never', but is {self.verify!r}")
        if self.n_ctx is not None and not 1 <= self.n_ctx < 2**31:
            raise _fail(f"n_ctx must be in 1..2**31-1 or None, but is {self.n_ctx}")
        budget = self.latency_budget_ms
        if budget is not None and not 0 < budget < math.inf:
            raise _fail(f"latency_budget_ms must be above 0 or None, but is {budget}")
        if self.prefix_cache is not None and not 0 <= self.prefix_cache < 2**63:
            raise _fail(f"prefix_cache must be in 0..2**63-1 bytes, but is {self.prefix_cache}")
        if not 1 <= self.kv_cache_disk_bytes < 2**63:
            raise _fail(
                f"kv_cache_disk_bytes must be in 1..2**63-1, but is {self.kv_cache_disk_bytes}"
            )
        if self.kv_cache_dir is not None and not os.fspath(self.kv_cache_dir):
            raise _fail("kv_cache_dir must be the name of a directory or None, but is empty")


class GenerateArguments(SamplingArguments, total=False):
    """Keyword arguments of what generates text; `GenerateOptions` has the defaults."""

    max_tokens: Required[int]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    stop: str | Sequence[str] | None
    stop_ids: Sequence[int] | None
    logprobs: int
    signals: bool
    compress: float
    window: int
    priority: int
    namespace: str
    speculate: bool | None
    response_format: Mapping[str, Any] | ResponseFormat | None
    cancel: CancelToken | None
    on_prefill: Callable[[PrefillProgress], None] | None


@dataclass(frozen=True)
class GenerateOptions:
    """How text is drawn. temperature 0 is greedy; the others narrow the choice when it is not.

    `top_k=0`, `top_p=1` and `min_p=0` mean "no limit". The same seed gives the same tokens on any
    CPU. `stop` are strings that end the text and are not part of it; `stop_ids=None` stops at the
    model's own end-of-text tokens, `()` at none. `logprobs` is how many of the most likely tokens
    are reported with every token; `rules` are the penalties and other rules of `SamplingRules`.
    `signals`: report how sure the model was of every token (docs/CONFIDENCE.md).

    `compress=16` leaves one of 16 tokens of the prompt in the KV cache once it was read, those that
    its end pays attention to; 1 leaves all. `window=1024` lets a text of any length run in the
    memory of the first 32 and about so many last tokens; 0: it ends where the context does. The
    result says what was kept; docs/KV.md what it costs.

    `priority`: where a step of the model has not room for all texts that go on at the same time,
    higher ones go first. `namespace`: texts begin with KV that others have left only where theirs
    is the same, so that how fast a prompt is read tells nothing of other tenants' prompts.
    `speculate`: as for `load()`, for this text; None: as the model was loaded, but texts with a
    namespace never do.

    `response_format`: the answer is JSON, JSON of a schema, or matches a regular expression or a
    grammar; `ResponseFormat.of()` says how to name it, docs/STRUCTURED.md what is enforced.

    `cancel`: a token that ends this text, and others that have it. `on_prefill` is told how far the
    prompt is read, in the thread that computes; what it raises ends the text.
    """

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] | None = None
    logprobs: int = 0
    rules: SamplingRules = field(default_factory=SamplingRules)
    signals: bool = False
    compress: float = 1.0
    window: int = 0
    priority: int = 0
    namespace: str = ""
    speculate: bool | None = None
    response_format: ResponseFormat | None = None
    cancel: CancelToken | None = None
    on_prefill: Callable[[PrefillProgress], None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "response_format", ResponseFormat.of(self.response_format))
        if self.max_tokens < 1:
            raise _fail(f"max_tokens must be at least 1, but is {self.max_tokens}")
        if not 0 <= self.temperature <= _MAX_TEMPERATURE:
            raise _fail(f"temperature must be in 0..100, but is {self.temperature}")
        if not 0 <= self.top_k < 2**31:
            raise _fail(f"top_k must be in 0..2**31-1 (0: no limit), but is {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise _fail(f"top_p must be in (0, 1], but is {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise _fail(f"min_p must be in [0, 1], but is {self.min_p}")
        if not 0 <= self.seed <= _MAX_SEED:
            raise _fail(f"seed must be in 0..2**64-1, but is {self.seed}")
        if not 0 <= self.logprobs < 2**31:
            raise _fail(f"logprobs must be in 0..2**31-1 (0: none), but is {self.logprobs}")
        if not 1 <= self.compress <= _MAX_COMPRESS:
            raise _fail(f"compress must be in 1..{_MAX_COMPRESS:g}, but is {self.compress}")
        if not 0 <= self.window < 2**31:
            raise _fail(f"window must be in 0..2**31-1 (0: none), but is {self.window}")
        if self.compress > 1 and self.window > 0:
            raise _fail("compress and window do not go together; choose one")
        check_standing(self.priority, self.namespace)
        if self.rules.min_tokens > self.max_tokens:
            raise _fail(
                f"min_tokens must be at most max_tokens, {self.max_tokens}, but is "
                f"{self.rules.min_tokens}"
            )

    @classmethod
    def of(cls, arguments: GenerateArguments) -> GenerateOptions:
        """From keyword arguments: those of its own, and those of `SamplingRules`."""
        values: dict[str, Any] = dict(arguments)
        names = {one.name for one in fields(cls)} - {"rules"}
        own = {name: values.pop(name) for name in names & values.keys()}
        if "stop" in own:
            own["stop"] = as_stops(own["stop"])
        if own.get("stop_ids") is not None:
            own["stop_ids"] = tuple(own["stop_ids"])
        return cls(**own, rules=SamplingRules(**values))

    def sample_seed(self, i: int) -> int:
        """The seed of the i-th of several samples of one prompt."""
        return (self.seed + i) % (_MAX_SEED + 1)


def check_standing(priority: int, namespace: str = "") -> None:
    """Of a text among others. InvalidArgumentError."""
    if not -(2**31) <= priority < 2**31:
        raise _fail(f"priority must be in -2**31..2**31-1, but is {priority}")
    if not isinstance(namespace, str):
        raise _fail(f"namespace must be a str, but is {type(namespace).__name__}")
    n_bytes = len(namespace.encode("utf-8", "surrogatepass"))
    if n_bytes > _MAX_NAMESPACE_BYTES:
        raise _fail(f"namespace may have {_MAX_NAMESPACE_BYTES} bytes as UTF-8, but has {n_bytes}")
    if any("\ud800" <= character <= "\udfff" for character in namespace):
        raise _fail("namespace holds half of a surrogate pair, which UTF-8 cannot hold")


def as_stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """One stop string or several, as a tuple."""
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)
