"""A ModelSpec as graphs of fixed shapes: some rows of a sequence, of which the past is an input.

A graph takes n_rows tokens at a time, beside a past of n_past slots. The host fills the past and
says by masks what of it there is, so that one graph serves all lengths up to n_past. Keys and
values of the new rows are outputs: the host copies only those. Scores of the past and of the new
rows are two products and so are the mixed values: the past is never copied beside the new.

Names of inputs and outputs are in edgellm/npu/host.py, which makes and takes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgellm.errors import UnsupportedError
from edgellm.npu.host import GraphInputs

from ..spec import LayerSpec, ModelSpec
from .ir import Builder, Graph
from .weights import NpuWeights


@dataclass(frozen=True)
class StepShape:
    """n_rows: tokens of a step. n_past: slots of the past, the bucket."""

    n_rows: int
    n_past: int

    @property
    def name(self) -> str:
        return f"rows{self.n_rows}_past{self.n_past}"


@dataclass(frozen=True)
class Span:
    """Consecutive stages of a model: the embedding, layers [first, end), the head."""

    embed: bool
    first: int
    end: int
    head: bool

    def stages(self) -> list[str]:
        layers = [f"layers.{index}" for index in range(self.first, self.end)]
        return ["embed"] * self.embed + layers + ["head"] * self.head


def after(stage: str) -> str:
    """What a stage gives, where the next one is in the same graph; else it is `hidden` and `x`."""
    return f"{stage}.hidden"


def whole_span(spec: ModelSpec, *, embed: bool = True, head: bool = True) -> Span:
    return Span(embed, 0, len(spec.layers), head)


def check_spec(spec: ModelSpec) -> None:
    """UnsupportedError that names every part of the model that no static graph is made for."""
    bad = []
    for index, layer in enumerate(spec.layers):
        if layer.mixer != "gqa":
            bad.append(f"layers.{index}: {layer.mixer}")
        if layer.n_experts:
            bad.append(f"layers.{index}: {layer.n_experts} experts, chosen token by token")
    if spec.headless:
        bad.append("the model has no head")
    if bad:
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        raise UnsupportedError(
            f"no NPU graph can be made: {'; '.join(bad[:4])}{more}; use backend 'cpu'",
            code="feature_unsupported",
        )


def decoder_graph(
    weights: NpuWeights, shape: StepShape, span: Span | None = None, kv_dtype: str = "f16"
) -> Graph:
    """The graph of `span` (None: of everything). kv_dtype: "f16" or "f32", of past and new rows.

    Outputs: `new_k.N` and `new_v.N` [n_kv_heads, n_rows, head_dim] of each layer, and `logits`
    [n_rows, n_vocab], or `hidden` [n_rows, d_model] where the head is not in it.
    UnsupportedError: see check_spec().
    """
    check_spec(weights.spec)
    span = span or whole_span(weights.spec)
    return _Decoder(weights, shape, span, kv_dtype).build()


class _Decoder:
    def __init__(self, weights: NpuWeights, shape: StepShape, span: Span, kv_dtype: str) -> None:
        self._weights, self._spec = weights, weights.spec
        self._shape, self._span, self._kv_dtype = shape, span, kv_dtype
        self._b = Builder(f"{shape.name}_{span.stages()[0]}_{span.stages()[-1]}")

    def build(self) -> Graph:
        b, span = self._b, self._span
        stages = span.stages()
        x = "" if span.embed else b.input("x", (self._shape.n_rows, self._spec.d_model))
        for b.stage in stages:
            x = self._stage(x, b.stage)
            if b.stage != stages[-1]:
                x = b.rename(after(b.stage), x)
        b.output("logits" if span.head else "hidden", x)
        return b.graph

    def _stage(self, x: str, stage: str) -> str:
        if stage == "embed":
            return self._embed()
        if stage == "head":
            return self._head(x)
        index = int(stage.removeprefix("layers."))
        return self._layer(x, index, self._spec.layers[index])

    def _embed(self) -> str:
        b, spec = self._b, self._spec
        ids = b.input("ids", (self._shape.n_rows,), "i32")
        x = b.scaled(b.gather(self._matrix("token_embd"), ids), spec.embed_scale)
        if spec.n_positions:
            rows = b.input("positions", (self._shape.n_rows,), "i32")
            x = b.add(x, b.gather(self._matrix("position_embd"), rows))
        return x

    def _layer(self, x: str, index: int, layer: LayerSpec) -> str:
        b, prefix = self._b, f"layers.{index}."
        h = self._norm(x, prefix + "attn_norm") if layer.pre_norm else x
        attended = self._attention(h, index, layer)
        if layer.parallel:
            h = self._norm(x, prefix + "ffn_norm") if layer.pre_norm else x
            return b.add(b.add(x, attended), self._ffn(h, layer, prefix))
        if layer.post_norm:
            attended = self._norm(attended, prefix + "attn_post_norm")
        x = b.add(x, attended)
        h = self._norm(x, prefix + "ffn_norm") if layer.pre_norm else x
        y = self._ffn(h, layer, prefix)
        return b.add(x, self._norm(y, prefix + "ffn_post_norm") if layer.post_norm else y)

    def _head(self, x: str) -> str:
        b, spec = self._b, self._spec
        matrix = self._matrix("token_embd" if spec.tied_head else "output")
        logits = b.linear(self._norm(x, "output_norm"), matrix)
        return self._softcapped(logits, spec.final_softcap)

    def _attention(self, h: str, index: int, layer: LayerSpec) -> str:
        b, prefix = self._b, f"layers.{index}."
        n_rows, n_past = self._shape.n_rows, self._shape.n_past
        n_kv, d = layer.n_kv_heads, layer.head_dim
        n_group = layer.n_heads // n_kv * n_rows
        q = self._rotated(self._heads(h, layer, prefix + "attn_q", layer.n_heads), layer)
        q = b.scaled(q, layer.attn_scale or 1 / math.sqrt(d))
        q = b.reshape(q, (n_kv, n_group, d))
        k = self._rotated(self._heads(h, layer, prefix + "attn_k", n_kv), layer)
        v = self._heads(h, layer, prefix + "attn_v", n_kv)
        past_k, k = self._kept(f"k.{index}", k, (n_kv, n_past, d))
        past_v, v = self._kept(f"v.{index}", v, (n_kv, n_past, d))

        scores = b.concat(b.matmul(q, past_k, transpose_b=True), b.matmul(q, k, transpose_b=True))
        scores = self._softcapped(scores, layer.attn_softcap)
        n_seen = n_past + n_rows
        mask = b.input(GraphInputs.mask(layer.window), (n_rows, n_seen))
        scores = b.add(b.reshape(scores, (n_kv, n_group // n_rows, n_rows, n_seen)), mask)
        shares = b.reshape(b.unary("softmax", scores), (n_kv, n_group, n_seen))
        mixed = b.add(
            b.matmul(b.slice(shares, 0, n_past), past_v),
            b.matmul(b.slice(shares, n_past, n_seen), v),
        )
        flat = b.transpose(b.reshape(mixed, (layer.n_heads, n_rows, d)), (1, 0, 2))
        flat = b.reshape(flat, (n_rows, layer.n_heads * d))
        return self._affine(flat, prefix + "attn_o", layer.o_bias)

    def _kept(self, name: str, new: str, past_shape: tuple[int, int, int]) -> tuple[str, str]:
        """The past, and the new rows as the host will keep them, both to compute with."""
        b = self._b
        past = b.input(f"past_{name}", past_shape, self._kv_dtype)
        new = b.cast(new, self._kv_dtype)
        b.output(f"new_{name}", new)
        return b.cast(past, "f32"), b.cast(f"new_{name}", "f32")

    def _heads(self, h: str, layer: LayerSpec, name: str, n_heads: int) -> str:
        """Queries, keys or values [n_heads, n_rows, head_dim], normalised if the layer does."""
        b, spec = self._b, self._spec
        flat = self._affine(h, name, layer.qkv_bias)
        is_normed = not name.endswith("attn_v") and layer.qk_norm != "none"
        if is_normed and layer.qk_norm == "full":
            flat = b.rms_norm(flat, self._vector(name + "_norm"), spec.norm_eps)
        heads = b.reshape(flat, (self._shape.n_rows, n_heads, layer.head_dim))
        if is_normed and layer.qk_norm == "head":
            heads = b.rms_norm(heads, self._vector(name + "_norm"), spec.norm_eps)
        return b.transpose(heads, (1, 0, 2))

    def _rotated(self, x: str, layer: LayerSpec) -> str:
        """The first n_rope channels turned: x * cos + (its halves exchanged) * sin, where sin is
        negative in the first half."""
        b, n, half = self._b, self._spec.n_rope, self._spec.n_rope // 2
        if layer.rope == "none" or n == 0:
            return x
        shape = (self._shape.n_rows, n)
        cos = b.input(GraphInputs.cos(layer.rope), shape)
        sin = b.input(GraphInputs.sin(layer.rope), shape)
        turned = b.slice(x, 0, n)
        swapped = b.concat(b.slice(turned, half, n), b.slice(turned, 0, half))
        turned = b.add(b.mul(turned, cos), b.mul(swapped, sin))
        rest = [b.slice(x, n, layer.head_dim)] if n < layer.head_dim else []
        return b.concat(turned, *rest)

    def _ffn(self, h: str, layer: LayerSpec, prefix: str) -> str:
        b, has_bias = self._b, layer.ffn_bias
        up = self._affine(h, prefix + "ffn_up", has_bias)
        if layer.ffn_gated:
            gate = self._affine(h, prefix + "ffn_gate", has_bias)
            inner = b.mul(b.unary(layer.ffn_act, gate), up)
        else:
            inner = b.unary(layer.ffn_act, up)
        return self._affine(inner, prefix + "ffn_down", has_bias)

    def _norm(self, x: str, name: str) -> str:
        weight = self._vector(name)
        if self._spec.norm == "layer":
            return self._b.layer_norm(x, weight, self._vector(name + "_bias"), self._spec.norm_eps)
        return self._b.rms_norm(x, weight, self._spec.norm_eps)

    def _affine(self, x: str, name: str, has_bias: bool) -> str:
        y = self._b.linear(x, self._matrix(name))
        return self._b.add(y, self._vector(name + "_bias")) if has_bias else y

    def _softcapped(self, x: str, cap: float) -> str:
        b = self._b
        return b.scaled(b.unary("tanh", b.scaled(x, 1 / cap)), cap) if cap else x

    def _matrix(self, name: str) -> str:
        return self._b.constant(name, self._weights.matrix(name))

    def _vector(self, name: str) -> str:
        return self._b.constant(name, self._weights.vector(name))
