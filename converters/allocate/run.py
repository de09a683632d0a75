"""Measures a checkpoint once, then answers any limit: bits per weight, bytes, or divergence.

Everything measured goes to a cache by content, so that a second limit costs no pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgellm._native import default_n_threads
from edgellm.errors import UnsupportedError

from ..calibrate import CalibrationTokens
from ..calibrate.tokens import Tokens
from ..calibrate.work import WorkDir
from ..extras import SourceDigests
from ..plan import Job
from ..quant import QUANT_FORMATS, quant_format
from ..quant.methods import Method
from ..recipe import (
    CALIBRATED_METHOD,
    EMBED_ROLE,
    FAITHFUL_ROLES,
    CalibrationOptions,
    Recipe,
    Rule,
    matrix_rule,
    vector_rules,
)
from ..report import ConvertProgress, PlannedTensor, ProgressFn
from .cache import MeasuredCache, cache_key, default_cache_dir
from .choose import Choice
from .passes import DEFAULT_PASSES, Group, bits_per_weight, n_passes, plan_passes
from .sensitivity import KL, Sensitivity, method_for, sensitivities


@dataclass(frozen=True)
class AllocateOptions:
    """method: of the layers' matrices. formats: to choose from, None for all that the method
    knows. max_passes: of the held-out tokens through the model. cache_dir: None for the user's."""

    method: Method = CALIBRATED_METHOD
    formats: tuple[str, ...] | None = None
    max_passes: int = DEFAULT_PASSES
    cache_dir: Path | None = None


@dataclass(frozen=True)
class Measured:
    """What is known of a checkpoint. n_parameters: of all its tensors, those too whose format is
    not chosen (vectors above all), whose bytes are vector_bytes (without padding)."""

    tensors: tuple[Sensitivity, ...]
    method: Method
    n_parameters: int
    vectors: tuple[PlannedTensor, ...]
    n_passes: int
    n_held_out_tokens: int

    @property
    def vector_bytes(self) -> int:
        return sum(item.n_bytes for item in self.vectors)

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(self.tensors[0].kl)

    def recipe(self, choice: Choice, name: str, calibration: CalibrationOptions) -> Recipe:
        """Rules that give every tensor the format chosen; one for a role where it has one."""
        rules: list[Rule] = []
        roles: dict[str, list[PlannedTensor]] = {}
        for one in self.tensors:
            roles.setdefault(one.item.role, []).append(one.item)
        for role, items in roles.items():
            formats = [choice.formats[item.name] for item in items]
            names = [role] if len(set(formats)) == 1 else [item.name for item in items]
            for pattern, format in zip(names, formats, strict=False):
                method = method_for(self.method, format)
                looked_up = role == EMBED_ROLE  # rounded to nearest
                rules.append(matrix_rule(pattern, format, None, None if looked_up else method))
        return Recipe(name, (*vector_rules(), *rules), calibration)


def measure(
    job: Job,
    calibration: CalibrationTokens,
    held_out: Tokens,
    options: AllocateOptions,
    digests: SourceDigests,
    n_threads: int = 0,
    progress: ProgressFn | None = None,
) -> Measured:
    """job: of the checkpoint, in any formats. held_out: [n_windows, window_tokens], none of them
    calibrated on. UnsupportedError: a format that the method does not know."""
    n_threads = n_threads or default_n_threads()
    formats = candidate_formats(options)
    matrices = chosen_matrices(job)
    groups = plan_passes(list(matrices.values()), len(job.spec.layers), formats, options.max_passes)
    tokens = {"calibration": calibration.digest, "held_out": CalibrationTokens(held_out).digest}
    method = _measured_method(options.method)
    key = cache_key(digests.result(), repr(method), tokens)
    directory = options.cache_dir or default_cache_dir()
    cache = MeasuredCache(directory, key)
    windows = calibration.windows
    _fill(job, windows, held_out, method, formats, groups, cache, n_threads, progress)
    return Measured(
        tensors=sensitivities(groups, matrices, formats, cache),
        method=options.method,
        n_parameters=sum(item.n_weights for item in job.planned if item.source is not None),
        vectors=tuple(item for item in job.planned if item.name not in matrices),
        n_passes=n_passes(groups),
        n_held_out_tokens=held_out.size,
    )


def _fill(
    job: Job,
    calibration: Tokens,
    held_out: Tokens,
    method: Method,
    formats: tuple[str, ...],
    groups: Sequence[Group],
    cache: MeasuredCache,
    n_threads: int,
    progress: ProgressFn | None,
) -> None:
    from ..divergence import HeldOut, original_weights
    from .losses import LossMeter
    from .measure import measure_groups

    pending = [
        replace(group, anchors=anchors)
        for group in groups
        if (anchors := tuple(f for f in group.anchors if cache.get(KL, group.name, f) is None))
    ]
    original = original_weights(job)
    items = chosen_matrices(job)
    report = _Progress(len(items) + n_passes(pending), progress)
    work = WorkDir(cache.folder, "strips")
    wanted = {name: group.anchors for group in pending for name in group.tensors}
    meter = LossMeter(job, original, method, formats, wanted, cache, work, n_threads, report.step)
    meter.measure(calibration)
    if pending:
        seen = HeldOut(job.spec, job.tables, held_out, original, n_threads)
        measure_groups(seen, original, pending, items, cache, work, report.step)
    work.remove()


def chosen_matrices(job: Job) -> dict[str, PlannedTensor]:
    """The tensors whose format can be chosen, by name."""
    fixed = FAITHFUL_ROLES
    return {i.name: i for i in job.planned if i.act is not None and i.role not in fixed}


def _measured_method(method: Method) -> Method:
    """What a matrix is quantized by for a pass, on the original model's inputs: methods that look
    at more than these have gptq's proportions between formats and tensors."""
    if method.name in ("rtn", "importance"):
        return method
    return Method("gptq", damping=method.damping, n_passes=method.n_passes)


class _Progress:
    """Steps to the callback: a matrix or a pass each, called as each is begun."""

    def __init__(self, n_steps: int, progress: ProgressFn | None) -> None:
        self._n_steps, self._n_done, self._progress = n_steps, 0, progress

    def step(self, stage: str, name: str) -> None:
        self._n_done += 1
        if self._progress is not None:
            done = min(self._n_done - 1, self._n_steps)
            self._progress(ConvertProgress(name, done, self._n_steps, stage=stage))


def candidate_formats(options: AllocateOptions) -> tuple[str, ...]:
    """Those of the options, or all whose scales the method can choose; fewest bits first."""
    chosen = options.formats or tuple(filter(_has_levels, QUANT_FORMATS))
    unknown = [name for name in chosen if name not in QUANT_FORMATS or not _has_levels(name)]
    if unknown or len(set(chosen)) < 2:
        raise UnsupportedError(
            f"formats {', '.join(chosen)}: two or more of "
            f"{', '.join(filter(_has_levels, QUANT_FORMATS))} are wanted",
            code="tensor_format",
        )
    return tuple(sorted(set(chosen), key=bits_per_weight))


def _has_levels(format: str) -> bool:
    from ..quant.methods.levels import levels_of

    if quant_format(format).pack is None:
        return True
    try:
        levels_of(format)
    except UnsupportedError:
        return False
    return True
