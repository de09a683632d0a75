"""The step `draft_head`: a file that also guesses what it will say next."""

from __future__ import annotations

from ..draft_head import DraftHeadOptions, add_draft_head
from .step import StepInput, StepResult


def run_draft_head(options: DraftHeadOptions, given: StepInput) -> StepResult:
    report = add_draft_head(
        given.model,
        given.out,
        options,
        texts=given.texts.train,
        work=given.work,
        n_threads=given.n_threads,
        progress=given.progress,
    )
    return StepResult(report.n_tokens, report.stored(), report.warnings)
