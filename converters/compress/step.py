"""What a step is: a function from one model to another, and what its recipe's table may say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKPOINT, EDGE = "checkpoint", "edge"  # a Hugging Face directory; a .edge file

# What is being done, how many of how many are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Texts:
    """Files to learn from, to measure on, and to calibrate on; text, .jsonl or .jsonl.xz."""

    train: tuple[Path, ...] = ()
    valid: tuple[Path, ...] = ()
    calibration: tuple[Path, ...] = ()


@dataclass(frozen=True)
class StepInput:
    """source: the model that the recipe begins with. model: what the step before made. checkpoint:
    the last one that was not a .edge file yet. out: is not there, and is when the step ends.
    work: a folder of the step's own, which outlasts an interruption and is removed in the end.
    shared: one of many steps with the same source and texts, for what they measure; None: there is
    none. No byte of `out` depends on it."""

    source: Path
    model: Path
    checkpoint: Path
    out: Path
    work: Path
    texts: Texts
    n_threads: int
    progress: Progress
    shared: Path | None = None


@dataclass(frozen=True)
class StepResult:
    """tokens: that the step learnt from or calibrated on. figures: of its own, for the report;
    what JSON can hold."""

    tokens: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """options: a frozen dataclass, the keys of the step's table. takes, gives: CHECKPOINT or EDGE.
    reads: the fields of Texts that it reads. version: changes when the same input would give other
    bytes. run: deterministic, for one number of threads; called again after an interruption."""

    options: type[Any]
    takes: str
    gives: str
    reads: tuple[str, ...]
    version: str
    run: Callable[[Any, StepInput], StepResult]
