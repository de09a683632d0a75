"""Will this model run on that device: memory by part, what would fit instead, speeds, disk, start.

From the header of the file and a hardware profile alone: no weight is read, nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from .edgeheader import EdgeHeader
from .errors import ContextOverflowError, FormatError, InvalidArgumentError, UnsupportedError
from .layer_split import STEP_BYTES, host_layers
from .long_context import context_of
from .options import BACKENDS, DEFAULT_KV, KV_FORMATS, device_of
from .planner import (
    ADVISED_FORMATS,
    PAGE_TOKENS,
    MemoryPlan,
    file_bytes_as,
    layers_of,
    mib,
    plan_of,
)
from .profiles import HardwareProfile
from .speed import Speed, decode_speed, prefill_speed
from .work import work_of

# Python, the native module and what a text or a chat takes of the heap; docs/PLAN.md.
PROGRAM_BYTES = 14 << 20
# Of each page that is in memory: its entry in a page table, and in the index of the page cache.
_PAGE_BYTES, _KERNEL_BYTES_A_PAGE = 4096, 17
_STREAMED_WINDOW = 1024  # last tokens that stay, of texts without an end
_SMALLER_KV = ("F16", "K8V8", "K8V4", "K6V4")  # by size
_MOST_TEXTS = 1024
_GPU_COPY = "gpu copy"


@dataclass(frozen=True)
class Wish:
    """What somebody wants to run: `parallel` texts of `n_ctx` tokens each. `format`: of the
    weights, None: as they are; `window`: of texts without an end (docs/KV.md), 0: none."""

    n_ctx: int
    kv: str
    parallel: int = 1
    format: str | None = None
    window: int = 0


@dataclass(frozen=True)
class Way:
    """Something nearby that fits: what to change, and what it takes then."""

    change: str
    wish: Wish
    total_bytes: int


@dataclass(frozen=True)
class DevicePlan:
    """`parts`: bytes by name, of which `total_bytes` is the sum; `limit_bytes`: what there is, None
    where nobody knows, and `limit_source` says of whom that is. `max_memory_bytes`: what to give to
    `load(max_memory=)`, which keeps to it: all but the program, the kernel and a GPU's copy.
    `threads`: the device's choice. `disk_bytes`: of the file. `startup_s`: reading it from a cold
    disk, None if that is unknown. `host_layers`: the first so many layers run on the CPU where the
    GPU's own memory is short, None if not even the head fits there."""

    device: str
    backend: str
    wish: Wish
    parts: dict[str, int]
    limit_bytes: int | None
    limit_source: str
    ways: tuple[Way, ...]
    threads: int | None
    decode: Speed | None
    prefill: Speed | None
    disk_bytes: int
    startup_s: float | None
    host_layers: int | None = 0

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())

    @property
    def max_memory_bytes(self) -> int:
        return sum(self.parts[name] for name in ("file", "scratch", "logits", "kv"))

    @property
    def load_arguments(self) -> dict[str, Any]:
        """What to give to `load()` for this plan; `threads` None: as the machine has cores."""
        return {
            "backend": self.backend,
            "threads": self.threads if self.backend == "cpu" else None,
            "kv": self.wish.kv,
            "n_ctx": self.wish.n_ctx,
            "max_memory": self.max_memory_bytes,
        }

    @property
    def fits(self) -> bool | None:
        """None where the limit is unknown."""
        return None if self.limit_bytes is None else self.total_bytes <= self.limit_bytes

    def to_dict(self) -> dict[str, Any]:
        """As `edgellm plan --json` prints it."""
        own = asdict(self)
        own["parts"] = dict(self.parts)
        keys = ("total_bytes", "max_memory_bytes", "load_arguments", "fits")
        return {**own, **{key: getattr(self, key) for key in keys}}


