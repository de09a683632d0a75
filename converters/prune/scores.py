"""How much the parts of a model do on a text: what pruning ranks by.

One layer at a time, like divergence.py, whose windows run on threads: figures do not depend on how
many. Sums are of float32 squares in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..divergence import HeldOut, original_weights
from ..kv_rounding import EXACT, KvRounding
from ..plan import Job
from ..reference import ALL_ROWS, Reference, torch_tables
from ..report import Divergence
from ..spec import LayerSpec, ModelSpec

F64Array = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int32]


@dataclass
class LayerScores:
    """Of one layer, means over the tokens of the text.

    influence: 1 - cosine of the layer's input and output (block influence, Men et al. 2024,
    arXiv:2403.03853). attention_cosine: of the attention sub-layer's input and what it makes of it.
    sinks [n_heads]: the weight that later tokens give the first one (BOS sink, arXiv:2601.06787).
    heads [n_heads]: mean square that a head writes to the residual, over the residual's own.
    channels [d_ffn]: the same of each FFN channel, E[a^2] |w_down|^2 (activation importance as in
    Minitron, Muralidharan et al. 2024, arXiv:2407.14679); None of experts.
    columns: by matrix, the root mean square of each of its inputs, as Wanda wants them.
    """

    influence: float
    attention_cosine: float
    sinks: F64Array
    heads: F64Array
    channels: F64Array | None
    columns: dict[str, F64Array]


class Scorer:
    """A checkpoint's model on windows [n_windows, window_tokens] of a text."""

    def __init__(self, job: Job, windows: Tokens, n_threads: int) -> None:
        self._spec, self._weights = job.spec, original_weights(job)
        self._held = HeldOut(job.spec, job.tables, windows, self._weights, n_threads)
        self._tables = torch_tables(job.tables)
        self._inputs = self._weights.embed(windows)

    def walk(self, kept: Sequence[int]) -> list[LayerScores]:
        """Of the layers `kept`, in a model that has no others."""
        hidden, scores = self._inputs, []
        for index in kept:
            watch = _Watch(self._spec, {**self._weights.layer(index), **self._tables}, index)
            seen = self._held.each(watch.task(hidden), len(hidden))
            hidden = torch.stack([output for output, _ in seen])
            scores.append(watch.scores([sums for _, sums in seen]))
        return scores

    def final(self, kept: Sequence[int], hidden: Tensor | None = None) -> Tensor:
        """Hidden states after the last of the layers `kept`, from those before the first of them
        (None: the embedding's)."""
        hidden = self._inputs if hidden is None else hidden
        for index in kept:
            hidden = self._held.advance(hidden, index, self._weights.layer(index))
        return hidden

    def divergence(self, final: Tensor) -> Divergence:
        """Of a model that ends in these hidden states from the original."""
        return self._held.divergence(final, self._weights.head())


@dataclass
class _Sums:
    """Of one window. tensors: sums over its tokens by what they are of."""

    values: dict[str, F64Array] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        self.values[name] = value.double().numpy()


@dataclass(frozen=True)
class _Watching(KvRounding):
    """Looks at attention weights, rounds nothing."""

    exact: bool = True
    sums: _Sums = field(default_factory=_Sums)

    def mixed(self, p: Tensor, v: Tensor) -> Tensor:
        self.sums.add("sinks", p[..., 1:, 0].sum(-1))
        return super().mixed(p, v)


class _Watch:
    """One layer."""

    def __init__(self, spec: ModelSpec, weights: dict[str, Tensor], index: int) -> None:
        self._spec, self._weights, self._index = spec, weights, index

    def task(self, hidden: Tensor) -> Callable[[int], tuple[Tensor, _Sums]]:
        def window(number: int) -> tuple[Tensor, _Sums]:
            sums = _Sums()
            model = _Watched(self._spec, self._weights, sums)
            with torch.inference_mode():
                return model.block(hidden[number], self._index, _Watching(sums=sums)), sums

        return window

    def scores(self, windows: list[_Sums]) -> LayerScores:
        total = {
            name: np.sum([window.values[name] for window in windows], axis=0)
            for name in windows[0].values
        }
        n_tokens = float(total["n_tokens"])
        n_later = n_tokens - len(windows)
        columns = {
            name.removeprefix("column "): np.sqrt(sums / n_tokens)
            for name, sums in total.items()
            if name.startswith("column ")
        }
        layer, energy = self._spec.layers[self._index], float(total["input"])
        down = f"layers.{self._index}.ffn_down"
        channels = None
        if not layer.n_experts:
            norms = self._weights[down].double().square().sum(0).numpy()
            channels = total["column " + down] * norms / energy
        return LayerScores(
            1 - float(total["block_cosine"]) / n_tokens,
            float(total["attention_cosine"]) / n_tokens,
            total["sinks"] / max(n_later, 1.0),
            total["heads"] / energy,
            channels,
            columns,
        )


class _Watched(Reference):
    def __init__(self, spec: ModelSpec, weights: dict[str, Tensor], sums: _Sums) -> None:
        super().__init__(spec, weights)
        self._sums = sums

    def block(self, x: Tensor, index: int, kv: KvRounding = EXACT) -> Tensor:
        y = super().block(x, index, kv)
        attended = x + self._attended
        self._sums.add("n_tokens", torch.tensor(x.shape[-2]))
        self._sums.add("input", x.double().square().sum())
        self._sums.add("block_cosine", cosine_similarity(x, y, dim=-1).sum())
        self._sums.add("attention_cosine", cosine_similarity(x, attended, dim=-1).sum())
        return y

    def linear(self, x: Tensor, name: str, rows: slice = ALL_ROWS) -> Tensor:
        if rows == ALL_ROWS:
            self._sums.add("column " + name, x.double().square().sum(0))
        return super().linear(x, name, rows)

    def _attention(self, h: Tensor, layer: LayerSpec, prefix: str, kv: KvRounding) -> Tensor:
        attended = super()._attention(h, layer, prefix, kv)
        self._attended = attended
        if layer.post_norm:
            self._attended = self._norm(attended, prefix + "attn_post_norm")
        return attended

    def _affine(self, x: Tensor, name: str, has_bias: bool) -> Tensor:
        if name.endswith(".attn_o"):
            head_dim = self.spec.layers[int(name.split(".")[1])].head_dim
            inputs = torch.chunk(x, x.shape[-1] // head_dim, -1)
            columns = torch.chunk(self.weights[name], len(inputs), 1)
            blocks = zip(inputs, columns, strict=True)
            self._sums.add("heads", torch.stack([(a @ w.T).square().sum() for a, w in blocks]))
        return super()._affine(x, name, has_bias)
