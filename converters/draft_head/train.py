"""What a head learns by: the divergence from the model at every depth; and what it is worth.

Knows no files. The same bits for the same state, windows and threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding

from edgellm.edgefile import EdgeHeader
from edgellm.errors import FormatError, NumericError

from ..distill.data import step_windows
from ..distill.optimizer import Learnt, Optimizer
from ..distill.schedule import rate_at
from ..distill.state import State
from ..recipe import EMBED_ROLE, HEAD_ROLE
from ..reference import decoded_weights, softcapped
from ..spec import ModelSpec
from .head import DraftHead, shifted
from .options import DraftHeadOptions
from .report import DepthFigures
from .samples import Windows
from .shape import head_slots

NOISE = 0.02  # of what begins at random
Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Target:
    """What a head needs of the model. tables: rotary frequencies; layer: the last layer's weights
    by role; final_norm: those of the last norm by name."""

    spec: ModelSpec
    embedding: Tensor
    head: Tensor
    tables: Mapping[str, Tensor]
    layer: Mapping[str, Tensor]
    final_norm: Mapping[str, Tensor]

    def embedded(self, tokens: Tensor) -> Tensor:
        return embedding(tokens, self.embedding) * self.spec.embed_scale

    def log_probs(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Of the token after each, among `ids` or all tokens."""
        matrix = self.head if ids is None else self.head[ids]
        return softcapped(hidden @ matrix.T, self.spec.final_softcap).log_softmax(-1)


def target_of(header: EdgeHeader, spec: ModelSpec) -> Target:
    """Of a model's file, nothing of it decoded that is not needed."""
    prefix = f"layers.{len(spec.layers) - 1}."
    head = EMBED_ROLE if spec.tied_head else HEAD_ROLE

    def is_needed(name: str) -> bool:
        whole = (EMBED_ROLE, head, "output_norm", "output_norm_bias")
        of_layer = name.startswith((prefix, "rope_")) and not name.endswith("_exps")
        return of_layer or name in whole

    weights = decoded_weights(header, is_needed)
    return Target(
        spec,
        weights[EMBED_ROLE],
        weights[head],
        {name: value for name, value in weights.items() if name.startswith("rope_")},
        {
            name.removeprefix(prefix): value
            for name, value in weights.items()
            if name.startswith(prefix)
        },
        {name: value for name, value in weights.items() if name.startswith("output_norm")},
    )


def first_weights(target: Target, spec: ModelSpec, ids: Ids, seed: int) -> dict[str, Tensor]:
    """Where a head begins: the target's last layer, norm and rows of its head, and its hidden state
    passed through. Of a feed-forward network the widest channels stay."""
    rng = np.random.default_rng(seed)
    kept = _widest_channels(target.layer, spec.layers[0].d_ffn)
    weights: dict[str, Tensor] = {}
    for slot in head_slots(spec):
        found = target.layer.get(slot.role) if slot.layer is not None else None
        if found is not None and kept is not None and slot.role in _FFN_DIMENSION:
            found = found.index_select(_FFN_DIMENSION[slot.role], kept)
        if slot.role == HEAD_ROLE:
            found = target.head[torch.from_numpy(ids.astype(np.int64))]
        elif slot.role in target.final_norm:
            found = target.final_norm[slot.role]
        elif slot.role == "fuse_hidden":
            found = torch.eye(spec.d_model)
        elif slot.role.endswith("_norm"):
            found = torch.ones(slot.shape) if found is None else found
        elif slot.role.endswith("_bias"):
            found = torch.zeros(slot.shape) if found is None else found
        if found is None or tuple(found.shape) != slot.shape:
            noise = rng.standard_normal(slot.shape, dtype=np.float32) * np.float32(NOISE)
            found = torch.from_numpy(noise)
        weights[slot.name] = found.clone()
    return weights


_FFN_DIMENSION = {"ffn_gate": 0, "ffn_up": 0, "ffn_gate_bias": 0, "ffn_up_bias": 0, "ffn_down": 1}


def _widest_channels(layer: Mapping[str, Tensor], n: int) -> Tensor | None:
    """Of a dense network, by what a channel can add; None where there is none so wide."""
    down = layer.get("ffn_down")
    if down is None or down.shape[1] < n:
        return None
    size = down.square().sum(0) * layer["ffn_up"].square().sum(1)
    return size.argsort(descending=True, stable=True)[:n].sort().values