def plan_on(
    header: EdgeHeader,
    profile: HardwareProfile | None,
    *,
    n_ctx: int | None = None,
    kv: str | None = None,
    parallel: int = 1,
    backend: str | None = None,
    limit_bytes: int | None = None,
) -> DevicePlan:
    """The plan of a file on a class of devices, or on this machine, as it is now, without a
    profile. What is left out is the profile's choice; `limit_bytes` takes the place of its share
    of the RAM. FormatError for what is no model, ContextOverflowError for a context that it does
    not have, InvalidArgumentError, UnsupportedError."""
    if not layers_of(header.spec):
        message = f"{header.path} is no model but something beside one; plan the model"
        raise FormatError(message, code="spec_invalid")
    chosen = _backend(profile, backend)
    wish = _wish(header, profile, n_ctx, kv, parallel)
    limit, source = _limit(profile, chosen, limit_bytes)
    memory = plan_of(header, 0, wish.kv)
    work = work_of(header)
    speeds: tuple[Speed | None, Speed | None] = (None, None)
    startup = None
    if profile is not None:
        decode = decode_speed(profile, chosen, work, memory, wish.n_ctx)
        speeds = decode, prefill_speed(profile, chosen, work, wish.n_ctx)
        disk = profile.storage.read_gb_per_s
        startup = None if disk is None else header.file_bytes / (1e9 * disk.value)
    made = DevicePlan(
        device="this machine" if profile is None else profile.name,
        backend=chosen,
        wish=wish,
        parts=parts_of(memory, wish, _copies(profile, chosen)),
        limit_bytes=limit,
        limit_source=source,
        ways=(),
        threads=None if profile is None else profile.defaults.threads,
        decode=speeds[0],
        prefill=speeds[1],
        disk_bytes=header.file_bytes,
        startup_s=startup,
        host_layers=_host_layers(header, profile, chosen, memory, wish),
    )
    if made.host_layers != 0:  # figures are of one or the other
        made = replace(made, decode=None, prefill=None)
    if made.fits is not False or limit is None:
        return made
    return replace(made, ways=tuple(_ways(header, made, limit, _copies(profile, chosen))))


