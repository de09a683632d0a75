"""AutoRound: the roundings of one whole layer, learned together from the layer's output.

SignRound (Cheng et al. 2023, arXiv:2309.05516): signed gradient descent on the squared error of the
layer's output over batches of calibration windows, the rate falling to zero. Here the inputs are
those of the converted model and the outputs to reach those of the original one. Windows run on
threads, each with one thread inside, and are summed in order. Knows no format and no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from edgellm.errors import NumericError

from ..quant.methods import Method
from ..quant.methods.gptq import one_torch_thread
from ..quant.methods.rounding import Rounding
from .walk import Walk

SCALE_RATE = 0.1  # of the rate of the offsets; a scale's next odd value is about 2 % away


N_LOOKS = 5  # at the loss over all windows


class LayerTuning:
    """roundings: the matrices of layer `index` to learn, by name. weights: the layer's other
    tensors as converted. Afterwards the roundings hold the best that was seen."""

    def __init__(
        self,
        walk: Walk,
        index: int,
        roundings: Mapping[str, Rounding],
        weights: Mapping[str, Tensor],
        original: Mapping[str, Tensor],
    ) -> None:
        self._walk, self._index, self._roundings = walk, index, roundings
        self._fixed = {name: w for name, w in weights.items() if name not in roundings}
        self._targets = walk.outputs(index, original)

    def run(self, method: Method) -> tuple[float, float]:
        """The layer's mean squared output error over all windows before and after; the latter is
        never more. NumericError where the first is not finite."""
        rng = np.random.default_rng(self._index)
        n_windows = len(self._targets)
        before = best = self._loss()
        states = self._states()
        if not np.isfinite(before):
            raise NumericError(
                f"layer {self._index}: its outputs overflow on the calibration text; the "
                "checkpoint is damaged",
                code="numeric",
            )
        for step in range(method.n_steps):
            # Falls to zero; over all steps an offset can travel `reach`.
            rate = 2 * method.reach / method.n_steps * (1 - step / method.n_steps)
            size = min(method.batch_windows, n_windows)
            chosen = rng.choice(n_windows, size, replace=False)
            gradients = self._gradients(np.sort(chosen).tolist())
            for rounding, gradient in zip(self._roundings.values(), gradients, strict=True):
                rounding.step(gradient, rate, SCALE_RATE * rate)
            # Signs do not shrink near a minimum: weights swing around it, and some time is best.
            if (step + 1) * N_LOOKS % method.n_steps < N_LOOKS:
                loss = self._loss()
                if loss < best:
                    best, states = loss, self._states()
        for rounding, state in zip(self._roundings.values(), states, strict=True):
            rounding.restore(state)
        return before, best

    def _states(self) -> list[tuple[Tensor, Tensor]]:
        return [rounding.state() for rounding in self._roundings.values()]

    def _loss(self) -> float:
        model = self._walk.model({**self._fixed, **self._learned()})

        def task(window: int) -> float:
            with torch.inference_mode():
                y = model.block(self._walk.hidden[window], self._index)
                return float((y - self._targets[window]).square().mean(dtype=torch.float64))

        with one_torch_thread(), ThreadPoolExecutor(self._walk.n_threads) as pool:
            return float(np.mean(list(pool.map(task, range(len(self._targets))))))

    def _gradients(self, windows: Sequence[int]) -> list[Tensor]:
        """Of the sum of the batch's squared errors by every matrix."""
        learned = self._learned()

        def task(window: int) -> tuple[Tensor, ...]:
            leaves = {name: w.detach().requires_grad_() for name, w in learned.items()}
            model = self._walk.model({**self._fixed, **leaves})
            y = model.block(self._walk.hidden[window], self._index)
            loss = (y - self._targets[window]).square().sum()
            return torch.autograd.grad(loss, list(leaves.values()))

        def in_order() -> Iterator[tuple[Tensor, ...]]:
            """At most one result for each thread waits: they are as large as the layer."""
            n = self._walk.n_threads
            with one_torch_thread(), ThreadPoolExecutor(n) as pool:
                for first in range(0, len(windows), n):
                    yield from pool.map(task, windows[first : first + n])

        total: list[Tensor] | None = None
        for parts in in_order():
            if total is None:
                total = list(parts)
            else:
                total = [one.add_(other) for one, other in zip(total, parts, strict=True)]
        assert total is not None
        return total

    def _learned(self) -> dict[str, Tensor]:
        return {name: rounding.weights() for name, rounding in self._roundings.items()}
