"""Conversion within a limit: the formats that diverge least in so many bytes, or the other way.

What is chosen is converted and measured as a whole. Tensors add up only nearly, so that a limit on
the divergence is met by scaling all predictions to what was measured and choosing again. The file
appears under its name when it is within the limit, and not before.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.errors import InvalidArgumentError

from ..calibrate import CalibrationTokens
from ..calibrate.held_out import split_tokens
from ..calibrate.tokens import Tokens
from ..extras import SourceDigests, text_blobs
from ..pipeline import convert
from ..plan import Job, Options
from ..quality import need_torch
from ..recipe import CalibrationOptions, Recipe
from ..report import ConvertReport, ProgressFn
from ..sizes import overhead_bytes, stored_bytes
from ..sources import open_checkpoint
from .choose import Choice, Chooser
from .run import AllocateOptions, Measured, measure

MAX_CONVERSIONS = 4
KL_MARGIN = 0.97  # of the limit is aimed at after a miss
N_WORST = 5
SLACK = 0.005  # of a size: more is used by one more conversion


@dataclass(frozen=True)
class Limit:
    """Exactly one. target_bpw: 8 x the bytes of all tensors / parameters. max_bytes: of the whole
    file. max_kl: of the held-out text, nats per token."""

    target_bpw: float | None = None
    max_bytes: int | None = None
    max_kl: float | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.target_bpw, self.max_bytes, self.max_kl) if x is not None]
        if len(given) != 1 or not 0 < given[0] < math.inf:
            raise InvalidArgumentError(
                "one limit is wanted, above zero: target_bpw, max_bytes or max_kl",
                code="invalid_argument",
            )


@dataclass(frozen=True)
class FrontPoint:
    """kl: predicted, in the scale of what was measured."""

    bits_per_weight: float
    n_tensor_bytes: int
    kl: float


@dataclass(frozen=True)
class Allocation:
    """What was chosen. kl_scale: measured over predicted divergence of the whole choice, 1 where
    nothing was converted; kl_alone: by tensor in its format, what it adds by itself."""

    recipe: Recipe
    formats: dict[str, str]
    kl_alone: dict[str, float]
    bits_per_weight: float
    predicted_kl: float
    kl_scale: float
    front: tuple[FrontPoint, ...]
    n_passes: int
    n_held_out_tokens: int
    conversion: ConvertReport | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "formats": self.formats,
            "kl_alone": self.kl_alone,
            "bits_per_weight": self.bits_per_weight,
            "predicted_kl": self.predicted_kl,
            "kl_scale": self.kl_scale,
            "front": [vars(point) for point in self.front],
            "warnings": list(self.warnings),
            "n_passes": self.n_passes,
            "n_held_out_tokens": self.n_held_out_tokens,
            "conversion": None if self.conversion is None else self.conversion.to_dict(),
        }


def convert_within(
    src: Path,
    out: Path | None,
    *,
    limit: Limit,
    calibration: CalibrationTokens | Sequence[Path],
    held_out: Tokens | None = None,
    options: AllocateOptions | None = None,
    n_threads: int = 0,
    progress: ProgressFn | None = None,
) -> Allocation:
    """Measures, chooses, and writes `out` (None: chooses only).

    calibration: texts, of which the last windows are held out; with CalibrationTokens, held_out
    gives those. Needs torch. InvalidArgumentError: the limit cannot be met; names the tensors that
    stand in the way and the limit that would hold.
    """
    options = options or AllocateOptions()
    need_torch("choosing formats")
    with open_checkpoint(Path(src)) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        blobs = text_blobs(job)
        tokens, split = split_tokens(job, calibration, blobs, as_many_as_there_are=True)
        windows = held_out if held_out is not None else split
        if windows is None:
            raise InvalidArgumentError(
                "no held-out tokens to measure on: pass held_out with CalibrationTokens",
                code="invalid_argument",
            )
        with SourceDigests(checkpoint) as digests:
            found = measure(job, tokens, windows, options, digests, n_threads, progress)
            n_files = len(digests.paths)
    overhead = _overhead_bytes(job, blobs, n_files)
    run = _Run(Path(src), out, limit, found, tokens, windows, overhead, n_threads, progress)
    return run.result()


class _Run:
    """One limit on one measured checkpoint."""

    def __init__(
        self,
        src: Path,
        out: Path | None,
        limit: Limit,
        found: Measured,
        tokens: CalibrationTokens,
        held_out: Tokens,
        overhead_bytes: int,
        n_threads: int,
        progress: ProgressFn | None,
    ) -> None:
        self._src, self._out, self._limit, self._found = src, out, limit, found
        self._tokens, self._held_out = tokens, held_out
        self._n_threads, self._progress = n_threads, progress
        self._overhead_bytes = overhead_bytes
        self._overhead_is_known = False
        self._scale = 1.0
        shape = tokens.windows.shape
        self._calibration = CalibrationOptions(shape[0], shape[1])

    def result(self) -> Allocation:
        choice = self._choose(self._limit.max_kl)
        if self._out is None:
            return self._allocation(choice, None)
        trial = self._out.with_name(f".{self._out.name}.trial")
        try:
            return self._search(choice, trial)
        finally:
            trial.unlink(missing_ok=True)

    def _search(self, choice: Choice, trial: Path) -> Allocation:
        assert self._out is not None
        for attempt in range(MAX_CONVERSIONS):
            report = self._convert(choice, trial)
            assert report.divergence is not None
            kl = report.divergence.kl
            predicted = choice.kl / self._scale
            self._scale = kl / predicted if predicted > 0 else 1.0
            better = self._better(choice, trial.stat().st_size, kl, attempt == MAX_CONVERSIONS - 1)
            if better is None:
                os.replace(trial, self._out)
                return self._allocation(choice, replace(report, path=self._out))
            choice = better
        raise self._not_met(f"{MAX_CONVERSIONS} conversions missed it, the last with {kl:.6f} nats")

    def _better(self, choice: Choice, n_bytes: int, kl: float, is_last: bool) -> Choice | None:
        """What to convert instead of a choice that gave this; None where it is good."""
        limit = self._limit
        if limit.max_kl is not None:
            return self._choose(KL_MARGIN * limit.max_kl) if kl > limit.max_kl else None
        if limit.max_bytes is None:
            return None
        self._overhead_bytes += n_bytes - choice.n_bytes - self._fixed_bytes()
        self._overhead_is_known = True
        fits = n_bytes <= limit.max_bytes
        if fits and (is_last or limit.max_bytes - n_bytes < SLACK * limit.max_bytes):
            return None
        better = self._choose(None)
        return None if fits and better.formats == choice.formats else better

    def _convert(self, choice: Choice, trial: Path) -> ConvertReport:
        recipe = self._recipe(choice)
        calibrated = any(rule.method.needs_stats for rule in recipe.rules)
        return convert(
            self._src,
            trial,
            recipe=recipe,
            calibration=self._tokens if calibrated else (),
            held_out=self._held_out,
            n_threads=self._n_threads,
            progress=self._progress,
        )

    def _choose(self, max_kl: float | None) -> Choice:
        chooser = self._chooser()
        if max_kl is not None:
            found = chooser.within_kl(max_kl)
            if found is None:
                raise self._not_met(f"the least possible is about {chooser.best.kl:.6f} nats")
            return found
        fixed = self._fixed_bytes()
        budget = self._byte_limit() - fixed
        chosen = chooser.within_bytes(budget)
        if chosen is None and self._may_fit(chooser.smallest.n_bytes):
            return chooser.smallest
        if chosen is None:
            smallest = chooser.smallest.n_bytes + fixed
            bits = 8 * smallest / self._found.n_parameters
            raise self._not_met(
                f"the smallest file has {smallest:,} bytes"
                if self._limit.max_bytes is not None
                else f"the least possible is {bits:.4f} bits per weight"
            )
        return chosen

    def _may_fit(self, n_bytes: int) -> bool:
        """Before a file was written its overhead is a guess: worth a try where tensors fit."""
        guessed = self._limit.max_bytes is not None and not self._overhead_is_known
        return guessed and self._out is not None and n_bytes < self._byte_limit()

    def _byte_limit(self) -> int:
        if self._limit.max_bytes is not None:
            return self._limit.max_bytes
        assert self._limit.target_bpw is not None
        return int(self._limit.target_bpw * self._found.n_parameters / 8)

    def _fixed_bytes(self) -> int:
        if self._limit.max_bytes is None:
            return self._found.vector_bytes
        stored = sum(stored_bytes(item.n_bytes) for item in self._found.vectors)
        return stored + self._overhead_bytes

    def _chooser(self) -> Chooser:
        stored = stored_bytes if self._limit.max_bytes is not None else int
        return Chooser([one.unit(self._scale, stored) for one in self._found.tensors])

    def _recipe(self, choice: Choice) -> Recipe:
        limit = {k: v for k, v in vars(self._limit).items() if v is not None}
        name = "-".join(f"{key.replace('_', '-')}-{value}" for key, value in limit.items())
        return self._found.recipe(choice, name, self._calibration)

    def _allocation(self, choice: Choice, conversion: ConvertReport | None) -> Allocation:
        found = self._found
        chooser = Chooser([one.unit(self._scale, int) for one in found.tensors])
        bits = 8 / found.n_parameters
        return Allocation(
            recipe=self._recipe(choice),
            formats=choice.formats,
            kl_alone={
                one.item.name: one.kl[choice.formats[one.item.name]] for one in found.tensors
            },
            bits_per_weight=bits * (self._tensor_bytes(choice) + found.vector_bytes),
            predicted_kl=choice.kl,
            kl_scale=self._scale,
            front=tuple(
                FrontPoint(bits * (p.n_bytes + found.vector_bytes), p.n_bytes, p.kl)
                for p in chooser.front()
            ),
            n_passes=found.n_passes,
            n_held_out_tokens=found.n_held_out_tokens,
            conversion=conversion,
            warnings=() if conversion is None else conversion.warnings,
        )

    def _tensor_bytes(self, choice: Choice) -> int:
        units = [one.unit(1.0, int) for one in self._found.tensors]
        return sum(
            option.n_bytes
            for unit in units
            for option in unit.options
            if option.format == choice.formats[unit.name]
        )

    def _not_met(self, reason: str) -> InvalidArgumentError:
        """Names the tensors in the way: the largest at the fewest bits, or those that diverge most
        at the most bits."""
        units = [one.unit(self._scale, int) for one in self._found.tensors]
        if self._limit.max_kl is None:
            ends = [(float(min(o.n_bytes for o in u.options)), u.name) for u in units]
            worst = [f"{name} ({n_bytes:,.0f} bytes)" for n_bytes, name in _largest(ends)]
        else:
            ends = [(min(o.kl for o in u.options), u.name) for u in units]
            worst = [f"{name} ({kl:.6f} nats)" for kl, name in _largest(ends)]
        limit = ", ".join(f"{k} {v:g}" for k, v in vars(self._limit).items() if v is not None)
        return InvalidArgumentError(
            f"{limit} cannot be met: {reason}; most of it in {', '.join(worst)}",
            code="invalid_argument",
        )


def _largest(pairs: list[tuple[float, str]]) -> list[tuple[float, str]]:
    return sorted(pairs, reverse=True)[:N_WORST]


def _overhead_bytes(job: Job, blobs: dict[str, bytes], n_files: int) -> int:
    """Of the file beside its tensors: a guess, good to a few KiB, until a file is written."""
    # One byte for every weight: more than most formats take, and hashes are small.
    n_weights = sum(item.n_weights for item in job.planned)
    texts = sum(map(len, blobs.values()))
    return overhead_bytes(len(job.planned), n_weights, n_files) + texts
