"""What a file needs in memory, from its header alone: no weight is read, nothing is loaded.

Knows the container, KV pages and the scratch of a step, not the runtime.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from .edgefile import read_header
from .edgeheader import BLOB_ALIGNMENT, FORMATS, EdgeHeader, TensorInfo, round_up, tensor_bytes
from .errors import EdgeError, MemoryBudgetError
from .options import DEFAULT_KV

Fields = Mapping[str, object]
Acts = Set[tuple[str, str | None]]  # (role, act) of the tensors

PAGE_TOKENS = 16  # KV is taken in pages of this many tokens
_FIRST_TOKENS = 32  # that may be in a format of their own
MAX_ROWS = 128  # rows of one step, which scratch is sized for
_KEPT_TOKENS = 128  # that layers with a window keep before what it sees
_MAX_PAIRS = 1024  # rows times experts used, gathered at a time
_HEAD_ROWS, _HEAD_COLS = 16, 16384  # of logits that are on their way to several texts
# Matrices that read the normed residual.
_MODEL_READERS = (
    *("attn_q", "attn_k", "attn_v", "conv_in", "ffn_gate", "ffn_up", "ffn_router"),
    *("ffn_gate_exps", "ffn_up_exps", "ffn_gate_shexp", "ffn_up_shexp", "ffn_gate_inp_shexp"),
)
# Formats that a model may be rounded to. K4_32, L4_32 and L8_32 keep what was quantized elsewhere;
# rounding to them is no better than to E4_16 and E8_32, which are smaller.
ADVISED_FORMATS = tuple(name for name in FORMATS if name not in ("K4_32", "L4_32", "L8_32"))


@dataclass(frozen=True)
class KvGroup:
    """Layers with the same window, whose KV goes once no query sees it any more; or short
    convolutions with the same number of taps, whose state does."""

    window: int  # tokens that a query sees; 0: all
    bytes_per_token: int
    first_extra: int = 0  # bytes by which the first 32 tokens together take more

    @property
    def most_tokens(self) -> int:
        """Of a long context, the most that a window holds: in whole pages, which begin where they
        do, what a query sees and as much as steps and short rewinds need."""
        return ((self.window + _KEPT_TOKENS - 3) // PAGE_TOKENS + 2) * PAGE_TOKENS

    def bytes_at(self, n_ctx: int) -> int:
        """The most that it holds of a context of n_ctx tokens."""
        n_tokens = round_up(n_ctx, PAGE_TOKENS)
        if 0 < self.window < n_ctx:
            n_tokens = min(n_tokens, self.most_tokens)
        n_first = min(n_tokens, _FIRST_TOKENS)
        return n_tokens * self.bytes_per_token + self.first_extra * n_first // _FIRST_TOKENS


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a model takes, and how much of its context fits under `limit_bytes`."""

    file_bytes: int
    scratch_bytes: int
    session_bytes: int  # of a text besides its KV: the logits of its last token
    kv_groups: tuple[KvGroup, ...]  # by ascending window, states last
    n_ctx_train: int
    limit_bytes: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Of a token that all layers still see."""
        return sum(group.bytes_per_token for group in self.kv_groups)

    @property
    def kv_text(self) -> str:
        """ "26,624 bytes of KV a token", and how many of them only for the last tokens."""
        parts = [f"{self.kv_bytes_per_token:,} bytes of KV a token"]
        for group in self.kv_groups:
            if group.window > 0:
                last = f"for the last {group.most_tokens:,} tokens only"
                parts.append(f"{group.bytes_per_token:,} of them {last}")
        return ", ".join(parts)

    @property
    def n_ctx_fit(self) -> int:
        """The longest context that fits, in whole pages and of those that the model was trained
        for; 0 if not even one page does."""
        return self.n_ctx_fit_of(1)

    def n_ctx_fit_of(self, n_texts: int) -> int:
        """`n_ctx_fit` of each of so many texts."""
        sizes = range(PAGE_TOKENS, self.n_ctx_train + PAGE_TOKENS, PAGE_TOKENS)
        fitting = bisect_right(sizes, self.limit_bytes, key=lambda n: self.bytes_at(n, n_texts))
        return fitting * PAGE_TOKENS

    @property
    def full_bytes(self) -> int:
        """With the whole context the model was trained for."""
        return self.bytes_at(self.n_ctx_train)

    def bytes_at(self, n_ctx: int, n_texts: int = 1) -> int:
        """With so many texts of n_ctx tokens each, that begin differently."""
        of_a_text = self.session_bytes + self.kv_bytes_at(n_ctx)
        return self.file_bytes + self.scratch_bytes + n_texts * of_a_text

    def kv_bytes_at(self, n_ctx: int) -> int:
        """The KV alone."""
        return sum(group.bytes_at(n_ctx) for group in self.kv_groups)


def plan_of(header: EdgeHeader, limit_bytes: int, kv: str = DEFAULT_KV) -> MemoryPlan:
    """The plan of one file. The spec is a stranger's: fields that are missing count as 0."""
    acts = {(tensor.role, tensor.act) for tensor in header.tensors.values()}
    return plan_of_spec(header.spec, acts, header.file_bytes, limit_bytes, kv)


