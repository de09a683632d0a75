"""What adding a draft head did, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DepthFigures:
    """Of rows of one depth, on windows that nothing learnt from, given that the tokens before were
    right. greedy: share of rows whose likeliest token is the model's; sampled: mean over rows of
    sum(min(p, q)), the share of guesses drawn from q that rejection sampling keeps at temperature
    1. Tokens that cannot be drafted count as wrong."""

    greedy: float
    sampled: float
    n_rows: int


@dataclass(frozen=True)
class DraftHeadReport:
    """text, own: by depth, on held-out windows of the texts (none without texts) and of what the
    model writes itself; as stored, quantized, inputs rounded as the runtime does. float_text,
    float_own: before quantizing. vocab_share: of the tokens in held-out own text that can be
    drafted. n_bytes: what a draft reads; layers: of them in layers of the model; step_share: of
    what the model reads for a token."""

    out: Path
    vocab: int
    d_ffn: int
    format: str
    n_bytes: int
    layers: float
    step_share: float
    vocab_share: float
    text: tuple[DepthFigures, ...]
    own: tuple[DepthFigures, ...]
    float_text: tuple[DepthFigures, ...]
    float_own: tuple[DepthFigures, ...]
    steps: int
    n_tokens: int
    loss: float
    seconds: float
    warnings: tuple[str, ...] = ()

    def stored(self) -> dict[str, Any]:
        """For the file: what does not depend on where and when it was made."""
        value = asdict(self)
        for key in ("out", "seconds", "warnings"):
            del value[key]
        return value

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}
