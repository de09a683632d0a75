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
    check_one_of,
)
from .step import StepInput, StepResult, Texts

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
        self.recipe(_NOWHERE)  # says what does not go together

    def recipe(self, given: StepInput) -> TrainRecipe:
        return self._recipe(given, given.source, "weights", TrainRecipe.firmness)

    def _recipe(self, given: StepInput, teacher: Path, learn: str, firmness: float) -> TrainRecipe:
        return TrainRecipe(
            student=given.model,
            teacher=teacher if self.loss.needs_teacher else None,
            out=given.out,
            work=given.work / "train",
            data=DataOptions(
                given.texts.train, window_tokens=self.window_tokens, max_tokens=self.max_tokens
            ),
            schedule=self.schedule,
            loss=self.loss,
            optimizer=self.optimizer,
            batch=replace(self.batch, threads=given.n_threads),
            cache=CacheOptions(given.work / "cache", self.samples) if self.samples else None,
            own=self.own,
            learn=learn,
            firmness=firmness,
        )


@dataclass(frozen=True)
class RefineOptions(HealOptions):
    """learn: "scales" (DWQ) or "codes", too (QAD). teacher: "checkpoint", which the file was made
    from, or "source". firmness: of codes, as in a training recipe."""

    learn: str = "scales"
    teacher: str = "checkpoint"
    firmness: float = TrainRecipe.firmness

    def __post_init__(self) -> None:
        check_one_of("learn", self.learn, ("scales", "codes"))
        check_one_of("teacher", self.teacher, ("checkpoint", "source"))
        self.recipe(replace(_NOWHERE, out=Path("model.edge")))

    def recipe(self, given: StepInput) -> TrainRecipe:
        teacher = given.checkpoint if self.teacher == "checkpoint" else given.source
        return self._recipe(given, teacher, self.learn, self.firmness)


def run_learning(options: HealOptions, given: StepInput) -> StepResult:
    def show(at: TrainProgress) -> None:
        what = "teacher's tokens" if at.loss is None else f"step, loss {at.loss:.4f}"
        given.progress(what, at.n_done, at.n_total)

    report = train(options.recipe(given), progress=show)
    return StepResult(report.n_tokens, {"loss": report.loss}, report.warnings)


_HERE = Path("model")
_NOWHERE = StepInput(_HERE, _HERE, _HERE, _HERE, _HERE, Texts(), 1, lambda *_: None)
