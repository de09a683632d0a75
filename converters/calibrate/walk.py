"""All calibration windows through one layer at a time, and the moments of its matrices' inputs.

Only one layer's weights and moments are in memory, and the hidden state of every token: float32,
n_tokens * d_model * 4 bytes, twice when the original model is walked beside the converted one.
Windows run on threads, each with one thread inside, and are summed in order: the numbers do not
depend on the number of threads. Knows nothing of formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from edgellm.errors import NumericError

from ..quant.methods import InputStats
from ..quant.methods.gptq import one_torch_thread
from ..quant.tiles import F32Array
from ..reference import ALL_ROWS, Reference, torch_tables
from ..spec import LayerSpec, ModelSpec
from .tokens import Tokens

# Matrices of one of Llama's layers that read the same input, as input_groups() gives them.
INPUT_GROUPS = (
    ("attn_q", "attn_k", "attn_v"),
    ("attn_o",),
    ("ffn_gate", "ffn_up"),
    ("ffn_down",),
)
EXPERTS = "_exps"
TASK_WINDOWS = 4
GRAM_COLS = 1024

Weights = Mapping[str, Tensor]
_Task = Callable[[int], tuple[Tensor, Tensor | None]]  # first window -> x^T x, (x_full - x)^T x


class Walk:
    """hidden: the inputs of the next layer, [n_windows, window_tokens, d_model], of the converted
    model; full: of the original one, None unless keep_full."""

    def __init__(
        self,
        spec: ModelSpec,
        tables: Mapping[str, F32Array],
        hidden: F32Array,
        full: F32Array | None,
        n_threads: int,
    ) -> None:
        self._spec = spec
        self._shared = torch_tables(tables)
        self._hidden = torch.from_numpy(hidden)
        self._full = None if full is None else torch.from_numpy(full)
        self._n_threads = max(1, n_threads)

    @property
    def hidden(self) -> Tensor:
        """The next layer's inputs in the converted model, [n_windows, window_tokens, d_model]."""
        return self._hidden

    @property
    def keeps_full(self) -> bool:
        """Whether the original model is walked beside the converted one."""
        return self._full is not None

    @property
    def n_threads(self) -> int:
        return self._n_threads

    def model(self, weights: Weights) -> Reference:
        """With the weights of one layer, to run that layer."""
        return Reference(self._spec, {**weights, **self._shared})

    def outputs(self, index: int, original: Weights) -> Tensor:
        """The original model's outputs of layer `index`, in the shape of `hidden`; it must be
        walked beside the converted one."""
        assert self._full is not None
        full, model = self._full, self.model(original)
        found = torch.empty_like(full)

        def task(window: int) -> None:
            with torch.inference_mode():
                found[window] = model.block(full[window], index)

        with one_torch_thread(), ThreadPoolExecutor(self._n_threads) as pool:
            for _ in pool.map(task, range(len(full))):
                pass
        return found

    def measure(
        self, index: int, converted: Weights, original: Weights, group: Sequence[str]
    ) -> InputStats:
        """The moments of the input that the matrices of `group` share. The weights are those of
        layer `index`; what comes after the group in the layer is not computed. Of experts together,
        over what each of them was given, which need not be the same in the original model."""
        name = f"layers.{index}.{group[0]}"

        def task(begin: int) -> tuple[Tensor, Tensor | None]:
            x = self._inputs(index, name, converted, self._hidden, begin)
            if self._full is None or group[0].endswith(EXPERTS):
                return upper_gram(x), None
            full = self._inputs(index, name, original, self._full, begin)
            return upper_gram(x), (full - x).T @ x

        return self._collect(task, name)

    def sample(self, index: int, weights: Weights, role: str) -> F32Array:
        """Inputs of matrix `role` of layer `index` on the first windows, [n, n_cols]."""
        with one_torch_thread(), torch.inference_mode():
            found: F32Array = self._inputs(
                index, f"layers.{index}.{role}", weights, self._hidden, 0
            ).numpy()
        return found

    def measure_head(self, norm: Weights) -> InputStats:
        """The moments of the head's input, after the last layer. norm: the tensors of the last
        norm."""
        reference = Reference(self._spec, dict(norm))

        def rows(hidden: Tensor, begin: int) -> Tensor:
            chosen = hidden[begin : begin + TASK_WINDOWS]
            return reference.final_norm(chosen).reshape(-1, hidden.shape[-1])

        def task(begin: int) -> tuple[Tensor, Tensor | None]:
            x = rows(self._hidden, begin)
            cross = None if self._full is None else (rows(self._full, begin) - x).T @ x
            return upper_gram(x), cross

        return self._collect(task, "output")

    def advance(self, index: int, converted: Weights, original: Weights) -> None:
        """Through layer `index`: the hidden states become the next layer's inputs."""
        for weights, hidden in ((converted, self._hidden), (original, self._full)):
            if hidden is None:
                continue
            reference = Reference(self._spec, {**weights, **self._shared})

            def task(window: int, reference: Reference = reference, x: Tensor = hidden) -> None:
                with torch.inference_mode():
                    x[window] = reference.block(x[window], index)

            with one_torch_thread(), ThreadPoolExecutor(self._n_threads) as pool:
                for _ in pool.map(task, range(len(hidden))):
                    pass

    def _inputs(
        self, index: int, name: str, weights: Weights, hidden: Tensor, begin: int
    ) -> Tensor:
        tap = _Tap(self._spec, {**weights, **self._shared}, name)
        return torch.cat([tap.inputs(x, index) for x in hidden[begin : begin + TASK_WINDOWS]])

    def _collect(self, task: _Task, name: str) -> InputStats:
        n_tokens = self._hidden.shape[0] * self._hidden.shape[1]
        moments: Tensor | None = None
        drift: Tensor | None = None
        with torch.inference_mode():
            for part, cross in self._in_order(task):
                moments = part if moments is None else moments.add_(part)
                if cross is not None:
                    drift = cross if drift is None else drift.add_(cross)
            assert moments is not None
            moments.triu_().add_(moments.triu(1).T).div_(n_tokens)
        stats = InputStats(moments.numpy(), None if drift is None else (drift / n_tokens).numpy())
        if not np.isfinite(stats.moments).all():
            raise NumericError(
                f"the inputs of '{name}' overflow on the calibration text; the checkpoint is "
                "damaged",
                code="numeric",
            )
        return stats

    def _in_order(self, task: _Task) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Results in the order of the windows, at most n_threads of them waiting."""

        def run(begin: int) -> tuple[Tensor, Tensor | None]:
            with torch.inference_mode():
                return task(begin)

        begins = range(0, len(self._hidden), TASK_WINDOWS)
        with one_torch_thread(), ThreadPoolExecutor(self._n_threads) as pool:
            for first in range(0, len(begins), self._n_threads):
                yield from pool.map(run, begins[first : first + self._n_threads])


def upper_gram(x: Tensor) -> Tensor:
    """The upper triangle of x^T x, in little more than half its multiplications; below the
    diagonal are zeros or the same numbers."""
    n_cols = x.shape[1]
    product = torch.zeros(n_cols, n_cols)
    for start in range(0, n_cols, GRAM_COLS):
        columns = slice(start, start + GRAM_COLS)
        product[columns, start:] = x[:, columns].T @ x[:, start:]
    return product


class _Reached(Exception):
    """Carries the input out of the middle of a layer."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class _Tap(Reference):
    def __init__(self, spec: ModelSpec, weights: dict[str, Tensor], name: str) -> None:
        super().__init__(spec, weights)
        self._name = name
        self._of_experts: list[Tensor] = []

    def inputs(self, x: Tensor, index: int) -> Tensor:
        """[n, n_cols]; n is the number of tokens, or that of all that experts were given."""
        self._of_experts.clear()
        try:
            self.block(x, index)
        except _Reached as reached:
            return reached.x
        assert self._of_experts, f"layer {index} does not use '{self._name}'"
        return torch.cat(self._of_experts)

    def linear(self, x: Tensor, name: str, rows: slice = ALL_ROWS) -> Tensor:
        if name == self._name:
            if not name.endswith(EXPERTS):
                raise _Reached(x)
            self._of_experts.append(x)
        return super().linear(x, name, rows)


def input_groups(layer: LayerSpec) -> tuple[tuple[str, ...], ...]:
    """Matrices of a layer that read the same input, in the order in which it computes them."""
    is_conv = layer.mixer == "short_conv"
    mixer = (("conv_in",), ("conv_out",)) if is_conv else INPUT_GROUPS[:2]
    if not layer.n_experts:
        return (
            *mixer,
            *(INPUT_GROUPS[2:] if layer.ffn_gated else (("ffn_up",), ("ffn_down",))),
        )
    every_token = ["ffn_router"]
    every_token += ["ffn_gate_shexp", "ffn_up_shexp"] if layer.d_shared else []
    every_token += ["ffn_gate_inp_shexp"] if layer.shared_gate else []
    shared = (("ffn_down_shexp",),) if layer.d_shared else ()
    chosen = ("ffn_gate_exps", "ffn_up_exps")
    return (*mixer, tuple(every_token), chosen, ("ffn_down_exps",), *shared)


def token_rows(windows: Tokens) -> tuple[Tokens, Tokens]:
    """(ids that occur, ascending; their index for every token, in the shape of `windows`)."""
    ids, indices = np.unique(windows, return_inverse=True)
    return ids, indices.reshape(windows.shape).astype(np.int32)