class HeadTrainer:
    """ids: [n_vocab] int32, ascending: the model's ids of what can be drafted."""

    def __init__(
        self, target: Target, spec: ModelSpec, ids: Ids, options: DraftHeadOptions
    ) -> None:
        self.weights = first_weights(target, spec, ids, options.seed)
        self._target, self._spec, self._options = target, spec, options
        self._ids = torch.from_numpy(ids.astype(np.int64))
        rate = options.rate
        learnt = {
            name: Learnt(
                value.requires_grad_(),
                rate,
                decays=value.dim() == 2,
                is_matrix=value.dim() == 2 and name != HEAD_ROLE,
            )
            for name, value in self.weights.items()
        }
        self.optimizer = Optimizer(learnt, options.optimizer)

    def step(self, step: int, windows: Windows) -> dict[str, Any]:
        """Optimizer step `step`, from 0 -> its line of the curve. NumericError where the loss is
        not finite; nothing has been changed by that step then."""
        options = self._options
        chosen = step_windows(len(windows), step, options.windows, options.seed)
        tokens, hidden = windows.tensors(chosen)
        losses = list(self._divergences(tokens, hidden))
        weights = [options.fade**place for place in range(len(losses))]
        loss = torch.stack([w * one for w, one in zip(weights, losses, strict=True)]).sum()
        if not math.isfinite(float(loss.detach())):
            raise NumericError(
                f"draft head, step {step + 1}: the loss is {float(loss.detach())}; lower `rate`",
                code="numeric",
            )
        torch.autograd.backward(loss / sum(weights))
        share = rate_at(step, options.schedule)
        norm = self.optimizer.step(share)
        shown = {f"depth{at}": float(one.detach()) for at, one in enumerate(losses, start=1)}
        value = float(loss.detach()) / sum(weights)
        return {"step": step + 1, "rate": share, "loss": value, "grad_norm": norm, "terms": shown}

    def state(self, step: int) -> State:
        n_tokens = step * self._options.windows * self._options.window_tokens
        return State(step, n_tokens, self.weights, self.optimizer.state())

    def load(self, state: State) -> None:
        """Goes on from there. FormatError where it is not this head's."""
        with torch.no_grad():
            for name, value in self.weights.items():
                found = state.parameters.get(name)
                if found is None or found.shape != value.shape:
                    raise FormatError(
                        f"the saved '{name}' is missing or of another shape; remove the run's "
                        "folder",
                        code="tensor_missing",
                    )
                value.copy_(found)
        self.optimizer.load(state.optimizer)

    @torch.no_grad()
    def measure(
        self,
        windows: Windows,
        weights: Mapping[str, Tensor] | None = None,
        acts: Mapping[str, str] | None = None,
    ) -> tuple[DepthFigures, ...]:
        """By depth. weights, acts: those of a stored head; None: as it has learnt."""
        depth, n = self._options.depth, windows.tokens.shape[1]
        sums = np.zeros((depth, 2))
        for window in range(len(windows)):
            tokens, hidden = windows.tensors(np.array([window]))
            log_p = self._target.log_probs(hidden)
            best = log_p.argmax(-1)
            p = log_p.exp()[..., self._ids]
            head = self._head(n, weights, acts)
            for at, state in enumerate(self._passes(head, tokens, hidden)):
                q = head.draft_logits(state).softmax(-1)
                sums[at, 0] += float((self._ids[q.argmax(-1)] == best[:, at:]).sum())
                sums[at, 1] += float(torch.minimum(p[:, at:], q).sum(-1).double().sum())
        counts = [len(windows) * (n - at) for at in range(depth)]
        return tuple(
            DepthFigures(float(one[0] / count), float(one[1] / count), count)
            for one, count in zip(sums, counts, strict=True)
        )

    def _divergences(self, tokens: Tensor, hidden: Tensor) -> Iterator[Tensor]:
        """KL(target || head) by depth, nats, both among the tokens that can be drafted."""
        with torch.no_grad():
            log_p = self._target.log_probs(hidden, self._ids)
        with self._precision():
            head = self._head(tokens.shape[1])
            states = list(self._passes(head, tokens, hidden))
            logits = [head.draft_logits(state).float() for state in states]
        for at, one in enumerate(logits):
            wanted = log_p[:, at:]
            yield (wanted.exp() * (wanted - one.log_softmax(-1))).sum(-1).mean()

    def _passes(self, head: DraftHead, tokens: Tensor, hidden: Tensor) -> Iterator[Tensor]:
        """Hidden states by depth: row r of depth d, from 0, guesses what follows token r + d."""
        embedded, state = self._target.embedded(tokens), shifted(hidden)
        for at in range(self._options.depth):
            state = head.deepen(embedded[:, at:], state[:, : tokens.shape[1] - at])
            yield state

    def _head(
        self,
        n_rows: int,
        weights: Mapping[str, Tensor] | None = None,
        acts: Mapping[str, str] | None = None,
    ) -> DraftHead:
        own = {**(self.weights if weights is None else weights), **self._target.tables}
        return DraftHead(self._spec, own, n_rows, acts)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._options.dtype == "f32":
            return nullcontext()
        return torch.autocast("cpu", dtype=torch.bfloat16)
