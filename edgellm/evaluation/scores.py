"""What is measured at each scored token, and how it is summed up.

Per token, in nats, in float64 from the float32 logits, over the whole vocabulary:

    nll   = -log q(t)                        of the right token t under the model q
    kl    = sum_i p_i * (log p_i - log q_i)  of the reference p against the model: KL(p || q)
    same_top                                 whether both find the same token most likely
    p_change = q(t) - p(t)                   change of the probability of the right token

A model against itself gives exactly 0, since equal logits give equal float64 logarithms.
Knows nothing of where the rows come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import NumericError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowBlock:
    """What a model says of some successive tokens.

    log_probs: float64 [n_rows, n_vocab]. target_log_probs: float64 [n_rows], of the token that
    came. top_ids: int64 [n_rows], the most likely token, the lower id of two.
    """

    log_probs: Floats
    target_log_probs: Floats
    top_ids: npt.NDArray[np.int64]


@dataclass(frozen=True)
class AgainstScores:
    """Per-token arrays next to a reference, of one shape."""

    reference_nll: Floats
    kl: Floats
    same_top: npt.NDArray[np.bool_]
    p_change: Floats


@dataclass(frozen=True)
class TokenScores:
    """Per-token arrays: [n_rows] of a block, [n_windows, n_scored] of a text."""

    nll: Floats
    against: AgainstScores | None = None


def log_softmax(logits: npt.NDArray[np.floating[Any]]) -> Floats:
    """float64 log probabilities of rows [n_rows, n_vocab]; NumericError where one is not finite."""
    import numpy as np

    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    if not np.isfinite(wide).all():
        message = "the model gave logits that are not finite numbers; verify or convert it again"
        raise NumericError(message, code="numeric")
    return wide


def rows_of_logits(
    logits: npt.NDArray[np.float32], targets: npt.NDArray[np.integer[Any]]
) -> RowBlock:
    """Rows [n_rows, n_vocab] and the ids [n_rows] that followed."""
    import numpy as np

    log_probs = log_softmax(logits)
    picked = np.take_along_axis(log_probs, targets[:, None].astype(np.int64), axis=1)[:, 0]
    return RowBlock(log_probs, picked, logits.argmax(axis=1).astype(np.int64))


def score_block(rows: RowBlock, reference: RowBlock | None) -> TokenScores:
    """The scores of one block, arrays [n_rows]."""
    import numpy as np

    nll = -rows.target_log_probs
    if reference is None:
        return TokenScores(nll)
    p = reference.log_probs
    against = AgainstScores(
        reference_nll=-reference.target_log_probs,
        kl=(np.exp(p) * (p - rows.log_probs)).sum(axis=1),
        same_top=rows.top_ids == reference.top_ids,
        p_change=np.exp(rows.target_log_probs) - np.exp(reference.target_log_probs),
    )
    return TokenScores(nll, against)


def scores_in_step(
    rows: Iterable[RowBlock], reference: Iterable[RowBlock] | None
) -> Iterator[tuple[RowBlock, TokenScores]]:
    """Each block of a model with its scores; both sides must be cut alike."""
    if reference is None:
        yield from ((block, score_block(block, None)) for block in rows)
        return
    for block, against in zip(rows, reference, strict=True):
        yield block, score_block(block, against)


def join_scores(parts: Sequence[TokenScores], n_windows: int) -> TokenScores:
    """Blocks in order, as arrays [n_windows, n_scored]; all next to a reference, or none."""
    import numpy as np

    def joined(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate(arrays).reshape(n_windows, -1)

    nll = joined([part.nll for part in parts])
    against = [part.against for part in parts if part.against is not None]
    if not against:
        return TokenScores(nll)
    return TokenScores(
        nll,
        AgainstScores(
            reference_nll=joined([one.reference_nll for one in against]),
            kl=joined([one.kl for one in against]),
            same_top=joined([one.same_top for one in against]),
            p_change=joined([one.p_change for one in against]),
        ),
    )


def stack_scores(parts: Sequence[TokenScores]) -> TokenScores:
    """The scores of several texts cut by one rule, one text after the other."""
    return join_scores(parts, sum(len(part.nll) for part in parts))
