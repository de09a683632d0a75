"""What a build did: a row for every device, model and recipe, and one for every step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import EdgeError

from .schedule import DONE, Outcome

UNFIT = "unfit"  # made, but the device cannot take it
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class VariantReport:
    """state: DONE, UNFIT, FAILED or SKIPPED, with the reason of all but the first. kl, top1:
    against the source, on held-out text; None without. tokens_per_s: predicted. is_first: what the
    device gets if it fits there."""

    device: str
    model: str
    recipe: str
    state: str
    reason: str = ""
    n_bytes: int = 0
    memory_bytes: int = 0
    tokens_per_s: float | None = None
    kl: float | None = None
    top1: float | None = None
    is_first: bool = False
    sha256: str = ""


@dataclass(frozen=True)
class FleetReport:
    """The result of build_fleet(). index: its file, None where nothing could be written.
    n_without_sharing: steps that there would be if every device had its own."""

    name: str
    version: str
    out: Path
    index: Path | None
    variants: tuple[VariantReport, ...]
    outcomes: tuple[Outcome, ...]
    failures: dict[str, EdgeError]
    n_without_sharing: int
    seconds: float

    @property
    def errors(self) -> tuple[EdgeError, ...]:
        """Of models that could not be planned, and of steps that failed."""
        failed = [one.error for one in self.outcomes if one.error is not None]
        return tuple(dict.fromkeys((*self.failures.values(), *failed)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "version": self.version,
            "out": str(self.out),
            "index": None if self.index is None else str(self.index),
            "variants": [asdict(one) for one in self.variants],
            "steps": [_step(one) for one in self.outcomes],
            "failures": {name: str(error) for name, error in self.failures.items()},
            "n_without_sharing": self.n_without_sharing,
            "n_done_before": sum(one.was_done for one in self.outcomes),
            "seconds": self.seconds,
        }


def _step(one: Outcome) -> dict[str, Any]:
    return {
        "digest": one.node.digest,
        "label": one.node.label,
        "state": one.state,
        "was_done": one.was_done,
        "seconds": one.seconds,
        "estimated_seconds": one.node.seconds,
        "peak_rss_bytes": one.peak_rss_bytes,
        "estimated_memory_bytes": one.node.memory_bytes,
        "warnings": list(one.warnings),
        "error": None if one.error is None else str(one.error),
        "is_done": one.state == DONE,
    }
