"""The oracle: one readable torch forward in float32 for any ModelSpec.

Weights come from the checkpoint, or from a `.edge` file dequantized by the numpy decoders of
quant/. Both ways it uses the ModelSpec and the rotary frequencies that the converter stores. Knows
nothing of sampling, text or speed. The one file of the converters that needs torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, pad, relu, silu

from edgellm.edgefile import EdgeHeader, read_header, read_tensor
from edgellm.errors import InvalidArgumentError, UnsupportedError

from .key_balance import KeyBalance, KeySums
from .kv_rounding import EXACT, KvRounding, kv_rounding
from .layout import KEY_BALANCE_ROLES, padded_rows
from .plan import Job, Options
from .quant import decode_matrix
from .quant.tiles import F32Array
from .sources import open_checkpoint
from .spec import LayerSpec, ModelSpec

ALL_ROWS = slice(None)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": partial(gelu, approximate="tanh"),
    "relu": relu,
}


class Reference:
    """weights: the tensors by their names in the file; "output" is absent when the head is tied.
    n_ctx: the context planned, which chooses between the tables of LongRoPE; None: n_ctx_train."""

    def __init__(
        self, spec: ModelSpec, weights: dict[str, Tensor], n_ctx: int | None = None
    ) -> None:
        self.spec = spec
        self.weights = weights
        self.n_ctx = n_ctx or spec.n_ctx_train
        self.changes: dict[str, tuple[Tensor, Tensor]] = {}  # A and B of an adapter, by matrix

    @classmethod
    def from_checkpoint(cls, directory: Path, n_ctx: int | None = None) -> Reference:
        with open_checkpoint(directory) as checkpoint:
            job = Job(checkpoint, Options("F16", None, None, None))
            weights = torch_tables(job.tables)
            for item in job.planned:
                if item.source is not None:
                    rows = checkpoint.read_rows(item.source, 0, item.rows_cols[0])
                    weights[item.name] = torch.from_numpy(rows.reshape(item.shape))
        return cls(job.spec, weights, n_ctx)

    @classmethod
    def from_edge(cls, path: Path, n_ctx: int | None = None) -> Reference:
        header = read_header(path)
        spec = ModelSpec.from_json(header.metadata["edgellm.spec"])
        return cls(spec, decoded_weights(header), n_ctx)

    def with_adapter(self, path: Path) -> Reference:
        """The same model through an adapter file: y = W x + B (A x)."""
        halves = decoded_weights(read_header(path))
        names = {name.rpartition(".")[0] for name in halves}
        result = copy.copy(self)
        result.changes = {
            name: (halves[f"{name}.lora_a"], halves[f"{name}.lora_b"]) for name in names
        }
        return result

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], *, kv: str | None = None) -> Tensor:
        """Logits [n, n_vocab] of every position. kv: the KV format, whose rounding attention then
        has as in the runtime; None rounds nothing."""
        return self.head(self._residuals(ids, kv))

    @torch.inference_mode()
    def hidden(self, ids: Sequence[int], *, kv: str | None = None) -> Tensor:
        """The head's input [n, d_model] of every position, as embeddings take it."""
        return self.final_norm(self._residuals(ids, kv))

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The input of layer 0, [n, d_model]."""
        return self.embedded(self.weights["token_embd"][torch.tensor(list(ids), dtype=torch.long)])

    def embedded(self, rows: Tensor) -> Tensor:
        """Rows of the embedding [..., n, d_model], from position 0 -> the input of layer 0."""
        x = rows * self.spec.embed_scale if self.spec.embed_scale != 1 else rows
        if self.spec.n_positions:
            if x.shape[-2] > self.spec.n_positions:
                raise InvalidArgumentError(
                    f"{x.shape[-2]} tokens in a row, the model has {self.spec.n_positions} "
                    "positions; take shorter windows",
                    code="invalid_argument",
                )
            x = x + self.weights["position_embd"][: x.shape[-2]]
        return x

    def block(self, x: Tensor, index: int, kv: KvRounding = EXACT) -> Tensor:
        """One layer of sequences from position 0: x [..., n, d_model] -> the same. Needs the
        weights of this layer and the rotary tables only."""
        layer, prefix = self.spec.layers[index], f"layers.{index}."
        h = self._norm(x, prefix + "attn_norm") if layer.pre_norm else x
        attended = self._mixed(h, layer, prefix, kv)
        if layer.parallel:
            h = self._norm(x, prefix + "ffn_norm") if layer.pre_norm else x
            return x + attended + self._ffn(h, layer, prefix)
        if layer.post_norm:
            attended = self._norm(attended, prefix + "attn_post_norm")
        x = x + attended
        h = self._norm(x, prefix + "ffn_norm") if layer.pre_norm else x
        y = self._ffn(h, layer, prefix)
        return x + (self._norm(y, prefix + "ffn_post_norm") if layer.post_norm else y)

    def key_sums(self, x: Tensor, index: int) -> KeySums:
        """Of the queries and keys of one layer, for a sequence x [n, d_model] from position 0."""
        layer, prefix = self.spec.layers[index], f"layers.{index}."
        h = self._norm(x, prefix + "attn_norm") if layer.pre_norm else x
        return KeySums.of(*self._queries_and_keys(h, layer, prefix))

    def head(self, x: Tensor) -> Tensor:
        """Hidden states of the last layer -> logits [..., n, n_vocab]."""
        if self.spec.headless:
            raise UnsupportedError("the model has no head", code="feature_unsupported")
        name = "token_embd" if self.spec.tied_head else "output"
        return self.to_logits(x, self.weights[name])

    def to_logits(self, x: Tensor, matrix: Tensor) -> Tensor:
        """The same with the head's matrix [n_vocab, d_model] given."""
        return self.capped(self.final_norm(x) @ matrix.T)

    def capped(self, logits: Tensor) -> Tensor:
        """Logits as the model bounds them."""
        return softcapped(logits, self.spec.final_softcap)

    def final_norm(self, x: Tensor) -> Tensor:
        """Hidden states of the last layer -> the head's input, same shape."""
        return self._norm(x, "output_norm")

    def linear(self, x: Tensor, name: str, rows: slice = ALL_ROWS) -> Tensor:
        """x [..., n_cols] through matrix `name` of a layer, or through the rows of it that are one
        expert's. Calibration overrides it to look on."""
        y = x @ self.weights[name][rows].T
        if name not in self.changes:
            return y
        a, b = self.changes[name]
        return y + (x @ a.T) @ b.T

    def _residuals(self, ids: Sequence[int], kv: str | None) -> Tensor:
        """Hidden states of the last layer [n, d_model]."""
        x, rounding = self.embed(ids), EXACT if kv is None else kv_rounding(kv)
        for index in range(len(self.spec.layers)):
            x = self.block(x, index, rounding)
        return x

    def _norm(self, x: Tensor, name: str) -> Tensor:
        if self.spec.norm == "layer":
            weight, bias = self.weights[name], self.weights[name + "_bias"]
            return layer_norm(x, weight.shape, weight, bias, self.spec.norm_eps)
        return self._rms_norm(x, self.weights[name])

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.spec.norm_eps))

    def _affine(self, x: Tensor, name: str, has_bias: bool) -> Tensor:
        y = self.linear(x, name)
        return y + self.weights[name + "_bias"] if has_bias else y

    def _rotation(self, rope: str, n_tokens: int) -> tuple[Tensor, Tensor]:
        """cos and sin [n_tokens, n_rope / 2]."""
        name, factor = "rope_inv_freq", self.spec.rope_factor
        if rope == "local":
            name, factor = "rope_inv_freq_local", self.spec.rope_local_factor
        elif 0 < self.spec.n_ctx_original < self.n_ctx:
            name = "rope_inv_freq_long"
        frequencies = self.weights[name]
        positions = torch.arange(n_tokens, dtype=torch.float32, device=frequencies.device)
        angles = positions[:, None] * frequencies[None, :]
        return angles.cos() * factor, angles.sin() * factor

    def _rotate(self, x: Tensor, rope: str) -> Tensor:
        """x: [..., n_heads, n, head_dim]; the first n_rope dimensions turn, halves paired."""
        half = self.spec.n_rope // 2
        if rope == "none" or half == 0:
            return x
        cos, sin = self._rotation(rope, x.shape[-2])
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)

    def _heads(self, h: Tensor, layer: LayerSpec, name: str, n_heads: int) -> Tensor:
        """Queries, keys or values [..., n_heads, n, head_dim], normalised if the layer does."""
        flat = self._affine(h, name, layer.qkv_bias)
        is_normed = not name.endswith("attn_v")
        if is_normed and layer.qk_norm == "full":
            flat = self._rms_norm(flat, self.weights[name + "_norm"])
        heads = flat.view(*h.shape[:-1], n_heads, layer.head_dim).transpose(-3, -2)
        if is_normed and layer.qk_norm == "head":
            heads = self._rms_norm(heads, self.weights[name + "_norm"])
        return heads

    def _mixed(self, h: Tensor, layer: LayerSpec, prefix: str, kv: KvRounding) -> Tensor:
        """What a layer takes from the tokens before each."""
        if layer.mixer == "short_conv":
            return self._short_conv(h, layer, prefix)
        return self._attention(h, layer, prefix, kv)

    def _short_conv(self, h: Tensor, layer: LayerSpec, prefix: str) -> Tensor:
        """LFM2's gated convolution (Liquid AI, 2025): each channel by itself, causal."""
        gate_in, gate_out, x = self.linear(h, prefix + "conv_in").chunk(3, -1)
        taps = self.weights[prefix + "conv_taps"].view(layer.conv_kernel, -1)
        columns, mixed = gate_in * x, torch.zeros_like(x)
        for tap, n_before in zip(taps, reversed(range(layer.conv_kernel)), strict=True):
            mixed = mixed + tap * self._earlier(columns, n_before)
        return self.linear(gate_out * mixed, prefix + "conv_out")

    def _earlier(self, x: Tensor, n: int) -> Tensor:
        """Rows of x [..., n_tokens, d] as they were n tokens before, zeros where there was none.
        Training on several documents in a row overrides it."""
        return pad(x, (0, 0, n, 0))[..., : x.shape[-2], :]

    def _attention(self, h: Tensor, layer: LayerSpec, prefix: str, kv: KvRounding) -> Tensor:
        kv = replace(
            kv,
            rotate_keys=kv.rotate_keys or layer.rotate_keys,
            balance_keys=kv.balance_keys or layer.balance_keys,
        )
        q, k = self._queries_and_keys(h, layer, prefix)
        v = self._heads(h, layer, prefix + "attn_v", layer.n_kv_heads)
        scores = kv.scores(q, k, self._key_balance(layer, prefix))
        scores = scores * (layer.attn_scale or 1 / math.sqrt(layer.head_dim))
        scores = softcapped(scores, layer.attn_softcap)
        mixed = kv.mixed(scores.masked_fill(~self._seen(h, layer), -math.inf).softmax(-1), v)
        flat = mixed.transpose(-3, -2).flatten(-2)
        return self._affine(flat, prefix + "attn_o", layer.o_bias)

    def _queries_and_keys(self, h: Tensor, layer: LayerSpec, prefix: str) -> tuple[Tensor, Tensor]:
        """As they meet: [..., n_heads, n, head_dim] and [..., n_kv_heads, n, head_dim]."""
        q = self._heads(h, layer, prefix + "attn_q", layer.n_heads)
        k = self._heads(h, layer, prefix + "attn_k", layer.n_kv_heads)
        return self._rotate(q, layer.rope), self._rotate(k, layer.rope)

    def _key_balance(self, layer: LayerSpec, prefix: str) -> KeyBalance | None:
        """None where the weights have none."""
        if prefix + KEY_BALANCE_ROLES[0] not in self.weights:
            return None
        shape = (layer.n_kv_heads, layer.head_dim)
        return KeyBalance(*(self.weights[prefix + role].view(shape) for role in KEY_BALANCE_ROLES))

    def _seen(self, h: Tensor, layer: LayerSpec) -> Tensor:
        """Which keys (columns) a query (row) sees, to be broadcast to the scores. Training on
        several documents in a row overrides it."""
        n = h.shape[-2]
        seen = torch.ones(n, n, dtype=torch.bool, device=h.device).tril()
        return seen.triu(1 - layer.window) if layer.window else seen

    def _ffn(self, h: Tensor, layer: LayerSpec, prefix: str) -> Tensor:
        if layer.n_experts:
            return self._experts(h, layer, prefix)
        act, has_bias = ACTIVATIONS[layer.ffn_act], layer.ffn_bias
        up = self._affine(h, prefix + "ffn_up", has_bias)
        if layer.ffn_gated:
            inner = act(self._affine(h, prefix + "ffn_gate", has_bias)) * up
        else:
            inner = act(up)
        return self._affine(inner, prefix + "ffn_down", has_bias)

    def _experts(self, h: Tensor, layer: LayerSpec, prefix: str) -> Tensor:
        """The experts that the router chooses for each token, and the shared one."""
        shape, h = h.shape, h.flatten(0, -2)
        shares = self._shares(h, layer, prefix)
        y = torch.zeros_like(h)
        for expert in range(layer.n_experts):
            tokens = shares[:, expert].nonzero()[:, 0]
            if len(tokens):
                part = self._expert(h[tokens], layer, prefix, expert)
                y = y.index_add(0, tokens, part * shares[tokens, expert, None])
        if not layer.d_shared:
            return y.view(shape)
        act = ACTIVATIONS[layer.ffn_act]
        gate = act(self.linear(h, prefix + "ffn_gate_shexp"))
        inner = gate * self.linear(h, prefix + "ffn_up_shexp")
        shared = self.linear(inner, prefix + "ffn_down_shexp")
        if layer.shared_gate:
            shared = shared * self.linear(h, prefix + "ffn_gate_inp_shexp").sigmoid()
        return (y + shared).view(shape)

    def _shares(self, h: Tensor, layer: LayerSpec, prefix: str) -> Tensor:
        """[n, n_experts]: what a chosen expert's output is multiplied by, 0 for the others."""
        shares = self.linear(h, prefix + "ffn_router").softmax(-1)
        # Stable: of equal shares the lower id comes first.
        order = shares.argsort(dim=-1, descending=True, stable=True)
        chosen = torch.zeros_like(shares).scatter(1, order[:, : layer.n_experts_used], 1.0)
        shares = shares * chosen
        return shares / shares.sum(-1, keepdim=True) if layer.norm_topk else shares

    def _expert(self, x: Tensor, layer: LayerSpec, prefix: str, expert: int) -> Tensor:
        """x [n, d_model] through one expert."""
        inner, outer = expert_rows(expert, layer.d_expert), expert_rows(expert, self.spec.d_model)
        gate = ACTIVATIONS[layer.ffn_act](self.linear(x, prefix + "ffn_gate_exps", inner))
        up = self.linear(x, prefix + "ffn_up_exps", inner)
        return self.linear(gate * up, prefix + "ffn_down_exps", outer)


def decoded_weights(
    header: EdgeHeader, is_wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Tensor]:
    """The tensors of a file in float32, blobs left out, and what is not wanted by its name."""
    weights: dict[str, Tensor] = {}
    for name, info in header.tensors.items():
        if info.format == "U8" or not is_wanted(name):
            continue
        data = np.frombuffer(read_tensor(header, name), dtype=np.uint8)
        if info.format == "F32":
            values = data.view("<f4").astype(np.float32)
        else:
            values = decode_matrix(info.format, data, *info.shape)
        weights[name] = torch.from_numpy(np.ascontiguousarray(values))
    return weights


def expert_rows(expert: int, n_rows: int) -> slice:
    """Where the `n_rows` rows of an expert stand in the matrix of all experts."""
    begin = expert * padded_rows(n_rows)
    return slice(begin, begin + n_rows)


def torch_tables(tables: Mapping[str, F32Array]) -> dict[str, Tensor]:
    """Rotary tables by name, as Reference wants them."""
    return {name: torch.from_numpy(table) for name, table in tables.items()}


def softcapped(x: Tensor, cap: float) -> Tensor:
    return cap * torch.tanh(x / cap) if cap else x
