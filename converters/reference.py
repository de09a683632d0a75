"""The oracle: one readable torch forward in float32 for any ModelSpec.

Weights come from the checkpoint, or from a `.edge` file dequantized by the numpy decoders of
quant/. Both ways it uses the ModelSpec and the rotary frequencies that the converter stores. Knows
nothing of sampling, text or speed. The one file of the converters that needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import silu

from edgellm.edgefile import read_header, read_tensor

from .checkpoint import Checkpoint
from .plan import Job, Options
from .quant import decode_matrix
from .spec import LayerSpec, ModelSpec


class Reference:
    """weights: the tensors by their names in the file; "output" is absent when the head is tied."""

    def __init__(self, spec: ModelSpec, weights: dict[str, Tensor]) -> None:
        self.spec = spec
        self.weights = weights

    @classmethod
    def from_checkpoint(cls, directory: Path) -> Reference:
        with Checkpoint(directory) as checkpoint:
            job = Job(checkpoint, Options("F16", None, None, None))
            weights = {"rope_inv_freq": torch.from_numpy(job.inv_freq)}
            for item in job.planned:
                if item.source is not None:
                    rows = checkpoint.read_rows(item.source, 0, item.rows_cols[0])
                    weights[item.name] = torch.from_numpy(rows.reshape(item.shape))
        return cls(job.spec, weights)

    @classmethod
    def from_edge(cls, path: Path) -> Reference:
        header = read_header(path)
        spec = ModelSpec.from_json(header.metadata["edgellm.spec"])
        weights: dict[str, Tensor] = {}
        for name, info in header.tensors.items():
            if info.format == "U8":
                continue
            data = np.frombuffer(read_tensor(header, name), dtype=np.uint8)
            if info.format == "F32":
                values = data.view("<f4").astype(np.float32)
            else:
                values = decode_matrix(info.format, data, *info.shape)
            weights[name] = torch.from_numpy(np.ascontiguousarray(values))
        return cls(spec, weights)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], *, kv_f16: bool = False) -> Tensor:
        """Logits [n, n_vocab] of every position. kv_f16: round keys (rotated) and values to f16,
        as a runtime with an F16 cache does."""
        store = _round_to_f16 if kv_f16 else _identity
        x = self.embed(ids)
        for index in range(len(self.spec.layers)):
            x = self.block(x, index, store)
        return self.head(x)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The input of layer 0, [n, d_model]."""
        return self.weights["token_embd"][torch.tensor(list(ids), dtype=torch.long)]

    def block(
        self, x: Tensor, index: int, store: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """One layer of one sequence from position 0: x [n, d_model] -> [n, d_model]. Needs the
        weights of this layer and `rope_inv_freq` only. store: what the cache does to k and v."""
        w, prefix = self.weights, f"layers.{index}."
        cos, sin = self._rotation(len(x))
        x = x + self._attention(x, self.spec.layers[index], prefix, cos, sin, store or _identity)
        h = self._norm(x, w[prefix + "ffn_norm"])
        gated = silu(self.linear(h, prefix + "ffn_gate")) * self.linear(h, prefix + "ffn_up")
        return x + self.linear(gated, prefix + "ffn_down")

    def head(self, x: Tensor) -> Tensor:
        """Hidden states of the last layer -> logits [n, n_vocab]."""
        name = "token_embd" if self.spec.tied_head else "output"
        return self.final_norm(x) @ self.weights[name].T

    def final_norm(self, x: Tensor) -> Tensor:
        """Hidden states of the last layer -> the head's input, same shape."""
        return self._norm(x, self.weights["output_norm"])

    def linear(self, x: Tensor, name: str) -> Tensor:
        """x [n, n_cols] through matrix `name` of a layer. Calibration overrides it to look on."""
        return x @ self.weights[name].T

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.spec.norm_eps))

    def _rotation(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        """cos and sin [n_tokens, n_rope / 2]."""
        positions = torch.arange(n_tokens, dtype=torch.float32)
        angles = positions[:, None] * self.weights["rope_inv_freq"][None, :]
        return angles.cos() * self.spec.rope_factor, angles.sin() * self.spec.rope_factor

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [n_heads, n, head_dim]; the first n_rope dimensions turn, halves paired."""
        half = self.spec.n_rope // 2
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)

    def _attention(
        self,
        x: Tensor,
        layer: LayerSpec,
        prefix: str,
        cos: Tensor,
        sin: Tensor,
        store: Callable[[Tensor], Tensor],
    ) -> Tensor:
        w, n = self.weights, len(x)
        h = self._norm(x, w[prefix + "attn_norm"])

        def heads(name: str, n_heads: int) -> Tensor:  # [n_heads, n, head_dim]
            flat = self.linear(h, prefix + name)
            return flat.view(n, n_heads, layer.head_dim).transpose(0, 1)

        q = self._rotate(heads("attn_q", layer.n_heads), cos, sin)
        k = store(self._rotate(heads("attn_k", layer.n_kv_heads), cos, sin))
        v = store(heads("attn_v", layer.n_kv_heads))
        group = layer.n_heads // layer.n_kv_heads
        k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
        scores = q @ k.transpose(1, 2) / math.sqrt(layer.head_dim)
        future = torch.ones(n, n, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        return self.linear(mixed.transpose(0, 1).reshape(n, -1), prefix + "attn_o")


def _identity(x: Tensor) -> Tensor:
    return x


def _round_to_f16(x: Tensor) -> Tensor:
    return x.half().float()
