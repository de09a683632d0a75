"""The report of a build, for people and programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgellm.converters.fleet.graph import Node
from edgellm.converters.fleet.report import FleetReport, VariantReport
from edgellm.converters.fleet.schedule import DONE, FAILED, Outcome

from edgellm.cli.fleet_report import write_fleet_reports
from edgellm.errors import FormatError


def report_in(folder: Path, kl: float | None) -> FleetReport:
    """Two files, of which one has a name that is markup, and one that failed."""
    done = VariantReport("pi5", "<b>", "best", DONE, "", 3 << 20, 5 << 20, 7.5, kl, 0.9, True, "a")
    small = VariantReport(
        "pi5", "<b>", "small", DONE, "", 2 << 20, 4 << 20, 9.5, kl, 0.8, sha256="b"
    )
    broken = VariantReport("pi5", "late", "best", FAILED, "not finite | at all")
    error = FormatError("late: not finite", code="numeric")
    steps = (
        Outcome(Node("quantize", "<b>, best: quantize", {"at": 1}, seconds=2.0), DONE, True, 1.5),
        Outcome(Node("quantize", "late, best: quantize", {"at": 2}), FAILED, error=error),
    )
    out = folder / "dist"
    return FleetReport("kitchen", "1.0.0", out, None, (done, small, broken), steps, {}, 9, 3.0)


@pytest.mark.parametrize("kl", [None, 0.0125])
def test_a_report_has_every_variant_and_why_one_is_missing(
    kl: float | None, tmp_path: Path
) -> None:
    paths = write_fleet_reports(report_in(tmp_path, kl))
    assert [path.name for path in paths] == [f"dist.report.{end}" for end in ("json", "md", "html")]
    data, markdown, html = (path.read_text(encoding="utf-8") for path in paths)
    assert [one["state"] for one in json.loads(data)["variants"]] == [DONE, DONE, FAILED]
    assert json.loads(data)["n_done_before"] == 1
    for text in (markdown, html):
        for shown in ("Fleet kitchen 1.0.0", "3.00", "7.5", "90.00", "done before"):
            assert shown in text, shown
        assert "late, best" in text
        assert "<b>" not in text  # names are no markup
    assert "not finite" in html
    if kl is None:
        assert "names no text to measure on" in html
        return
    pytest.importorskip("matplotlib", reason="NOT TESTED: the plot; pip install 'edgellm[report]'")
    assert "0.01250" in markdown
    assert "<svg" in html
    assert "model 1: &lt;b&gt;" in html