def parts_of(memory: MemoryPlan, wish: Wish, n_copies: int = 0) -> dict[str, int]:
    """Bytes by part: the mapped file, and what is taken besides. n_copies: of the weights, in
    memory that a GPU shares with the program."""
    parts = {
        "file": memory.file_bytes,
        "scratch": memory.scratch_bytes,
        "logits": wish.parallel * memory.session_bytes,
        "kv": wish.parallel * memory.kv_bytes_at(wish.n_ctx),
        "program": PROGRAM_BYTES,
    }
    if n_copies:
        parts[_GPU_COPY] = n_copies * memory.file_bytes
    return {**parts, "kernel": sum(parts.values()) * _KERNEL_BYTES_A_PAGE // _PAGE_BYTES}


def _wish(
    header: EdgeHeader,
    profile: HardwareProfile | None,
    n_ctx: int | None,
    kv: str | None,
    parallel: int,
) -> Wish:
    n_train = plan_of(header, 0).n_ctx_train
    if kv is None:
        kv = DEFAULT_KV if profile is None else profile.defaults.kv
    if kv not in KV_FORMATS:
        message = f"KV format {kv!r:.40} is not available; this version has: " + ", ".join(
            KV_FORMATS
        )
        raise UnsupportedError(message, code="feature_unsupported")
    if not 1 <= parallel <= _MOST_TEXTS:
        message = f"parallel must be in 1..{_MOST_TEXTS} texts, but is {parallel}"
        raise InvalidArgumentError(message, code="invalid_argument")
    if n_ctx is None:
        n_ctx = min(n_train, 4096 if profile is None else profile.defaults.n_ctx)
    elif n_ctx < 1:
        message = f"context must be 1 token or more, but is {n_ctx}"
        raise InvalidArgumentError(message, code="invalid_argument")
    elif n_ctx > n_train:
        message = f"a context of {n_ctx} tokens, but this model has {n_train}; ask for no more"
        raise ContextOverflowError(message, code="context_overflow")
    return Wish(n_ctx, kv, parallel)


def _backend(profile: HardwareProfile | None, backend: str | None) -> str:
    if backend is None:
        return "cpu" if profile is None else profile.backend
    if backend not in BACKENDS:
        message = f"backend {backend!r:.40} is not available; this version has: " + ", ".join(
            BACKENDS
        )
        raise UnsupportedError(message, code="backend_unsupported")
    if backend != "cpu" and profile is not None and profile.accelerator(device_of(backend)) is None:
        message = f"{profile.name} has nothing that backend {backend!r} drives; take cpu"
        raise UnsupportedError(message, code="backend_unsupported")
    return backend


def _limit(
    profile: HardwareProfile | None, backend: str, limit_bytes: int | None
) -> tuple[int | None, str]:
    if limit_bytes is not None:
        return limit_bytes, "as asked for"
    if profile is None:
        from . import _native

        figures = _native.memory_figures()
        return figures["available_bytes"], f"available now, of {mib(figures['total_bytes'])}"
    own = _own_memory(profile, backend)
    if own is not None:
        return own, "memory of the GPU"
    app, ram, share = profile.app_bytes, profile.memory.ram_bytes, profile.memory.app_share
    if app is None or ram is None or share is None:
        return None, "unknown"
    return app, f"{share.value:.0%} of {mib(ram.value)}, {share.basis}"


def _own_memory(profile: HardwareProfile | None, backend: str) -> int | None:
    accelerator = None if profile is None else profile.accelerator(device_of(backend))
    if accelerator is None or accelerator.memory_bytes is None:
        return None
    return accelerator.memory_bytes.value


def _host_layers(
    header: EdgeHeader,
    profile: HardwareProfile | None,
    backend: str,
    memory: MemoryPlan,
    wish: Wish,
) -> int | None:
    own = _own_memory(profile, backend)
    if own is None:
        return 0
    return host_layers(header, own - STEP_BYTES - wish.parallel * memory.kv_bytes_at(wish.n_ctx))


def _copies(profile: HardwareProfile | None, backend: str) -> int:
    """A GPU that shares the RAM has its copy of the weights there, beside the mapped file."""
    return int(backend != "cpu" and _own_memory(profile, backend) is None)


Taking = Callable[[str, Wish], Way]


def _ways(header: EdgeHeader, made: DevicePlan, limit: int, n_copies: int) -> Iterator[Way]:
    """One change each, the smallest that is enough; where none is, smaller KV and weights both, and
    where that is not, one text as long as may be."""

    def took(wish: Wish) -> int:
        return sum(parts_of(_memory(header, wish), wish, n_copies).values())

    def way(change: str, wish: Wish) -> Way:
        return Way(change, wish, took(wish))

    def first(candidates: Iterable[Way]) -> Way | None:
        return next((one for one in candidates if one.total_bytes <= limit), None)

    found = [
        first(candidates)
        for candidates in (
            (way(f"--kv {kv}", replace(made.wish, kv=kv)) for kv in _smaller_kv(made.wish)),
            _shorter(header, made.wish, limit, n_copies, way),
            (
                way(f"--parallel {n}", replace(made.wish, parallel=n))
                for n in range(made.wish.parallel - 1, 0, -1)
            ),
            (
                way(f"edgellm convert --format {name}", replace(made.wish, format=name))
                for name in _smaller_formats(header)
            ),
            _streaming(header, made.wish, way),
        )
    ]
    if not any(found):
        least = replace(made.wish, kv=_SMALLER_KV[-1])
        both = [replace(least, format=name) for name in _smaller_formats(header)]
        found = [first(way(_all_changes(wish), wish) for wish in both)]
    if not any(found):
        alone = [replace(wish, parallel=1) for wish in both]
        shorter = (
            one
            for wish in alone
            for one in _shorter(
                header, wish, limit, n_copies, lambda _, wish: way(_all_changes(wish), wish)
            )
        )
        found = [first(shorter)]
    yield from (one for one in found if one is not None)


def _all_changes(wish: Wish) -> str:
    sizes = f"--kv {wish.kv}, --parallel {wish.parallel}, --context {wish.n_ctx}"
    return f"edgellm convert --format {wish.format}, {sizes}"


def _memory(header: EdgeHeader, wish: Wish) -> MemoryPlan:
    memory = plan_of(header, 0, wish.kv)
    if wish.format is None:
        return memory
    return replace(memory, file_bytes=file_bytes_as(header, wish.format))


def _smaller_kv(wish: Wish) -> tuple[str, ...]:
    return _SMALLER_KV[_SMALLER_KV.index(wish.kv) + 1 :]


def _smaller_formats(header: EdgeHeader) -> list[str]:
    """Largest first."""
    sizes = {name: file_bytes_as(header, name) for name in ADVISED_FORMATS}
    smaller = [name for name in sizes if sizes[name] < header.file_bytes]
    return sorted(smaller, key=lambda name: sizes[name], reverse=True)


def _shorter(
    header: EdgeHeader, wish: Wish, limit: int, n_copies: int, way: Taking
) -> Iterator[Way]:
    """The longest context that fits, if one does."""
    memory = _memory(header, wish)
    besides = PROGRAM_BYTES + n_copies * memory.file_bytes
    room = limit * _PAGE_BYTES // (_PAGE_BYTES + _KERNEL_BYTES_A_PAGE) - besides
    n_ctx = replace(memory, limit_bytes=room).n_ctx_fit_of(wish.parallel)
    n_ctx = min(n_ctx, wish.n_ctx)
    if n_ctx >= PAGE_TOKENS:
        yield way(f"--context {n_ctx}", replace(wish, n_ctx=n_ctx))


def _streaming(header: EdgeHeader, wish: Wish, way: Taking) -> Iterator[Way]:
    """Texts without an end, that see the first and the last tokens."""
    try:
        n_ctx = context_of(_STREAMED_WINDOW, plan_of(header, 0).n_ctx_train)
    except InvalidArgumentError:  # the model has no more than the window
        return
    if n_ctx < wish.n_ctx:
        streamed = replace(wish, n_ctx=n_ctx, window=_STREAMED_WINDOW)
        yield way(f"generate(window={_STREAMED_WINDOW}), which forgets what is between", streamed)