def plan_of_spec(
    spec: Fields, acts: Acts, file_bytes: int, limit_bytes: int, kv: str = DEFAULT_KV
) -> MemoryPlan:
    """The plan of a file that need not be there yet."""
    layers = layers_of(spec)
    return MemoryPlan(
        file_bytes=file_bytes,
        scratch_bytes=_scratch_bytes(spec, layers, acts),
        session_bytes=4 * _n_logits(spec),
        kv_groups=_kv_groups(spec, layers, kv),
        n_ctx_train=int_field(spec, "n_ctx_train"),
        limit_bytes=limit_bytes,
    )


def adapter_scratch_bytes(header: EdgeHeader, rank: int) -> int:
    """What steps of a model need for adapters of this rank besides, whatever their number: inputs
    of the matrices as floats, where none of them is read so anyway, and A x of q, k and v."""
    layers = layers_of(header.spec)
    acts = {(tensor.role, tensor.act) for tensor in header.tensors.values()}
    head = "token_embd" if header.spec.get("tied_head") else "output"
    heads = _widest_mix(header.spec, layers)
    row_values = 3 * round_up(rank, 32)
    for width, readers in (
        (int_field(header.spec, "d_model"), (*_MODEL_READERS, head)),
        (heads, ("attn_o", "conv_out")),
        (_widest(layers, "d_ffn"), ("ffn_down",)),
    ):
        if not any(role in readers and act == "f32" for role, act in acts):
            row_values += round_up(width, 32)
    return 4 * MAX_ROWS * row_values


