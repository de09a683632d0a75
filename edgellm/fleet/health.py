"""Whether a model does on this device what it did where it was made, and as fast as was planned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import EdgeError

LEAST_SPEED = 0.25  # of the speed that was planned, which is a bound from above
_N_TOKENS = 24


@dataclass(frozen=True)
class Health:
    """failure: why the model may not run here; "": it may. tokens_per_s: of a short text, None
    where none was made."""

    failure: str
    tokens_per_s: float | None = None


def check_health(path: Path, planned_tokens_per_s: float | None, least: float) -> Health:
    """Replays what the file has of its making (hashes, tokenizer examples, scores), as `edgellm
    doctor` does, and writes a short text. least: share of the planned speed that must be reached,
    0: any."""
    from ..doctor_model import check_model

    for check in check_model(str(path)):
        if check.verdict == "failure":
            return Health(f"{check.name}: {check.found}")
    speed = _speed(path)
    if speed is not None and planned_tokens_per_s and speed < least * planned_tokens_per_s:
        wanted = f"{least:.0%} of the planned {planned_tokens_per_s:.1f}"
        return Health(f"{speed:.1f} tokens/s are less than {wanted}", speed)
    return Health("", speed)


def _speed(path: Path) -> float | None:
    """Of decoding; None for a model that makes no text."""
    from ..edgefile import read_header
    from ..model import load

    if read_header(path).spec.get("headless") is True:
        return None
    try:
        with load(path, verify="never", speculate=False) as model:
            made = model.generate([0], max_tokens=_N_TOKENS, stop_ids=[])
    except EdgeError:
        return None  # doctor has run it: the context is too short, or so
    return made.stats.tokens_per_s
