"""Reports of `edgellm bench` -> the profile of the machine that they were made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from .errors import FormatError, InvalidArgumentError
from .profiles import Calibration, Cpu, Defaults, Figure, HardwareProfile, Memory
from .speed import Sample, calibrate
from .work import TokenWork

Report = Mapping[str, Any]
_APP_SHARE = Figure(0.5, "estimated", "half is left to the system and other programs")
# What must be the same in all reports of a machine.
_COMMON = ("isa", "threads", "backend")
# Where a figure of a profile stands in a report.
_FIGURES = {
    "isa": str,
    "threads": int,
    "backend": str,
    "ram_bytes": int,
    "int8_peak_gmac_per_s": float,
    "read_bandwidth_gb_per_s": float,
    "kv_bytes_per_token": int,
    "prefill_tokens": int,
    "decode_tokens": int,
    "prefill_tokens_per_s": float,
    "decode_tokens_per_s": float,
}


def profile_of(reports: Sequence[Report], name: str, title: str, report: str) -> HardwareProfile:
    """What the first report says of the machine, and what all of them say of models on it. report:
    the name of the file that holds them. FormatError for what is no such report,
    InvalidArgumentError for reports of different machines or of too small a model."""
    for at, one in enumerate(reports):
        _check(one, f"report {at + 1}")
    first = reports[0]
    for one in reports[1:]:
        for key in _COMMON:
            if one[key] != first[key]:
                message = f"reports differ in {key}: {first[key]} and {one[key]}"
                raise InvalidArgumentError(message, code="invalid_argument")
    if first["backend"] != "cpu":
        message = f"profiles are of the CPU, but the report is of {first['backend']!r:.40}"
        raise InvalidArgumentError(message, code="invalid_argument")
    fit = calibrate([sample_of(one) for one in reports])

    def measured(value: Any, source: str = "edgellm bench") -> Figure[Any]:
        return Figure(value, "measured", source, report)

    source = f"edgellm bench of {len(reports)} model{'s' * (len(reports) > 1)}"
    return HardwareProfile(
        name,
        title,
        "any",
        cpu=Cpu(
            measured(first["isa"]),
            measured(first["threads"]),
            measured(_rounded(first["int8_peak_gmac_per_s"])),
        ),
        memory=Memory(
            measured(first["ram_bytes"]),
            _APP_SHARE,
            measured(_rounded(first["read_bandwidth_gb_per_s"])),
        ),
        calibration=Calibration(
            measured(_rounded(fit.decode_share), source),
            measured(_rounded(fit.prefill_share), source),
            # One model cannot tell what a layer takes from what its weights do.
            measured(_rounded(fit.layer_us), source) if len(reports) > 1 else None,
        ),
        defaults=Defaults(threads=first["threads"]),
    )


def sample_of(report: Report) -> Sample:
    """Of a report that was checked."""
    work = report["work"]
    return Sample(
        work=TokenWork(
            **{**work, "attention": tuple((macs, window) for macs, window in work["attention"])}
        ),
        kv_bytes_per_token=report["kv_bytes_per_token"],
        prefill_tokens=report["prefill_tokens"],
        decode_tokens=report["decode_tokens"],
        prefill_tokens_per_s=report["prefill_tokens_per_s"],
        decode_tokens_per_s=report["decode_tokens_per_s"],
        read_gb_per_s=report["read_bandwidth_gb_per_s"],
        int8_gmac_per_s=report["int8_peak_gmac_per_s"],
    )


def _check(report: Report, where: str) -> None:
    for key, kind in _FIGURES.items():
        value: Any = report.get(key)
        kinds = (int, float) if kind is float else kind
        is_right = isinstance(value, kinds) and not isinstance(value, bool)
        if not is_right or (kind is not str and not 0 < value < 1e18):
            message = f"{where}: {key} is missing or no figure of edgellm bench --json"
            raise FormatError(message, code="json_type")
    if not _is_work(report.get("work")):
        message = f"{where}: work is missing or not what edgellm bench --json writes"
        raise FormatError(message, code="json_type")


def _is_work(work: object) -> bool:
    if not isinstance(work, dict) or set(work) != {one.name for one in fields(TokenWork)}:
        return False
    attention = work["attention"]
    counts = [value for key, value in work.items() if key != "attention"]
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and isinstance(attention, list | tuple)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in attention)
        and all(type(number) is int and number >= 0 for pair in attention for number in pair)
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
