"""The predictor: what it rests on, its bands, and that calibration finds what was put in."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from command_line import edgellm as run_edgellm
from edgellm.cli import bench_profile
from edgellm.cli.exits import Exit
from edgellm.errors import FormatError, InvalidArgumentError
from edgellm.machine_profile import profile_of, sample_of
from edgellm.planner import KvGroup, MemoryPlan
from edgellm.profiles import Figure, find_profile
from edgellm.speed import (
    ATTENTION_COST,
    BANDS,
    DECODE_SHARE,
    LAYER_US,
    UNCALIBRATED_BAND,
    Sample,
    calibrate,
    decode_speed,
    prefill_speed,
)
from edgellm.work import TokenWork

READS, PEAK = 20.0, 600.0
PLAN = MemoryPlan(0, 0, 0, (KvGroup(0, 16384),), 8192, 0)


def work(megabytes: int, n_layers: int) -> TokenWork:
    macs = megabytes * 2_000_000
    return TokenWork(megabytes * 1_000_000, macs, macs // 10, n_layers, ((2048, 0),) * n_layers)


def sample(megabytes: int, n_layers: int, share: float, layer_us: float, prefill: float) -> Sample:
    """What a machine would measure on which the formulas hold."""
    of = work(megabytes, n_layers)
    seconds = (of.weight_bytes + 16384 * 64) / (1e9 * READS * share) + 1e-6 * layer_us * n_layers
    macs = of.body_macs + ATTENTION_COST * of.attention_macs_at(256)
    speed = 1e9 * PEAK * prefill / macs
    return Sample(of, 16384, 512, 128, speed, 1 / seconds, READS, PEAK)


def report(of: Sample) -> dict[str, Any]:
    return {
        "isa": "avx2",
        "threads": 2,
        "backend": "cpu",
        "ram_bytes": 1 << 33,
        "int8_peak_gmac_per_s": of.int8_gmac_per_s,
        "read_bandwidth_gb_per_s": of.read_gb_per_s,
        "kv_bytes_per_token": of.kv_bytes_per_token,
        "prefill_tokens": of.prefill_tokens,
        "decode_tokens": of.decode_tokens,
        "prefill_tokens_per_s": of.prefill_tokens_per_s,
        "decode_tokens_per_s": of.decode_tokens_per_s,
        "work": json.loads(json.dumps(asdict(of.work))),
    }


def test_calibration_finds_what_the_machine_does():
    fit = calibrate([sample(700, 16, 0.9, 60, 0.4), sample(85, 30, 0.9, 60, 0.4)])
    assert fit.decode_share == pytest.approx(0.9)
    assert fit.layer_us == pytest.approx(60)
    assert fit.prefill_share == pytest.approx(0.4)


def test_one_model_gives_the_share_alone():
    fit = calibrate([sample(700, 16, 0.8, LAYER_US, 0.5)])
    assert fit.decode_share == pytest.approx(0.8)
    assert fit.layer_us == pytest.approx(LAYER_US)


def test_a_calibrated_machine_predicts_other_models():
    known = [sample(700, 16, 0.85, 70, 0.45), sample(85, 30, 0.85, 70, 0.45)]
    profile = profile_of([report(one) for one in known], "m", "M", "m.json")
    other = sample(314, 24, 0.85, 70, 0.45)
    decode = decode_speed(profile, "cpu", other.work, PLAN, 64)
    assert decode is not None
    assert decode.tokens_per_s == pytest.approx(other.decode_tokens_per_s, rel=0.01)
    assert decode.high / decode.tokens_per_s - 1 == pytest.approx(math.hypot(0.1, 0.1))
    prefill = prefill_speed(profile, "cpu", other.work, 512)
    assert prefill is not None
    assert prefill.tokens_per_s == pytest.approx(other.prefill_tokens_per_s, rel=0.05)


def test_the_speeds_in_the_benchmarks_are_predicted_within_15_percent():
    """docs/BENCHMARKS.md: bytes of weights, layers, reads of that run, tokens/s (E4_16 + E6_16)."""
    known = find_profile("generic")
    for n_bytes, n_layers, reads, measured in (
        (763e6, 16, 17.5, 20.3),
        (314e6, 24, 17.8, 52.2),
        (84e6, 30, 17.9, 145.0),
    ):
        memory = replace(known.memory, read_gb_per_s=Figure(reads, "measured", "it", "it.json"))
        of = TokenWork(int(n_bytes), 0, 0, n_layers, ())
        empty = replace(PLAN, kv_groups=())
        speed = decode_speed(replace(known, memory=memory), "cpu", of, empty, 64)
        assert speed is not None
        assert speed.tokens_per_s == pytest.approx(measured, rel=0.15)


def test_the_band_follows_from_the_basis():
    profile = find_profile("generic")
    bands = {}
    for basis, band in BANDS.items():
        reads = Figure(10.0, basis, "x", None)  # type: ignore[arg-type]
        known = replace(profile, memory=replace(profile.memory, read_gb_per_s=reads))
        speed = decode_speed(known, "cpu", work(700, 16), PLAN, 512)
        assert speed is not None
        bands[basis] = speed.high / speed.tokens_per_s - 1
        assert bands[basis] == pytest.approx(math.hypot(band, UNCALIBRATED_BAND))
        assert speed.low == pytest.approx(speed.tokens_per_s / (1 + bands[basis]))
    assert bands["measured"] < bands["vendor"] < bands["estimated"]


def test_decoding_slows_with_the_context_by_what_its_kv_takes():
    profile = find_profile("generic")  # 8 GB/s
    of = work(700, 0)
    short, long = (decode_speed(profile, "cpu", of, PLAN, n) for n in (16, 8192))
    assert short is not None
    assert long is not None
    grown = 1 / long.tokens_per_s - 1 / short.tokens_per_s
    assert grown == pytest.approx(16384 * (8192 - 16) / (8e9 * DECODE_SHARE))


def test_a_weak_processor_is_bound_by_its_sums():
    pi = find_profile("raspberry-pi-4")
    slow = replace(pi, cpu=replace(pi.cpu, int8_gmac_per_s=Figure(1.0, "estimated", "x")))
    fast, slowed = (decode_speed(one, "cpu", work(700, 16), PLAN, 64) for one in (pi, slow))
    assert fast is not None
    assert slowed is not None
    assert slowed.tokens_per_s < fast.tokens_per_s / 10


def test_what_is_unknown_is_not_guessed():
    generic = find_profile("generic")
    assert prefill_speed(generic, "cpu", work(700, 16), 512) is None
    assert decode_speed(generic, "cuda", work(700, 16), PLAN, 512) is None


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([sample(20, 16, 0.9, 45, 0.4)], "stays in caches"),
        ([sample(700, 16, 3.0, 0, 0.4)], "of the reads of this machine"),
        ([sample(700, 16, 0.01, 0, 0.4)], "of the reads of this machine"),
    ],
)
def test_measurements_that_say_nothing_of_memory_are_refused(samples, says):
    with pytest.raises(InvalidArgumentError, match=says):
        calibrate(samples)


@pytest.mark.parametrize(
    "change",
    [
        {"isa": None},
        {"threads": True},
        {"decode_tokens_per_s": 0.0},
        {"decode_tokens_per_s": math.inf},
        {"work": {}},
        {"work": {**asdict(work(700, 2)), "n_layers": -1}},
        {"work": {**asdict(work(700, 2)), "attention": [[1]]}},
        {"work": {**asdict(work(700, 2)), "attention": [[1, "2"]]}},
    ],
)
def test_what_is_no_report_is_refused(change):
    good = report(sample(700, 16, 0.9, 45, 0.4))
    assert sample_of(good).work.n_layers == 16
    with pytest.raises(FormatError, match="edgellm bench --json"):
        profile_of([{**good, **change}], "m", "M", "m.json")


def test_reports_of_two_machines_are_refused():
    good = report(sample(700, 16, 0.9, 45, 0.4))
    with pytest.raises(InvalidArgumentError, match="differ in threads: 2 and 4"):
        profile_of([good, {**good, "threads": 4}], "m", "M", "m.json")
    with pytest.raises(InvalidArgumentError, match="of the CPU"):
        profile_of([{**good, "backend": "cuda"}], "m", "M", "m.json")


def test_a_written_profile_rests_on_its_report(tmp_path):
    """What `bench --write-profile` writes is what the reports say, and names them."""
    reports = [report(sample(700, 16, 0.9, 60, 0.4)), report(sample(85, 30, 0.9, 60, 0.4))]
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"data": reports[1]}), encoding="utf-8")
    bench_profile.write(tmp_path / "mine.toml", reports[0], [other])
    profile = find_profile(tmp_path / "mine.toml")
    measured = {at: one for at, one in profile.figures().items() if one.basis == "measured"}
    assert len(measured) == 8
    assert {one.report for one in measured.values()} == {"mine.json"}
    stored = json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))["reports"]
    assert profile_of(stored, "mine", profile.title, "mine.json") == profile
    assert profile.calibration.layer_us is not None
    assert profile.calibration.layer_us.value == pytest.approx(60, rel=1e-3)
    bench_profile.write(tmp_path / "one.toml", reports[0], [])
    assert find_profile(tmp_path / "one.toml").calibration.layer_us is None


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "json"), ("[]", "no report"), ('{"data": 1}', "no report"), ('{"data": {}}', "isa")],
)
def test_a_file_that_is_no_report_is_refused_and_nothing_written(tmp_path, text, says):
    other = tmp_path / "other.json"
    other.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=f"(?i){says}"):
        bench_profile.write(tmp_path / "x.toml", report(sample(700, 16, 0.9, 45, 0.4)), [other])
    assert sorted(tmp_path.iterdir()) == [other]


def test_the_verb_refuses_before_and_after_it_has_measured(tmp_path):
    bad = run_edgellm("bench", "demo", "--write-profile", "profile.yaml", cwd=tmp_path)
    assert bad.returncode == Exit.USAGE
    assert ".toml" in bad.stderr
    alone = run_edgellm("bench", "demo", "--calibrate-with", "x.json", cwd=tmp_path)
    assert "only with --write-profile" in alone.stderr
    short = ("--rounds", 1, "--prefill", 8, "--decode", 2, "--threads", 1)
    small = run_edgellm("bench", "demo", *short, "--write-profile", "p.toml", cwd=tmp_path)
    assert small.returncode == Exit.USAGE
    assert "stays in caches" in small.stderr
    assert list(tmp_path.iterdir()) == []
