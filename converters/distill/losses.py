"""What training makes small: next-token loss, divergences, distance of hidden states.

All are means over positions, in nats for the first two. p is the teacher's distribution, q the
student's. forward_kl KL(p || q) covers what the teacher finds possible; reverse_kl KL(q || p) keeps
to what it finds likely; the skewed ones mix in `alpha` of the other model, which bounds the
gradient (DistiLLM, Ko et al. 2024, arXiv:2402.03898): KL(p || alpha p + (1 - alpha) q) and
KL(q || (1 - alpha) p + alpha q); js is the generalized Jensen-Shannon divergence of GKD (Agarwal et
al. 2023, arXiv:2306.13649), alpha KL(p || m) + (1 - alpha) KL(q || m), m = alpha p + (1 - alpha) q.
Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LogProbs = Tensor  # [..., n_vocab], normalised


def next_token(log_probs: LogProbs, tokens: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
    """log_probs [b, n, n_vocab]; tokens, documents [b, n] -> losses [b, n - 1] and which of them
    count: the first token of a document follows from nothing."""
    targets = tokens[:, 1:, None]
    losses = -log_probs[:, :-1].gather(2, targets)[..., 0]
    return losses, documents[:, 1:] == documents[:, :-1]


def mean_of(losses: Tensor, counted: Tensor) -> Tensor:
    """Mean of the counted; 0 where nothing is."""
    return (losses * counted).sum() / counted.sum().clamp_min(1)


def forward_kl(p: LogProbs, q: LogProbs, _alpha: float) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)


def reverse_kl(p: LogProbs, q: LogProbs, _alpha: float) -> Tensor:
    return (q.exp() * (q - p)).sum(-1)


def skew_forward(p: LogProbs, q: LogProbs, alpha: float) -> Tensor:
    return forward_kl(p, _mixed(p, q, alpha), alpha)


def skew_reverse(p: LogProbs, q: LogProbs, alpha: float) -> Tensor:
    return forward_kl(q, _mixed(q, p, alpha), alpha)


def js(p: LogProbs, q: LogProbs, alpha: float) -> Tensor:
    middle = _mixed(p, q, alpha)
    return alpha * forward_kl(p, middle, alpha) + (1 - alpha) * forward_kl(q, middle, alpha)


# Each (p, q, alpha) -> [...], nats per position.
DIVERGENCE: dict[str, Callable[[LogProbs, LogProbs, float], Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "skew_forward": skew_forward,
    "skew_reverse": skew_reverse,
    "js": js,
}


def hidden_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Hidden states [..., d_model] -> [...]: squared distance over the teacher's mean square."""
    scale = teacher.square().mean().clamp_min(torch.finfo(teacher.dtype).tiny)
    return (student - teacher).square().mean(-1) / scale


def _mixed(p: LogProbs, q: LogProbs, alpha: float) -> LogProbs:
    """log(alpha p + (1 - alpha) q)."""
    return torch.logaddexp(p + math.log(alpha), q + math.log1p(-alpha))
