"""The step `quantize`: calibrates, chooses codes and writes a .edge file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..allocate.limits import Limit, convert_within
from ..allocate.run import AllocateOptions
from ..distill.recipe import check, check_one_of
from ..pipeline import convert
from ..quant import QUANT_FORMATS
from ..report import ConvertProgress, ConvertReport
from .step import StepInput, StepResult


@dataclass(frozen=True)
class QuantizeOptions:
    """recipe: of a conversion, TOML. format: of all matrices, instead of a recipe. target_bpw:
    instead of both, the formats with the least divergence within so many bits per weight. By
    default formats go by role. Calibrated where there is text for it."""

    recipe: Path | None = None
    format: str = ""
    target_bpw: float = 0.0

    def __post_init__(self) -> None:
        chosen = [bool(self.recipe), bool(self.format), self.target_bpw != 0]
        check(sum(chosen) <= 1, "recipe, format and target_bpw exclude each other")
        check(0 <= self.target_bpw <= 32, "target_bpw is 0 to 32")
        if self.format:
            check_one_of("format", self.format, tuple(QUANT_FORMATS))


def run_quantize(options: QuantizeOptions, given: StepInput) -> StepResult:
    def show(at: ConvertProgress) -> None:
        given.progress(f"{at.stage} {at.tensor}", at.n_weights_done, at.n_weights_total)

    calibration = given.texts.calibration
    check(
        bool(calibration) or not options.target_bpw,
        "target_bpw is measured on text: name [texts] calibration",
    )
    if options.target_bpw:
        report = convert_within(
            given.model,
            given.out,
            limit=Limit(target_bpw=options.target_bpw),
            calibration=calibration,
            options=AllocateOptions(cache_dir=(given.shared or given.work) / "measured"),
            n_threads=given.n_threads,
            progress=show,
        ).conversion
        assert report is not None
    else:
        report = convert(
            given.model,
            given.out,
            recipe=options.recipe,
            format=options.format or None,
            calibration=calibration,
            work_dir=given.work / "strips" if calibration else None,
            stats_dir=given.shared / "moments" if calibration and given.shared else None,
            n_threads=given.n_threads,
            progress=show,
        )
    return _result(report)


def _result(report: ConvertReport) -> StepResult:
    used = json.loads(report.recipe_json).get("calibration")
    tokens = 0 if used is None else used["n_windows"] * used["window_tokens"]
    figures = {"bits_per_weight": report.bits_per_weight, "bits_by_part": report.bits_by_part}
    return StepResult(tokens, figures, report.warnings)
