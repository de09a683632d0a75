"""Tokens to calibrate on, and tokens kept out of that, to measure on. Knows no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgellm.errors import FormatError

from ..plan import Job
from ..recipe import CalibrationOptions
from .convert import text_tokens
from .tokens import CalibrationTokens, Tokens

HELD_OUT_WINDOWS = 8
HELD_OUT_SHARE = 8  # of few windows every so manyth is held out
BUILTIN_TEXT = Path(__file__).parent / "generic_text.jsonl"


def split_tokens(
    job: Job,
    calibration: CalibrationTokens | Sequence[Path],
    blobs: dict[str, bytes],
    *,
    as_many_as_there_are: bool = False,
) -> tuple[CalibrationTokens, Tokens | None]:
    """Windows of the recipe's number, and of what the texts have beyond that up to eight to measure
    on; None where they have no more, or where tokens were given.

    as_many_as_there_are: short texts, and always the built-in one, are divided 7 : 1 and the
    recipe of the job says how many windows that gave. FormatError: less than that.
    """
    if isinstance(calibration, CalibrationTokens):
        return calibration, None
    options = job.recipe.calibration
    more = replace(options, n_windows=options.n_windows + HELD_OUT_WINDOWS)
    windows = text_tokens(job, calibration, blobs, more, at_most=True).windows
    if len(windows) < more.n_windows and (as_many_as_there_are or BUILTIN_TEXT in calibration):
        n_held_out = max(1, min(HELD_OUT_WINDOWS, len(windows) // HELD_OUT_SHARE))
        if len(windows) < 2:
            raise FormatError(
                f"{', '.join(map(str, calibration))}: less than two windows of "
                f"{options.window_tokens} tokens; add text",
                code="file_too_small",
            )
        n_windows = len(windows) - n_held_out
        used = CalibrationOptions(n_windows, options.window_tokens)
        job.recipe = replace(job.recipe, calibration=used)
    elif len(windows) < options.n_windows:
        return text_tokens(job, calibration, blobs, options), None
    else:
        n_windows = options.n_windows
    held_out = windows[n_windows:]
    return CalibrationTokens(windows[:n_windows]), held_out if len(held_out) else None
