"""How far a model with other weights is from the original, on held-out tokens, layer by layer.

One layer's weights are in memory at a time (all of a small model), the hidden state of every
token, and the logits of a few positions. Windows run on threads, each with one thread inside, and
sums have one order: the figures do not depend on the number of threads. Knows no formats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgellm._native import default_n_threads
from edgellm.errors import NumericError, UnsupportedError

from .key_balance import KeySums, balance_of
from .kv_rounding import EXACT, KvRounding
from .layout import KEY_BALANCE_ROLES
from .plan import Job
from .quant import decode_matrix
from .quant.methods.gptq import one_torch_thread
from .quant.tiles import U8Array
from .recipe import EMBED_ROLE, HEAD_ROLE
from .reference import Reference, torch_tables
from .report import Divergence, PlannedTensor
from .spec import ModelSpec

Tokens = npt.NDArray[np.int32]
Weights = Mapping[str, Tensor]
T = TypeVar("T")

RESIDENT_WEIGHTS = 256 << 20  # a model of so many weights is read once: 1 GiB
LOGIT_VALUES = 1 << 23  # of one model at a time: 32 MiB


class WeightSource(Protocol):
    """Where the weights of a model come from, float32."""

    def embed(self, windows: Tokens) -> Tensor:
        """[n_windows, window_tokens] -> the inputs of layer 0, with d_model behind."""

    def layer(self, index: int) -> Weights:
        """The tensors of a layer, by their names in the file."""

    def head(self) -> Weights:
        """The last norm and `output`, the embedding where the head is tied."""


class PlannedWeights:
    """The tensors of a planned conversion. read: the whole of one, [n_rows, n_cols]."""

    def __init__(self, job: Job, read: Callable[[PlannedTensor], npt.NDArray[np.float32]]) -> None:
        self._items = {item.name: item for item in job.planned}
        self._spec, self._read = job.spec, read
        n_weights = sum(item.n_weights for item in job.planned)
        self._kept: dict[str, Tensor] | None = {} if n_weights <= RESIDENT_WEIGHTS else None

    @property
    def stay_in_memory(self) -> bool:
        return self._kept is not None

    def embed(self, windows: Tokens) -> Tensor:
        rows = self.tensor(EMBED_ROLE)[torch.from_numpy(windows.astype(np.int64))]
        names = [name for name in self._items if name == "position_embd"]
        reference = Reference(self._spec, {name: self.tensor(name) for name in names})
        return reference.embedded(rows)

    def layer(self, index: int) -> Weights:
        prefix = f"layers.{index}."
        return {name: self.tensor(name) for name in self._items if name.startswith(prefix)}

    def head(self) -> Weights:
        if self._spec.headless:
            raise UnsupportedError(
                "a model without its head has no scores of tokens to measure; convert it without "
                "calibration and held-out text",
                code="feature_unsupported",
            )
        matrix = EMBED_ROLE if self._spec.tied_head else HEAD_ROLE
        norm = {name: self.tensor(name) for name in self._items if name.startswith("output_norm")}
        return {**norm, HEAD_ROLE: self.tensor(matrix)}

    def tensor(self, name: str) -> Tensor:
        if self._kept is not None and name in self._kept:
            return self._kept[name]
        item = self._items[name]
        value = torch.from_numpy(np.ascontiguousarray(self._read(item)).reshape(item.shape))
        if self._kept is not None:
            self._kept[name] = value
        return value


def original_weights(job: Job) -> PlannedWeights:
    """Of the checkpoint itself."""

    def read(item: PlannedTensor) -> npt.NDArray[np.float32]:
        assert item.source is not None
        return job.checkpoint.read_rows(item.source, 0, item.rows_cols[0])

    return PlannedWeights(job, read)


def converted_weights(job: Job, strips: Callable[[PlannedTensor], U8Array]) -> PlannedWeights:
    """Of a planned conversion whose matrices are in `strips`."""

    def read(item: PlannedTensor) -> npt.NDArray[np.float32]:
        if item.act is None:
            return job.read_rows(item, 0, item.rows_cols[0])
        return decode_matrix(item.format, strips(item), *item.rows_cols)

    return PlannedWeights(job, read)


def plain_forward(job: Job, weights: PlannedWeights) -> Callable[[list[int]], int] | None:
    """The most likely next token of some ids; None of a model that does not stay in memory."""
    if not weights.stay_in_memory:
        return None
    named = {item.name: weights.tensor(item.name) for item in job.planned if item.source}
    reference = Reference(job.spec, {**named, **torch_tables(job.tables)})
    return lambda ids: int(reference.logits(ids)[-1].argmax())


class HeldOut:
    """Held-out windows [n_windows, window_tokens] and what the original model makes of them.

    final: its hidden states after the last layer. n_threads: 0 for all performance cores.
    """

    def __init__(
        self,
        spec: ModelSpec,
        tables: Mapping[str, npt.NDArray[np.float32]],
        windows: Tokens,
        original: WeightSource,
        n_threads: int,
    ) -> None:
        self.spec, self.windows = spec, windows
        self.n_threads = n_threads or default_n_threads()
        self._shared = torch_tables(tables)
        self._original_head = original.head()
        self.final = self.run(original.embed(windows), 0, original.layer)
        self._targets = torch.from_numpy(windows.astype(np.int64))

    def run(self, hidden: Tensor, first: int, layer: Callable[[int], Weights]) -> Tensor:
        """Inputs of layer `first` [n_windows, window_tokens, d_model] -> hidden states after the
        last; the input is left as it is."""
        for index in range(first, len(self.spec.layers)):
            hidden = self.advance(hidden, index, layer(index))
        return hidden

    def run_formats(
        self,
        hidden: Tensor,
        formats: Sequence[KvRounding],
        n_windows: int,
        layer: Callable[[int], Weights],
    ) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
        """Inputs of layer 0 -> hidden states after the last with an exact KV cache, those of the
        first n_windows in each of `formats`, and what keys are balanced with there, by the names of
        the tensors, from all windows. Every layer is read once."""
        stored = [hidden[:n_windows]] * len(formats)
        balances: dict[str, Tensor] = {}
        for index in range(len(self.spec.layers)):
            weights = layer(index)
            balance = self._key_balance(hidden, index, weights)
            balances |= balance
            weights = {**weights, **balance}
            hidden = self.advance(hidden, index, weights)
            stored = [
                self.advance(states, index, weights, kv=kv)
                for states, kv in zip(stored, formats, strict=True)
            ]
        return hidden, stored, balances

    def _key_balance(self, hidden: Tensor, index: int, weights: Weights) -> dict[str, Tensor]:
        """Empty for a layer without keys, and for one that bounds its scores: it sees what softmax
        does not."""
        layer = self.spec.layers[index]
        if layer.n_kv_heads == 0 or layer.attn_softcap:
            return {}
        reference = Reference(self.spec, {**weights, **self._shared})

        def task(window: int) -> KeySums:
            with torch.inference_mode():
                return reference.key_sums(hidden[window], index)

        balance = balance_of(self.each(task, len(hidden)))
        values = (balance.mean.flatten(), balance.scale.flatten())
        names = (f"layers.{index}.{role}" for role in KEY_BALANCE_ROLES)
        return dict(zip(names, values, strict=True))

    def advance(
        self,
        hidden: Tensor,
        index: int,
        weights: Weights,
        model: Callable[[ModelSpec, dict[str, Tensor]], Reference] = Reference,
        kv: KvRounding = EXACT,
    ) -> Tensor:
        """Through one layer: [n_windows, window_tokens, d_model], any number of windows."""
        reference = model(self.spec, {**weights, **self._shared})

        def task(window: int) -> Tensor:
            with torch.inference_mode():
                return reference.block(hidden[window], index, kv)

        return torch.stack(self.each(task, len(hidden)))

    def divergence(
        self,
        final: Tensor,
        head: Weights,
        base: Tensor | None = None,
        base_head: Weights | None = None,
    ) -> Divergence:
        """Of a model with these hidden states, of all windows or the first ones, and this head.
        base, base_head: of what it is compared with, instead of the original model's.
        NumericError: not finite."""
        compared = self.final if base is None else base
        compared_head = self._original_head if base_head is None else base_head

        def task(window: int) -> Tensor:
            with torch.inference_mode():
                return self._window(window, compared[window], compared_head, final[window], head)

        sums = torch.stack(self.each(task, len(final))).sum(dim=0).tolist()
        if not all(map(math.isfinite, sums)):
            raise NumericError(
                "the logits overflow on the held-out text; the checkpoint is damaged",
                code="numeric",
            )
        n_windows, n = len(final), self.windows.shape[1]
        n_tokens, n_targets = n_windows * n, n_windows * (n - 1)
        kl, same, before, after = sums
        return Divergence(
            max(kl / n_tokens, 0.0),
            same / n_tokens,
            before / n_targets,
            after / n_targets,
            n_tokens,
        )

    def _window(
        self, window: int, base: Tensor, base_head: Weights, final: Tensor, head: Weights
    ) -> Tensor:
        """Sums over one window: KL, equal most likely tokens, losses before and after."""
        sums = torch.zeros(4, dtype=torch.float64)
        targets = self._targets[window, 1:]
        n_rows = max(1, LOGIT_VALUES // len(self._original_head[HEAD_ROLE]))
        for begin in range(0, len(final), n_rows):
            rows = slice(begin, begin + n_rows)
            wanted = self._log_probs(base[rows], base_head)
            got = self._log_probs(final[rows], head)
            sums[0] += (wanted.exp() * (wanted - got)).sum(dim=-1).double().sum()
            sums[1] += (wanted.argmax(dim=-1) == got.argmax(dim=-1)).sum()
            next_ids = targets[rows, None]
            for place, log_probs in ((2, wanted), (3, got)):
                sums[place] -= log_probs[: len(next_ids)].gather(1, next_ids).double().sum()
        return sums

    def _log_probs(self, rows: Tensor, head: Weights) -> Tensor:
        return Reference(self.spec, dict(head)).to_logits(rows, head[HEAD_ROLE]).log_softmax(dim=-1)

    def each(self, task: Callable[[int], T], n_windows: int) -> list[T]:
        """Of every window, in order; on threads, each with one of torch's inside."""
        with one_torch_thread(), ThreadPoolExecutor(self.n_threads) as pool:
            return list(pool.map(task, range(n_windows)))
