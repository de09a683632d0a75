"""What a draft head is to be, and how long it learns: plain data, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgellm.errors import InvalidArgumentError

from ..distill.recipe import DTYPES, OptimizerOptions, ScheduleOptions
from ..quant import QUANT_FORMATS

MAX_DEPTH = 8
# Those that the native encoder writes.
FORMATS = tuple(
    name for name, one in QUANT_FORMATS.items() if one.pack is not None or name == "F16"
)


@dataclass(frozen=True)
class DraftHeadOptions:
    """vocab: tokens that it can draft, d_ffn: width of its feed-forward network; 0: what
    step_share and layer_share leave. step_share: of the bytes that the model reads for a token,
    layer_share: of a layer's, that the head may have, whichever is more. format: of its matrices.
    depth: tokens in a row that it learns to draft; a token counts `fade` times the one before.

    samples: windows of window_tokens that the model writes itself, from prompt_tokens of the texts;
    text_windows: of the texts as they are, besides; valid_windows: of each kind, to measure on.
    windows: of a step. rate: of the optimizer, Muon for matrices. dtype: of the products.
    """

    vocab: int = 0
    d_ffn: int = 0
    step_share: float = 0.08
    layer_share: float = 1.5
    format: str = "E4_16"
    depth: int = 3
    fade: float = 0.8
    samples: int = 1024
    text_windows: int = 1024
    valid_windows: int = 32
    window_tokens: int = 256
    prompt_tokens: int = 32
    steps: int = 1000
    windows: int = 8
    rate: float = 4e-3
    warmup: int = 20
    weight_decay: float = 0.05
    dtype: str = "f32"
    save_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.format in FORMATS, f"format is one of {', '.join(FORMATS)}")
        _check(0 <= self.vocab <= 1 << 24, "vocab is 0 to 2^24")
        _check(0 <= self.d_ffn <= 1 << 20, "d_ffn is 0 to 2^20")
        _check(0 < self.step_share <= 1, "step_share is above 0 to 1")
        _check(0 < self.layer_share <= 16, "layer_share is above 0 to 16")
        _check(1 <= self.depth <= MAX_DEPTH, f"depth is 1 to {MAX_DEPTH}")
        _check(0 < self.fade <= 1, "fade is above 0 to 1")
        _check(1 <= self.samples <= 1 << 24, "samples is 1 to 2^24")
        _check(0 <= self.text_windows <= 1 << 24, "text_windows is 0 to 2^24")
        _check(1 <= self.valid_windows <= 1 << 16, "valid_windows is 1 to 65536")
        _check(16 <= self.window_tokens <= 1 << 16, "window_tokens is 16 to 65536")
        _check(
            1 <= self.prompt_tokens < self.window_tokens, "prompt_tokens is 1 to window_tokens - 1"
        )
        _check(1 <= self.windows <= 1 << 16, "windows is 1 to 65536")
        _check(1 <= self.save_every <= 1 << 31, "save_every is 1 to 2^31")
        _check(0 <= self.seed < 1 << 63, "seed is 0 to 2^63 - 1")
        _check(0 < self.rate < math.inf, "rate is above 0")
        _check(self.dtype in DTYPES, f"dtype is one of {', '.join(DTYPES)}")
        self.schedule, self.optimizer  # noqa: B018 - they check steps, warmup and weight_decay

    @property
    def schedule(self) -> ScheduleOptions:
        return ScheduleOptions(self.steps, "cosine", min(self.warmup, self.steps), final=0.05)

    @property
    def optimizer(self) -> OptimizerOptions:
        return OptimizerOptions("muon", self.rate, weight_decay=self.weight_decay)


def _check(is_good: bool, message: str) -> None:
    if not is_good:
        raise InvalidArgumentError(f"draft head: {message}", code="invalid_argument")
