"""What is known of a class of devices, as data: every figure with what it rests on.

Units stand in the names. A figure that nobody knows is left out: None. Knows neither files nor
models.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Generic, Literal, TypeVar, get_args

from ..errors import FormatError
from ..options import BACKENDS, KV_FORMATS

Basis = Literal["measured", "vendor", "estimated"]
BASES: tuple[str, ...] = get_args(Basis)
KINDS = ("board", "phone", "laptop", "desktop", "server", "any")
ISAS = (
    *("avx512vnni", "avx512bw", "avxvnni", "avx2", "sse41"),
    *("neon_i8mm", "neon_dot", "neon", "scalar"),
)
# Of accelerators: what this version has, and what export and other runtimes reach.
ACCELERATOR_BACKENDS = ("cuda", "metal", "vulkan", "coreml", "qnn", "openvino", "vitisai")
MAX_TEXT = 300

Value = TypeVar("Value", int, float, str)


@dataclass(frozen=True)
class Figure(Generic[Value]):
    """`value`, and why it should be believed: "measured" by `edgellm bench`, whose report stands
    beside the profile as `report`; told by the "vendor"; or "estimated". `source` says by whom."""

    value: Value
    basis: Basis
    source: str
    report: str | None = None


Number = Figure[float]
Whole = Figure[int]


def _number(low: float, high: float) -> dict[str, Any]:
    return {"figure": float, "range": (low, high)}


def _whole(low: int, high: int) -> dict[str, Any]:
    return {"figure": int, "range": (low, high)}


def _choice(values: tuple[str, ...]) -> dict[str, Any]:
    return {"figure": str, "choices": values}


@dataclass(frozen=True)
class Cpu:
    """`isa`: a level of `_native.isa_levels()`; `cores`: those that are worth a thread;
    `int8_gmac_per_s`: 1e9 int8 multiply-adds a second, of all of these."""

    isa: Figure[str] | None = field(default=None, metadata=_choice(ISAS))
    cores: Whole | None = field(default=None, metadata=_whole(1, 1024))
    int8_gmac_per_s: Number | None = field(default=None, metadata=_number(0.01, 1e6))


@dataclass(frozen=True)
class Memory:
    """`app_share` of `ram_bytes` is what one program may take; `read_gb_per_s`: 1e9 bytes a second
    that all cores together read."""

    ram_bytes: Whole | None = field(default=None, metadata=_whole(1 << 20, 1 << 45))
    app_share: Number | None = field(default=None, metadata=_number(0.01, 1.0))
    read_gb_per_s: Number | None = field(default=None, metadata=_number(0.01, 1e5))


@dataclass(frozen=True)
class Storage:
    """What a cold start reads the file from."""

    read_gb_per_s: Number | None = field(default=None, metadata=_number(0.001, 1e3))


@dataclass(frozen=True)
class Accelerator:
    """A GPU or NPU. `memory_bytes`: of its own; None: it shares the RAM. Its limits: at most
    `max_model_bytes` of weights, and `static_shapes`: only graphs of fixed shapes."""

    kind: str = field(metadata={"choices": ("gpu", "npu")})
    name: str = field(metadata={})
    backend: str = field(metadata={"choices": ACCELERATOR_BACKENDS})
    static_shapes: bool = False
    memory_bytes: Whole | None = field(default=None, metadata=_whole(1 << 20, 1 << 45))
    read_gb_per_s: Number | None = field(default=None, metadata=_number(0.01, 1e5))
    int8_gmac_per_s: Number | None = field(default=None, metadata=_number(0.01, 1e7))
    max_model_bytes: Whole | None = field(default=None, metadata=_whole(1 << 20, 1 << 45))


@dataclass(frozen=True)
class Calibration:
    """How measured speeds of models relate to the other figures (docs/PLAN.md): the share of the
    reads that decoding gets, of the multiply-adds that a prompt gets, and microseconds that a layer
    takes besides."""

    decode_share: Number | None = field(default=None, metadata=_number(0.01, 2.0))
    prefill_share: Number | None = field(default=None, metadata=_number(0.001, 2.0))
    layer_us: Number | None = field(default=None, metadata=_number(0.0, 1e5))


@dataclass(frozen=True)
class Defaults:
    """What to take where nobody says: no figures, but choices. `backends`: best first."""

    threads: int = field(default=1, metadata={"range": (1, 1024)})
    backends: tuple[str, ...] = ("cpu",)
    kv: str = field(default="K8V8", metadata={"choices": KV_FORMATS})
    n_ctx: int = field(default=4096, metadata={"range": (16, 1 << 24)})
    draft_tokens: int = field(default=0, metadata={"range": (0, 15)})


@dataclass(frozen=True)
class HardwareProfile:
    """A class of devices. `name` is what `--device` takes, `title` what people call it."""

    name: str
    title: str
    kind: str
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    storage: Storage = Storage()
    accelerators: tuple[Accelerator, ...] = ()
    calibration: Calibration = Calibration()
    defaults: Defaults = Defaults()

    @property
    def app_bytes(self) -> int | None:
        """What one program may take of the RAM; None where either figure is unknown."""
        ram, share = self.memory.ram_bytes, self.memory.app_share
        return None if ram is None or share is None else int(ram.value * share.value)

    def accelerator(self, backend: str) -> Accelerator | None:
        """The first that this backend drives."""
        return next((one for one in self.accelerators if one.backend == backend), None)

    @property
    def backend(self) -> str:
        """The best of `defaults.backends` that this version has."""
        return next((name for name in self.defaults.backends if name in BACKENDS), "cpu")

    def figures(self) -> dict[str, Figure[Any]]:
        """Every figure that is known, by its place: "memory.read_gb_per_s"."""
        parts: list[tuple[str, Any]] = [
            (name, getattr(self, name)) for name in ("cpu", "memory", "storage", "calibration")
        ]
        parts += [(f"accelerators[{at}]", one) for at, one in enumerate(self.accelerators)]
        return {
            f"{where}.{one.name}": value
            for where, part in parts
            for one in fields(part)
            if isinstance(value := getattr(part, one.name), Figure)
        }


def checked_text(value: object, where: str) -> str:
    """A text of one line that is not empty; FormatError."""
    if not isinstance(value, str):
        raise FormatError(f"{where} must be a text", code="json_type")
    if not value or len(value) > MAX_TEXT or not value.isprintable():
        message = f"{where} must be a line of 1 to {MAX_TEXT} printable characters"
        raise FormatError(message, code="json_type")
    return value
