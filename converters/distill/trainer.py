"""One optimizer step: the same bits for the same state, data and threads.

Knows no files. What is random is decided by data.step_windows() and the student's start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgellm.errors import NumericError, UnsupportedError

from ..report import Divergence
from .data import Packed, Tokens, step_windows
from .logit_cache import LogitCache
from .losses import DIVERGENCE, hidden_distance, mean_of, next_token
from .measure import divergence, log_probs, tensors
from .optimizer import Optimizer
from .recipe import TrainRecipe
from .schedule import rate_at
from .student import PackedModel, Student, Teacher


@contextmanager
def same_bits(n_threads: int) -> Iterator[None]:
    """torch with one order for every sum: a number of threads, and no racing ones."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(n_threads)
    # Not use_deterministic_algorithms(), which loads torch's compiler for seconds.
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)


class Trainer:
    """teacher: None without one, and where the cache has all that is asked of it."""

    def __init__(
        self,
        student: Student,
        data: Packed,
        recipe: TrainRecipe,
        teacher: Teacher | None = None,
        cache: LogitCache | None = None,
    ) -> None:
        self.optimizer = Optimizer(student.learnt(), recipe.optimizer)
        self._student, self._data, self._recipe = student, data, recipe
        self._teacher, self._cache = teacher, cache
        self._kinds = data.kinds_of_tokens()
        _check_pair(student, teacher, recipe)

    @property
    def tokens_per_step(self) -> int:
        batch = self._recipe.batch
        return batch.windows * batch.accumulate * int(self._data.tokens.shape[1])

    def step(self, step: int, own: Tokens | None = None) -> dict[str, Any]:
        """Optimizer step `step`, from 0 -> its line of the curve without n_tokens. own: windows of
        the student's own, instead of as many of the data; they have no next-token loss.
        NumericError where the loss is not finite; nothing has been changed by that step then."""
        batch = self._recipe.batch
        n = batch.windows * batch.accumulate
        chosen = step_windows(len(self._data), step, n, batch.seed)
        whole = self._data.batch(chosen)
        is_own = np.arange(n) < (0 if own is None else len(own))
        if own is not None:
            whole.tokens[is_own] = own
            whole.documents[is_own] = 0
        meter = _Meter(self._data.kinds)
        for places in np.split(np.arange(n), batch.accumulate):
            windows = chosen[places]
            passed = _Pass(windows, whole.batch(places), torch.from_numpy(is_own[places]))
            loss, terms, losses, counted = self._loss(passed)
            if not math.isfinite(float(loss.detach())):
                raise NumericError(
                    f"step {step + 1}: the loss is {float(loss.detach())}; lower the rate, or "
                    "clip gradients",
                    code="numeric",
                )
            torch.autograd.backward(loss / batch.accumulate)
            meter.add(float(loss.detach()), terms, losses, counted, self._kinds[windows])
        share = rate_at(step, self._recipe.schedule)
        norm = self.optimizer.step(share)
        return {"step": step + 1, "rate": share, "grad_norm": norm, **meter.line()}

    def measure(self, valid: Packed) -> Divergence:
        """On windows that nothing learns from; without a teacher against the student itself."""
        return divergence(self._teacher or self._student, self._student, valid)

    def teacher_log_probs(self, windows: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        """[b, n, n_vocab] of the teacher, at temperature 1."""
        assert self._teacher is not None
        tokens, documents = tensors(self._data.batch(windows))
        with torch.no_grad():
            return log_probs(self._teacher.model(documents), tokens)

    def _loss(self, passed: _Pass) -> tuple[Tensor, dict[str, float], Tensor, Tensor]:
        """Of a forward pass: the whole, its terms, and next-token losses [b, n - 1] with which of
        them count."""
        options = self._recipe.loss
        tokens, documents = tensors(passed.data)
        with self._precision():
            model = self._student.model(documents)
            hidden = model.last_hidden(tokens)
            logits = model.head(hidden).float()
        log_q = logits.log_softmax(-1)
        losses, counted = next_token(log_q, tokens, documents)
        counted = counted & ~passed.is_own[:, None]
        terms = {"next_token": mean_of(losses, counted)}
        loss = options.next_token * terms["next_token"]
        if options.needs_teacher:
            terms |= self._teacher_terms(passed.windows, tokens, documents, model, hidden, logits)
            weights = {"teacher": options.teacher, "hidden": options.hidden}
            for name, weight in weights.items():
                if name in terms:
                    loss = loss + weight * terms[name]
        shown = {name: float(value.detach()) for name, value in terms.items()}
        return loss, shown, losses.detach(), counted

    def _teacher_terms(
        self,
        windows: np.ndarray[Any, np.dtype[np.int64]],
        tokens: Tensor,
        documents: Tensor,
        model: PackedModel,
        hidden: Tensor,
        logits: Tensor,
    ) -> dict[str, Tensor]:
        options = self._recipe.loss
        t = options.temperature
        log_q = (logits / t).log_softmax(-1)
        if self._cache is not None:
            return {"teacher": self._cache.cross_entropy(windows, log_q).mean()}
        assert self._teacher is not None
        with torch.no_grad(), self._precision():
            teacher = self._teacher.model(documents)
            wanted = teacher.last_hidden(tokens)
            log_p = (teacher.head(wanted).float() / t).log_softmax(-1) if options.teacher else None
        terms: dict[str, Tensor] = {}
        if log_p is not None:
            distance = DIVERGENCE[options.divergence](log_p, log_q, options.alpha)
            # The gradient of softened distributions shrinks by t^2 (Hinton et al. 2015).
            terms["teacher"] = t * t * distance.mean()
        if options.hidden:
            pair = model.final_norm(hidden).float(), teacher.final_norm(wanted).float()
            terms["hidden"] = hidden_distance(*pair).mean()
        return terms

    def _precision(self) -> AbstractContextManager[Any]:
        if self._recipe.batch.dtype == "f32":
            return nullcontext()
        return torch.autocast("cpu", dtype=torch.bfloat16)


@dataclass(frozen=True)
class _Pass:
    """windows: numbers in the data; is_own: [n_windows], which of them the student wrote."""

    windows: np.ndarray[Any, np.dtype[np.int64]]
    data: Packed
    is_own: Tensor


class _Meter:
    """Means over the passes of a step, in float64."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._names = kinds
        self._losses: list[float] = []
        self._terms: list[dict[str, float]] = []
        self._kinds = np.zeros((2, len(kinds)))

    def add(
        self,
        loss: float,
        terms: dict[str, float],
        losses: Tensor,
        counted: Tensor,
        kinds: np.ndarray[Any, np.dtype[np.int16]],
    ) -> None:
        self._losses.append(loss)
        self._terms.append(terms)
        own, chosen = kinds[:, 1:], counted.numpy()
        for place in range(len(self._names)):
            of_kind = chosen & (own == place)
            self._kinds[0, place] += losses.numpy()[of_kind].astype(np.float64).sum()
            self._kinds[1, place] += of_kind.sum()

    def line(self) -> dict[str, Any]:
        terms = {
            name: float(np.mean([one[name] for one in self._terms])) for name in self._terms[0]
        }
        sums, counts = self._kinds
        kinds = {
            name: float(sums[i] / counts[i]) for i, name in enumerate(self._names) if counts[i]
        }
        return {"loss": float(np.mean(self._losses)), "terms": terms, "kinds": kinds}


def _check_pair(student: Student, teacher: Teacher | None, recipe: TrainRecipe) -> None:
    """UnsupportedError where the two cannot be compared."""
    if student.spec.headless:
        raise UnsupportedError("a model without its head cannot learn", code="feature_unsupported")
    if teacher is None:
        return
    if teacher.spec.n_vocab != student.spec.n_vocab:
        raise UnsupportedError(
            f"the teacher has {teacher.spec.n_vocab} tokens, the student {student.spec.n_vocab}; "
            "divergences need one vocabulary",
            code="spec_unsupported",
        )
    if recipe.loss.hidden and teacher.spec.d_model != student.spec.d_model:
        raise UnsupportedError(
            f"hidden states of {teacher.spec.d_model} and {student.spec.d_model} dimensions cannot "
            "be compared; leave `hidden` out",
            code="spec_unsupported",
        )
