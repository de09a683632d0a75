"""The rows of a model for the windows of a text, and the figures that scores sum up to.

A reference is anything that gives rows for the same windows: another model, or a saved file of
its log probabilities. Memory holds one block of rows of each, and a few floats per token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..closing import Closing
from .bootstrap import SEED, Interval, interval, mean_interval
from .models import EvaluatedModel, row_blocks, run_tokens, token_logits
from .scores import AgainstScores, RowBlock, TokenScores, rows_of_logits, stack_scores
from .windows import TextWindows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

ALL_TEXTS = "all texts"


class RowSource(Protocol):
    """Gives the rows of a window, in blocks cut by `row_blocks()`."""

    name: str
    root: str

    def window(self, windows: TextWindows, index: int) -> Iterator[RowBlock]: ...


class ModelRows(Closing):
    """The rows of a loaded model. A context manager: leaving the block frees its KV cache."""

    def __init__(self, model: EvaluatedModel, n_ctx: int) -> None:
        self.name, self.root = model.name, model.root
        self._model = model
        self._session = model.session(n_ctx)

    def window(self, windows: TextWindows, index: int) -> Iterator[RowBlock]:
        ids = windows.ids[index]
        first = windows.first_scored
        self._session.rewind(0)
        run_tokens(self._session, ids[: first - 1].tolist())
        for start, stop in row_blocks(windows.n_scored, self._model.n_vocab):
            inputs = ids[first - 1 + start : first - 1 + stop].tolist()
            yield rows_of_logits(
                token_logits(self._session, inputs), ids[first + start : first + stop]
            )

    def close(self) -> None:
        self._session.close()


@dataclass(frozen=True)
class KlFigures:
    """KL(reference || model) over tokens, in nats. Quantiles have no interval."""

    mean: Interval
    median: float
    p99: float
    p99_9: float
    max: float


@dataclass(frozen=True)
class AgainstFigures:
    """A model next to its reference. `perplexity_ratio` is model / reference; `mean_p_change` and
    `rms_p_change` are of the probability of the right token; `top1_agreement` is a share."""

    reference_perplexity: Interval
    perplexity_ratio: Interval
    kl: KlFigures
    top1_agreement: Interval
    mean_p_change: Interval
    rms_p_change: float


@dataclass(frozen=True)
class TextFigures:
    """What `edgellm eval` says of one text, or of all of them together."""

    text: str
    sha256: str | None
    n_windows: int
    n_scored_tokens: int
    n_left_out: int
    nll: Interval  # nats per token
    perplexity: Interval
    against: AgainstFigures | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ScoredText:
    windows: TextWindows
    scores: TokenScores


def text_figures(scored: ScoredText, *, seed: int = SEED) -> TextFigures:
    """The figures of one text."""
    windows = scored.windows
    return _figures(windows.name, windows.sha256, scored.scores, windows.n_left_out, seed)


def all_figures(scored: Sequence[ScoredText], *, seed: int = SEED) -> TextFigures:
    """The figures of all tokens of several texts, each token counting the same."""
    scores = stack_scores([one.scores for one in scored])
    n_left_out = sum(one.windows.n_left_out for one in scored)
    return _figures(ALL_TEXTS, None, scores, n_left_out, seed)


def _figures(
    name: str, sha256: str | None, scores: TokenScores, n_left_out: int, seed: int
) -> TextFigures:
    import numpy as np

    nll = scores.nll.mean(axis=1)
    return TextFigures(
        text=name,
        sha256=sha256,
        n_windows=len(nll),
        n_scored_tokens=int(scores.nll.size),
        n_left_out=n_left_out,
        nll=mean_interval(nll, seed=seed),
        perplexity=interval(nll, lambda means: np.exp(means[..., 0]), seed=seed),
        against=None if scores.against is None else _against(nll, scores.against, seed),
    )


def _against(own_nll: Floats, scores: AgainstScores, seed: int) -> AgainstFigures:
    import numpy as np

    nlls = np.stack([own_nll, scores.reference_nll.mean(axis=1)], axis=1)
    median, p99, p99_9 = np.quantile(scores.kl, [0.5, 0.99, 0.999])
    return AgainstFigures(
        reference_perplexity=interval(nlls, lambda means: np.exp(means[..., 1]), seed=seed),
        perplexity_ratio=interval(
            nlls, lambda means: np.exp(means[..., 0] - means[..., 1]), seed=seed
        ),
        kl=KlFigures(
            mean=mean_interval(scores.kl.mean(axis=1), seed=seed),
            median=float(median),
            p99=float(p99),
            p99_9=float(p99_9),
            max=float(scores.kl.max()),
        ),
        top1_agreement=mean_interval(scores.same_top.mean(axis=1), seed=seed),
        mean_p_change=mean_interval(scores.p_change.mean(axis=1), seed=seed),
        rms_p_change=float(np.sqrt(np.square(scores.p_change).mean())),
    )