def _head_bytes(head_dim: int, kv: str) -> int:
    """Of a token's key and value in one kv head (native/src/kernels/kv_format.h)."""
    if kv == "F16":
        return 4 * head_dim
    keys = {"K8": round_up(head_dim, 4), "K6": round_up(head_dim, 16) // 4 * 3}
    values = {"V8": round_up(head_dim, 16), "V4": round_up(head_dim, 32) // 2}
    n_scales = _n_scales(head_dim, 64) + _n_scales(head_dim, 32 if kv.endswith("V4") else 64)
    return keys[kv[:2]] + values[kv[2:]] + 2 * n_scales


def _n_scales(head_dim: int, most_channels: int) -> int:
    n_groups = max(1, -(-head_dim // most_channels))
    channels = max(16, round_up(-(-head_dim // n_groups), 16))
    return -(-head_dim // channels)


def _kv_groups(spec: Fields, layers: Sequence[Fields], kv: str) -> tuple[KvGroup, ...]:
    """A window as wide as the context is none."""
    first_kv = "F16" if kv.endswith("V4") else kv
    n_bytes: defaultdict[int, int] = defaultdict(int)
    first_bytes: defaultdict[int, int] = defaultdict(int)
    states: defaultdict[int, int] = defaultdict(int)
    for layer in layers:
        if _is_conv(layer):
            states[int_field(layer, "conv_kernel")] += 4 * int_field(spec, "d_model")
            continue
        window = int_field(layer, "window")
        window = window if window < int_field(spec, "n_ctx_train") else 0
        n_heads, head_dim = int_field(layer, "n_kv_heads"), int_field(layer, "head_dim")
        n_bytes[window] += n_heads * _head_bytes(head_dim, kv)
        first_bytes[window] += n_heads * _head_bytes(head_dim, first_kv)
    return (
        *(
            KvGroup(
                window, n_bytes[window], _FIRST_TOKENS * (first_bytes[window] - n_bytes[window])
            )
            for window in sorted(n_bytes)
        ),
        *(KvGroup(n_taps, states[n_taps]) for n_taps in sorted(states)),
    )


def file_bytes_as(header: EdgeHeader, format: str) -> int:
    """Size of the file if all its quantized tensors had `format`; to a few kB of header."""
    weights = [tensor for tensor in header.tensors.values() if tensor.format in FORMATS]
    now = sum(tensor.stored_bytes for tensor in weights)
    return header.file_bytes - now + sum(_stored_as(tensor, format) for tensor in weights)


def formats_that_fit(header: EdgeHeader, limit_bytes: int) -> list[tuple[str, int]]:
    """(format, file bytes) of smaller forms of this model that fit with one KV page, best first."""
    plan = plan_of(header, limit_bytes)
    room = limit_bytes - (plan.bytes_at(PAGE_TOKENS) - plan.file_bytes)
    sizes = ((file_bytes_as(header, format), format) for format in ADVISED_FORMATS)
    fitting = sorted((size, name) for size, name in sizes if size < header.file_bytes)
    return [(name, size) for size, name in reversed(fitting) if size <= room]


def with_formats_that_fit(
    error: MemoryBudgetError, path: Path, max_memory: int | None
) -> MemoryBudgetError:
    """The same error, naming the weight formats in which this model would fit."""
    from . import _native

    available = _native.memory_figures()["available_bytes"]
    limit = available if max_memory is None else min(available, max_memory)
    try:
        fitting = formats_that_fit(read_header(path), limit)
    except EdgeError:  # unreadable by now: the first error is the one to report
        return error
    if fitting:
        sizes = ", ".join(f"{name} ({mib(size)})" for name, size in fitting)
        advice = f"files of this model that would fit: {sizes}; edgellm convert --format makes them"
    else:
        advice = "no smaller weight format of this model fits either: take a smaller model"
    return MemoryBudgetError(f"{error.message}; {advice}", code=error.code)


def mib(n_bytes: int) -> str:
    """Bytes for people, rounded down as the native layer does: "12.3 MiB"."""
    return f"{n_bytes >> 20}.{(n_bytes % 2**20) * 10 >> 20} MiB"


def _stored_as(tensor: TensorInfo, format: str) -> int:
    rows, cols = tensor.shape
    return round_up(tensor_bytes(format, rows, cols), BLOB_ALIGNMENT)


def _scratch_bytes(spec: Fields, layers: Sequence[Fields], acts: Acts) -> int:
    """Rows of activations as floats and in the forms that the matrices which read them want, and
    some logits and the hidden states of a few rows: as native/src/model/decoder.cc lays it out."""
    d_model = int_field(spec, "d_model")
    heads = _widest_mix(spec, layers)
    is_conv = any(_is_conv(layer) for layer in layers)
    queries = max(round_up(3 * d_model if is_conv else d_model, 16), round_up(heads, 16))
    n_tables = 1 + any(la.get("rope") == "local" for la in layers)
    row_bytes = 4 * (round_up(d_model, 16) + queries + n_tables * int_field(spec, "n_rope"))
    head = "token_embd" if spec.get("tied_head") else "output"
    for width, readers in (
        (d_model, (*_MODEL_READERS, head)),
        (heads, ("attn_o", "conv_out")),
        (_widest(layers, "d_ffn"), ("ffn_down",)),
    ):
        row_bytes += _act_bytes(width, acts, readers)
    n_head = min(round_up(_n_logits(spec), 16), _HEAD_COLS) + round_up(d_model, 32)
    return MAX_ROWS * row_bytes + 4 * _HEAD_ROWS * n_head + _expert_bytes(spec, layers, acts)


def _n_logits(spec: Fields) -> int:
    return 0 if spec.get("headless") is True else int_field(spec, "n_vocab")


def _expert_bytes(spec: Fields, layers: Sequence[Fields], acts: Acts) -> int:
    """Routes of every row, the load of every expert, and rows gathered by expert."""
    n_experts, n_used = _widest(layers, "n_experts"), _widest(layers, "n_experts_used")
    if n_experts == 0:
        return 0
    counters = sum(8 * round_up(int_field(la, "n_experts"), 16) for la in layers)
    routes = 4 * round_up(n_experts, 16) + 4 * 16 + 2 * 4 * n_used
    shared = _act_bytes(_widest(layers, "d_shared"), acts, ("ffn_down_shexp",))
    gathered = _act_bytes(int_field(spec, "d_model"), acts, ("ffn_gate_exps", "ffn_up_exps"))
    hidden = _act_bytes(_widest(layers, "d_expert"), acts, ("ffn_down_exps",))
    n_pairs = min(MAX_ROWS * n_used, _MAX_PAIRS)
    return counters + MAX_ROWS * (routes + shared) + n_pairs * (gathered + hidden)


def _act_bytes(width: int, acts: Acts, readers: Sequence[str]) -> int:
    """One row of activations in every form that tensors of these roles want."""
    wanted = {act for role, act in acts if role in readers}
    padded = round_up(width, 32)
    int8_bytes = padded + padded // 32 * 4 + padded // 16 * 4  # values, scales, sums
    forms = {"a8": int8_bytes, "a8x2": 2 * int8_bytes, "f32": 4 * padded}
    return sum(n_bytes for act, n_bytes in forms.items() if act in wanted)


def _widest_mix(spec: Fields, layers: Sequence[Fields]) -> int:
    """Of what a layer's mixer gives to the matrix behind it."""
    heads = (int_field(la, "n_heads") * int_field(la, "head_dim") for la in layers)
    convs = (int_field(spec, "d_model") for la in layers if _is_conv(la))
    return max((*heads, *convs), default=0)


def _is_conv(layer: Fields) -> bool:
    return layer.get("mixer") == "short_conv"


def _widest(layers: Sequence[Fields], key: str) -> int:
    return max((int_field(layer, key) for layer in layers), default=0)


def int_field(fields: Fields, key: str) -> int:
    """A count of a stranger's spec; 0 where there is none, or none that can be."""
    value = fields.get(key)
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


def layers_of(spec: Fields) -> list[Fields]:
    """The layers of a stranger's spec that are layers at all."""
    layers = spec.get("layers")
    return [la for la in layers if isinstance(la, dict)] if isinstance(layers, list) else []
