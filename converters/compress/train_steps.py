"""Steps that learn: `heal` all weights of a checkpoint, `refine` a compressed file (DWQ, QAD)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ..distill import TrainProgress, TrainRecipe, train
from ..distill.recipe import (
    BatchOptions,
    CacheOptions,
    DataOptions,
    LossOptions,
    OptimizerOptions,
    OwnOptions,
    ScheduleOptions,
    check,
    check_one_of,
)
from .step import StepInput, StepResult

FORWARD_KL = LossOptions(next_token=0, teacher=1, divergence="forward_kl")


@dataclass(frozen=True)
class HealOptions:
    """As in a training recipe. window_tokens, max_tokens: of the data. samples: draws kept of each
    of the teacher's predictions (a cache); 0: the teacher runs along. The teacher is the source."""

    schedule: ScheduleOptions
    window_tokens: int = DataOptions.window_tokens
    max_tokens: int = DataOptions.max_tokens
    samples: int = 0
    loss: LossOptions = FORWARD_KL
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    own: OwnOptions | None = None

    def __post_init__(self) -> None:
        check(0 <= self.samples <= 255, "samples is 0 to 255")
        check(not self.samples or self.loss.teacher > 0, "samples are a teacher's predictions")


@dataclass(frozen=True)
class RefineOptions(HealOptions):
    """learn: "scales" (DWQ) or "codes", too (QAD). teacher: "checkpoint", which the file was made
    from, or "source". firmness: of codes, as in a training recipe."""

    learn: str = "scales"
    teacher: str = "checkpoint"
    firmness: float = TrainRecipe.firmness

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("learn", self.learn, ("scales", "codes"))
        check_one_of("teacher", self.teacher, ("checkpoint", "source"))


def run_heal(options: HealOptions, given: StepInput) -> StepResult:
    return _run(options, given, given.source, "weights", TrainRecipe.firmness)


def run_refine(options: RefineOptions, given: StepInput) -> StepResult:
    teacher = given.checkpoint if options.teacher == "checkpoint" else given.source
    return _run(options, given, teacher, options.learn, options.firmness)


def _run(
    options: HealOptions, given: StepInput, teacher: Path, learn: str, firmness: float
) -> StepResult:
    recipe = TrainRecipe(
        student=given.model,
        teacher=teacher if options.loss.needs_teacher else None,
        out=given.out,
        work=given.work / "train",
        data=DataOptions(
            given.texts.train, window_tokens=options.window_tokens, max_tokens=options.max_tokens
        ),
        schedule=options.schedule,
        loss=options.loss,
        optimizer=options.optimizer,
        batch=replace(options.batch, threads=given.n_threads),
        cache=CacheOptions(given.work / "cache", options.samples) if options.samples else None,
        own=options.own,
        learn=learn,
        firmness=firmness,
    )

    def show(at: TrainProgress) -> None:
        what = "teacher's tokens" if at.loss is None else f"step, loss {at.loss:.4f}"
        given.progress(what, at.n_done, at.n_total)

    report = train(recipe, progress=show)
    return StepResult(report.n_tokens, {"loss": report.loss}, report.warnings)
