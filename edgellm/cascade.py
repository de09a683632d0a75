"""Several models, the smallest first: the next one answers where one was not sure enough.

Experimental: docs/CONFIDENCE.md says what it saves against sending questions at random. Knows
models by `stream()` only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .confidence import mean_probability
from .errors import ContextOverflowError, InvalidArgumentError
from .model import Model
from .results import Generation, Token
from .stream import TokenStream

Decide = Literal["prefill", "answer"]
Outcome = Literal["sure", "last", "cancelled", "prefill", "answer", "collapse", "context"]
Calibrate = Callable[[float], float]


@dataclass(frozen=True)
class Attempt:
    """What one model of a cascade did. `confidence`: calibrated, 0 to 1; None of the last model
    and of one that was not asked. `n_tokens`: read and generated, those that were reused left out.

    `outcome`: "sure", "last" and "cancelled" ended the cascade; the next model was asked after the
    "prefill", after the "answer", at a "collapse" of the margin, or since the prompt and what may
    follow it do not fit the "context".
    """

    level: int
    outcome: Outcome
    confidence: float | None
    n_tokens: int


@dataclass(frozen=True)
class CascadeAnswer:
    """A text, and how it came about: the last of `attempts` gave it."""

    generation: Generation
    attempts: tuple[Attempt, ...]

    @property
    def text(self) -> str:
        """Of the generation."""
        return self.generation.text

    @property
    def level(self) -> int:
        """Which model gave it, from 0."""
        return self.attempts[-1].level


class Cascade:
    """Small models answer what they are sure of, large ones the rest. Experimental.

        cascade = Cascade([small, large], threshold=0.6, calibrations=[Calibration.load(path)])
        answer = cascade.generate("The capital of France is", max_tokens=8)

    `models`: open ones, from small to large; they stay the caller's. `threshold`: an answer with a
    lower confidence goes to the next model. `calibrations`: from a score to a probability, one for
    each model but the last; without, scores are taken as they are. `decide`: "answer" judges a
    whole answer by its `confidence`; "prefill" judges the first token that was not forced, so that
    little is generated in vain. `collapse`: if not 0, the next model is also asked as soon as the
    mean margin (docs/CONFIDENCE.md) of the last `window` tokens is below it.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        threshold: float = 0.5,
        calibrations: Sequence[Calibrate] | None = None,
        decide: Decide = "answer",
        collapse: float = 0.0,
        window: int = 8,
    ) -> None:
        """InvalidArgumentError."""
        if len(models) < 2:
            raise _wrong(f"a cascade needs two models or more, not {len(models)}")
        if calibrations is not None and len(calibrations) != len(models) - 1:
            wanted = len(models) - 1
            raise _wrong(f"calibrations must be {wanted}, one for each model but the last")
        if decide not in get_args(Decide):
            raise _wrong(f"decide must be 'prefill' or 'answer', but is {decide!r}")
        for name, value in (("threshold", threshold), ("collapse", collapse)):
            if not 0 <= value <= 1:
                raise _wrong(f"{name} must be in 0..1, but is {value}")
        if window < 1:
            raise _wrong(f"window must be 1 or more, but is {window}")
        self._models = tuple(models)
        self._calibrations = None if calibrations is None else tuple(calibrations)
        self._threshold, self._decide = threshold, decide
        self._collapse, self._window = collapse, window

    def generate(self, prompt: str, **arguments: Any) -> CascadeAnswer:
        """The arguments are those of `Model.generate()` but `adapter`; every model gets them.
        InvalidArgumentError: the prompt is ids, which mean another text to every model."""
        if not isinstance(prompt, str):
            raise _wrong(f"the prompt of a cascade must be a str, but is {type(prompt).__name__}")
        attempts: list[Attempt] = []
        for level in range(len(self._models) - 1):
            generation, attempt = self._attempt(level, prompt, arguments)
            attempts.append(attempt)
            if generation is not None:
                return CascadeAnswer(generation, tuple(attempts))
        generation = self._models[-1].generate(prompt, **arguments)
        last = Attempt(len(self._models) - 1, "last", None, _n_computed(generation))
        return CascadeAnswer(generation, (*attempts, last))

    def _attempt(
        self, level: int, prompt: str, arguments: dict[str, Any]
    ) -> tuple[Generation | None, Attempt]:
        more = {**arguments, "signals": True} if self._collapse > 0 else arguments
        try:
            stream = self._models[level].stream(prompt, **more)
        except ContextOverflowError:
            return None, Attempt(level, "context", None, 0)
        with stream:
            watch = _Watch(self, level)
            for token in stream:
                outcome = watch.push(token)
                if outcome is not None:
                    stream.close()
                    n_tokens = _n_computed(stream.result())
                    return None, Attempt(level, outcome, watch.confidence, n_tokens)
            return self._judged(level, stream, watch)

    def _judged(
        self, level: int, stream: TokenStream, watch: _Watch
    ) -> tuple[Generation | None, Attempt]:
        generation = stream.result()
        confidence = watch.confidence
        if self._decide == "answer":
            confidence = self._calibrated(level, generation.confidence)
        outcome: Outcome = "sure"
        if generation.finish_reason == "cancelled":
            outcome = "cancelled"
        elif confidence is not None and confidence < self._threshold:
            outcome = "answer"
        attempt = Attempt(level, outcome, confidence, _n_computed(generation))
        return None if outcome == "answer" else generation, attempt

    def _calibrated(self, level: int, score: float) -> float:
        return score if self._calibrations is None else self._calibrations[level](score)


class _Watch:
    """Of one text of a model that may be given up."""

    def __init__(self, cascade: Cascade, level: int) -> None:
        self._cascade, self._level = cascade, level
        self._margins: deque[float] = deque(maxlen=cascade._window)
        self.confidence: float | None = None

    def push(self, token: Token) -> Outcome | None:
        """Why the text is given up at this token, None if it goes on."""
        cascade = self._cascade
        if token.forced:
            return None
        if cascade._decide == "prefill" and self.confidence is None:
            score = mean_probability([token.logprob])
            self.confidence = cascade._calibrated(self._level, score)
            if self.confidence < cascade._threshold:
                return "prefill"
        if token.signals is not None and cascade._collapse > 0:
            self._margins.append(token.signals.margin)
            is_full = len(self._margins) == cascade._window
            if is_full and math.fsum(self._margins) / cascade._window < cascade._collapse:
                return "collapse"
        return None


def _n_computed(generation: Generation) -> int:
    stats = generation.stats
    return stats.prompt_tokens - stats.reused_tokens + stats.generated_tokens


def _wrong(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, code="invalid_argument")
