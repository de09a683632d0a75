"""Which tensors a ModelSpec has, with their shapes, in the order in which they stand in the file.

The rotary tables are left out: they are computed, and no checkpoint has them. The native twin is
native/src/model/weights.cc. Knows neither checkpoints nor formats.
"""

from __future__ import annotations

from dataclasses import dataclass

from .spec import LayerSpec, ModelSpec

EXPERT_ROWS = 16  # each expert begins at a strip of its own
KEY_BALANCE_ROLES = ("attn_k_mean", "attn_k_scale")  # measured by a conversion (key_balance.py)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A tensor of the file. layer: None outside the layers. shape: (n,) for a vector."""

    role: str
    shape: Shape
    layer: int | None = None

    @property
    def name(self) -> str:
        return self.role if self.layer is None else f"layers.{self.layer}.{self.role}"


def padded_rows(n_rows: int) -> int:
    """Rows that one expert of `n_rows` takes among the others."""
    return -(-n_rows // EXPERT_ROWS) * EXPERT_ROWS


def tensor_slots(spec: ModelSpec) -> list[Slot]:
    """In execution order."""
    slots = [Slot("token_embd", (spec.n_vocab, spec.d_model))]
    if spec.n_positions:
        slots.append(Slot("position_embd", (spec.n_positions, spec.d_model)))
    for index, layer in enumerate(spec.layers):
        mixer = _short_conv if layer.mixer == "short_conv" else _attention
        shapes = mixer(spec, layer) | _ffn(spec, layer)
        slots += [Slot(role, shape, index) for role, shape in shapes.items()]
    slots += norm_slots(spec, "output_norm")
    if not spec.tied_head and not spec.headless:
        slots.append(Slot("output", (spec.n_vocab, spec.d_model)))
    return slots


def norm_slots(spec: ModelSpec, role: str) -> list[Slot]:
    """Of a norm of the model's kind outside the layers."""
    return [Slot(name, shape) for name, shape in _norm(spec, role).items()]


def _norm(spec: ModelSpec, role: str, wanted: bool = True) -> dict[str, Shape]:
    roles = (role, f"{role}_bias") if spec.norm == "layer" else (role,)
    return {name: (spec.d_model,) for name in roles if wanted}


def _matrix(role: str, n_rows: int, n_cols: int, bias: bool = False) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {role: (n_rows, n_cols)}
    return shapes | {f"{role}_bias": (n_rows,)} if bias else shapes


def _attention(spec: ModelSpec, layer: LayerSpec) -> dict[str, Shape]:
    d_q, d_kv = layer.n_heads * layer.head_dim, layer.n_kv_heads * layer.head_dim
    shapes = _norm(spec, "attn_norm", layer.pre_norm)
    shapes |= _matrix("attn_q", d_q, spec.d_model, layer.qkv_bias)
    shapes |= _matrix("attn_k", d_kv, spec.d_model, layer.qkv_bias)
    shapes |= _matrix("attn_v", d_kv, spec.d_model, layer.qkv_bias)
    if layer.qk_norm != "none":
        whole = layer.qk_norm == "full"
        shapes["attn_q_norm"] = (d_q if whole else layer.head_dim,)
        shapes["attn_k_norm"] = (d_kv if whole else layer.head_dim,)
    if layer.balance_keys:
        shapes |= dict.fromkeys(KEY_BALANCE_ROLES, (d_kv,))
    shapes |= _matrix("attn_o", spec.d_model, d_q, layer.o_bias)
    return shapes | _norm(spec, "attn_post_norm", layer.post_norm)


def _short_conv(spec: ModelSpec, layer: LayerSpec) -> dict[str, Shape]:
    shapes = _norm(spec, "attn_norm", layer.pre_norm)
    shapes |= _matrix("conv_in", 3 * spec.d_model, spec.d_model)
    shapes["conv_taps"] = (layer.conv_kernel * spec.d_model,)  # tap by tap, the oldest first
    shapes |= _matrix("conv_out", spec.d_model, spec.d_model)
    return shapes | _norm(spec, "attn_post_norm", layer.post_norm)


def _ffn(spec: ModelSpec, layer: LayerSpec) -> dict[str, Shape]:
    shapes = _norm(spec, "ffn_norm", layer.pre_norm)
    if layer.n_experts:
        shapes |= _experts(spec, layer)
    else:
        if layer.ffn_gated:
            shapes |= _matrix("ffn_gate", layer.d_ffn, spec.d_model, layer.ffn_bias)
        shapes |= _matrix("ffn_up", layer.d_ffn, spec.d_model, layer.ffn_bias)
        shapes |= _matrix("ffn_down", spec.d_model, layer.d_ffn, layer.ffn_bias)
    return shapes | _norm(spec, "ffn_post_norm", layer.post_norm)


def _experts(spec: ModelSpec, layer: LayerSpec) -> dict[str, Shape]:
    inner = layer.n_experts * padded_rows(layer.d_expert)
    shapes = _matrix("ffn_router", layer.n_experts, spec.d_model)
    shapes |= _matrix("ffn_gate_exps", inner, spec.d_model)
    shapes |= _matrix("ffn_up_exps", inner, spec.d_model)
    shapes |= _matrix("ffn_down_exps", layer.n_experts * padded_rows(spec.d_model), layer.d_expert)
    if layer.d_shared:
        shapes |= _matrix("ffn_gate_shexp", layer.d_shared, spec.d_model)
        shapes |= _matrix("ffn_up_shexp", layer.d_shared, spec.d_model)
        shapes |= _matrix("ffn_down_shexp", spec.d_model, layer.d_shared)
    if layer.shared_gate:
        shapes |= _matrix("ffn_gate_inp_shexp", 1, spec.d_model)
    return shapes
