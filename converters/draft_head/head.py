"""The head's forward pass in torch, float32: the oracle of the native one, and what learns.

Row r of a pass of depth 1 has token r of a text and the target's hidden state of the token before
it, which is what the target's head reads (zeros before the first); it guesses token r + 1. Row r of
a pass of depth d has token r + d - 1 and, in place of the target's, the hidden state that row r of
the pass before gave. It sees the rows of depth 1 up to its own and its own of the depths between,
as in drafting d tokens after token r (EAGLE-3's training-time test).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..distill.refined import RoundedModel
from ..kv_rounding import EXACT, KvRounding, kv_rounding
from ..recipe import HEAD_ROLE
from ..reference import softcapped
from ..spec import LayerSpec, ModelSpec


class DraftHead(RoundedModel):
    """weights: the head's by their names in its file, and the target's rotary tables. n_rows: of
    the pass of depth 1. acts: how inputs of a matrix are rounded; those left out are not. kv: the
    format in which keys and values are kept, "F16" in the runtime; None rounds nothing."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: dict[str, Tensor],
        n_rows: int,
        acts: Mapping[str, str] | None = None,
        kv: str | None = None,
    ) -> None:
        super().__init__(spec, weights, torch.zeros(1, n_rows, dtype=torch.long), acts or {})
        self._kv = EXACT if kv is None else kv_rounding(kv)
        self._past: list[tuple[Tensor, Tensor]] = []

    @property
    def depth(self) -> int:
        """Passes so far."""
        return len(self._past)

    def deepen(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        """The next pass. embedded: rows of the target's embedding [b, n, d_model] as its layer 0
        takes them, without learned positions; hidden: [b, n, d_model]. n is that of the pass before
        or less. -> hidden states, same shape: what its head reads, and the next pass."""
        x = self.linear(self._norm(embedded, "embed_norm"), "fuse_embed")
        x = x + self.linear(self._norm(hidden, "hidden_norm"), "fuse_hidden")
        return self.final_norm(self.block(x, 0, self._kv))

    def draft_logits(self, hidden: Tensor) -> Tensor:
        """Of what deepen() gave: [b, n, n_vocab], by places among the ids that can be drafted."""
        return self.capped(self.linear(hidden, HEAD_ROLE))

    def _attention(self, h: Tensor, layer: LayerSpec, prefix: str, kv: KvRounding) -> Tensor:
        n, shared = h.shape[-2], layer.n_heads // layer.n_kv_heads
        q, k = self._queries_and_keys(h, layer, prefix)
        v = self._heads(h, layer, prefix + "attn_v", layer.n_kv_heads)
        if not kv.exact:
            k, v = k.half().float(), v.half().float()
        wide = k.repeat_interleave(shared, dim=-3), v.repeat_interleave(shared, dim=-3)
        self._past.append(wide)
        (first_k, first_v), *own = self._past
        n_first = first_k.shape[-2]
        seen = torch.ones(n, n_first, dtype=torch.bool).tril()
        scores = [q @ first_k.transpose(-2, -1)]
        scores += [(q * key[..., :n, :]).sum(-1, keepdim=True) for key, _ in own]
        scale = layer.attn_scale or 1 / math.sqrt(layer.head_dim)
        capped = softcapped(torch.cat(scores, dim=-1) * scale, layer.attn_softcap)
        is_seen = torch.cat([seen, torch.ones(n, len(own), dtype=torch.bool)], dim=-1)
        shares = capped.masked_fill(~is_seen, -math.inf).softmax(-1)
        mixed = shares[..., :n_first] @ first_v
        for place, (_, value) in enumerate(own, start=n_first):
            mixed = mixed + shares[..., place : place + 1] * value[..., :n, :]
        flat = mixed.transpose(-3, -2).flatten(-2)
        return self._affine(flat, prefix + "attn_o", layer.o_bias)

    def _rotation(self, rope: str, n_tokens: int) -> tuple[Tensor, Tensor]:
        """Rows of depth d stand d - 1 positions further on."""
        cos, sin = super()._rotation(rope, n_tokens + self.depth)
        return cos[self.depth :], sin[self.depth :]


def shifted(hidden: Tensor) -> Tensor:
    """The target's hidden states [b, n, d_model] -> those that rows of depth 1 have."""
    return torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], dim=1)
