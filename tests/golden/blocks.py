"""Tiny random models written straight from a ModelSpec, one per block that some family needs.

No architecture and no checkpoint is involved: what is compared is the runtime and the oracle. A
weight depends on its own name and shape only. Widths are not multiples of the 16 x 32 tile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from edgellm.converters.quant import encode_matrix
from edgellm.converters.spec import LayerSpec, ModelSpec

from edgellm.edgefile import EdgeWriter
from golden.tiny import named_weights

LAYER: dict[str, Any] = {"n_heads": 4, "n_kv_heads": 2, "head_dim": 12, "d_ffn": 56}
MODEL: dict[str, Any] = {
    "arch": "blocks",
    "n_vocab": 61,
    "d_model": 40,
    "n_ctx_train": 400,
    "norm_eps": 1e-5,
    "tied_head": True,
    "n_rope": 8,
    "rope_factor": 1.0,
    "bos_id": 1,
    "eos_ids": (2,),
}
BIASES = {"qkv_bias": True, "o_bias": True, "ffn_bias": True}
SANDWICH = {"post_norm": True, "ffn_act": "gelu_tanh"}


def case(*layers: dict[str, Any], **model: Any) -> ModelSpec:
    specs = tuple(LayerSpec(**(LAYER | layer)) for layer in layers)
    return ModelSpec(**(MODEL | model), layers=specs)


CASES = {
    "qkv_bias": case({"qkv_bias": True}, {}),
    "all_biases_gated": case(BIASES, BIASES | {"ffn_act": "relu"}),
    "learned_positions_layernorm_ungated": case(
        BIASES | {"ffn_act": "gelu_tanh", "ffn_gated": False, "n_kv_heads": 4},
        BIASES | {"ffn_act": "silu", "ffn_gated": False, "n_kv_heads": 4},
        norm="layer",
        n_positions=400,
        n_rope=0,
    ),
    "parallel_layernorm_gelu": case(
        BIASES | {"parallel": True, "ffn_act": "gelu", "ffn_gated": False},
        {"parallel": True, "ffn_act": "gelu"},
        norm="layer",
        tied_head=False,
    ),
    "pre_and_post_norms_softcaps_windows": case(
        SANDWICH | {"window": 20, "attn_softcap": 2.0, "attn_scale": 0.4},
        SANDWICH | {"attn_softcap": 2.0, "attn_scale": 0.4},
        embed_scale=6.25,
        final_softcap=3.0,
    ),
    "two_ropes_head_norms": case(
        SANDWICH | {"window": 16, "rope": "local", "qk_norm": "head"},
        SANDWICH | {"qk_norm": "head"},
        rope_local_factor=1.25,
        rope_factor=0.75,
    ),
    "post_norms_only_full_norms": case(
        {"pre_norm": False, "post_norm": True, "qk_norm": "full"},
        {"pre_norm": False, "post_norm": True, "qk_norm": "full", "n_kv_heads": 1},
    ),
    "post_layernorms_relu_ungated": case(
        {"post_norm": True, "ffn_act": "relu", "ffn_gated": False}, {}, norm="layer"
    ),
    "layers_without_rope": case({"rope": "none"}, {}, {"rope": "none", "window": 3}),
    "wide_window": case({"window": 270}, {"n_heads": 2, "n_kv_heads": 1, "window": 257}),
    "two_contexts": case({}, {"window": 50}, n_ctx_original=64, rope_factor=1.5),
}
# Past the window, and the 128 tokens that are kept before it, pages are let go.
N_TOKENS = dict.fromkeys(CASES, 100) | {"wide_window": 340, "layers_without_rope": 300}


def ids_of(name: str) -> list[int]:
    return [(7919 * t + 13) % MODEL["n_vocab"] for t in range(N_TOKENS[name])]


def tensors_of(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of docs/FORMAT.md; vectors are F32."""
    d = spec.d_model

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield name, (d,)
        if spec.norm == "layer":
            yield name + "_bias", (d,)

    yield "token_embd", (spec.n_vocab, d)
    if spec.n_positions:
        yield "position_embd", (spec.n_positions, d)
    if spec.n_rope:
        yield "rope_inv_freq", (spec.n_rope // 2,)
        if any(layer.rope == "local" for layer in spec.layers):
            yield "rope_inv_freq_local", (spec.n_rope // 2,)
        if spec.n_ctx_original:
            yield "rope_inv_freq_long", (spec.n_rope // 2,)
    for index, layer in enumerate(spec.layers):
        p = f"layers.{index}."
        q_rows, kv_rows = layer.n_heads * layer.head_dim, layer.n_kv_heads * layer.head_dim
        if layer.pre_norm:
            yield from norm(p + "attn_norm")
            yield from norm(p + "ffn_norm")
        if layer.post_norm:
            yield from norm(p + "attn_post_norm")
            yield from norm(p + "ffn_post_norm")
        for name, rows in (("q", q_rows), ("k", kv_rows), ("v", kv_rows)):
            yield f"{p}attn_{name}", (rows, d)
            if layer.qkv_bias:
                yield f"{p}attn_{name}_bias", (rows,)
            if layer.qk_norm != "none" and name != "v":
                yield f"{p}attn_{name}_norm", (layer.head_dim if layer.qk_norm == "head" else rows,)
        yield p + "attn_o", (d, q_rows)
        if layer.o_bias:
            yield p + "attn_o_bias", (d,)
        for name in ("gate", "up") if layer.ffn_gated else ("up",):
            yield f"{p}ffn_{name}", (layer.d_ffn, d)
            if layer.ffn_bias:
                yield f"{p}ffn_{name}_bias", (layer.d_ffn,)
        yield p + "ffn_down", (d, layer.d_ffn)
        if layer.ffn_bias:
            yield p + "ffn_down_bias", (d,)
    yield from norm("output_norm")
    if not spec.tied_head:
        yield "output", (spec.n_vocab, d)


def values_of(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    if name.startswith("rope_inv_freq"):
        base = {"rope_inv_freq": 100.0, "rope_inv_freq_local": 8.0}.get(name, 1000.0)
        steps = np.arange(shape[0], dtype=np.float32) / np.float32(shape[0])
        return np.float32(base) ** -steps
    values = named_weights(name, shape)
    if name.endswith("_bias"):
        return values - 1
    return values


def write_case(name: str, format: str, folder: Path) -> Path:
    """The model of a case with all its matrices in one format; positions are F16 always."""
    spec, out = CASES[name], folder / f"{name}-{format}.edge"
    tensors = list(tensors_of(spec))
    with EdgeWriter(out, spec=spec.to_dict()) as writer:
        formats = {}
        for key, shape in tensors:
            formats[key] = "F32" if len(shape) == 1 else format
            if key == "position_embd":
                formats[key] = "F16"
            act = {"F32": None, "F16": "f32"}.get(formats[key], "a8")
            role = key.rsplit(".", 1)[-1]
            writer.plan(key, role, format=formats[key], shape=shape, act=act)
        for key, shape in tensors:
            values = np.ascontiguousarray(values_of(key, shape), dtype=np.float32)
            if formats[key] == "F32":
                writer.add(key, values.view(np.uint8).data)
            else:
                writer.add(key, encode_matrix(formats[key], values, None, 1).data)
    return out


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    for case_name in CASES:
        write_case(case_name, "E4_16", Path(sys.argv[1]))
