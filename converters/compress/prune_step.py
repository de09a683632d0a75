"""The step `prune`: a checkpoint with less in it, chosen on the text that trains."""

from __future__ import annotations

from ..prune import PredictOptions, PruneOptions, prune
from .step import StepInput, StepResult

# Figures of a step are a function of its input, so that no bandwidth is measured.
_NO_SPEED = PredictOptions(bandwidth_gb_per_s=1.0)


def run_prune(options: PruneOptions, given: StepInput) -> StepResult:
    report = prune(
        given.model,
        given.out,
        options,
        texts=given.texts.train,
        n_threads=given.n_threads,
        predict_options=_NO_SPEED,
        progress=given.progress,
    )
    before, after = report.predicted.before, report.predicted.after
    figures = {
        "layers_gone": [list(step) for step in report.layers_gone],
        "n_weights": [before.n_weights, after.n_weights],
        "file_bytes": [before.file_bytes, after.file_bytes],
        "bytes_per_token": [before.bytes_per_token, after.bytes_per_token],
        "coverage": report.coverage,
    }
    return StepResult(report.n_tokens, figures, report.warnings)
