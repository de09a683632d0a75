"""Formats by measured divergence: the choice against brute force, what is measured against a plain
forward pass, and limits that hold or say why not."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import (
    AllocateOptions,
    CalibrationTokens,
    Limit,
    Method,
    convert,
    convert_within,
    plan_conversion,
    read_recipe,
    write_recipe,
)
from edgellm.converters.allocate.cache import MeasuredCache
from edgellm.converters.allocate.choose import Chooser, Option, Unit
from edgellm.converters.allocate.passes import Group, n_passes, plan_passes
from edgellm.converters.allocate.sensitivity import FULL_LOSS, KL, LOSS, sensitivities
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.cli import run_command_line
from edgellm.edgefile import read_header
from edgellm.errors import InvalidArgumentError, UnsupportedError

FORMATS = ("E4_32", "E4_16", "E6_16", "E8_32", "F16")


# ---- the choice


def unit_lists(max_bytes: int) -> st.SearchStrategy[list[list[tuple[int, float]]]]:
    option = st.tuples(st.integers(0, max_bytes), st.floats(0, 1))
    return st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=5)


def made(problem: list[list[tuple[int, float]]]) -> list[Unit]:
    return [
        Unit(str(index), tuple(Option(str(i), *option) for i, option in enumerate(options)))
        for index, options in enumerate(problem)
    ]


def totals(problem: list[list[tuple[int, float]]]) -> list[tuple[int, float]]:
    return [
        (sum(n for n, _ in picked), math.fsum(kl for _, kl in picked))
        for picked in itertools.product(*problem)
    ]


@given(unit_lists(40), st.integers(0, 200), st.floats(0, 5))
def test_the_choice_is_the_best_of_all(
    problem: list[list[tuple[int, float]]], n_bytes: int, kl: float
) -> None:
    chooser, all_of_them = Chooser(made(problem)), totals(problem)
    best = min((kl for size, kl in all_of_them if size <= n_bytes), default=None)
    found = chooser.within_bytes(n_bytes)
    assert (found is None) == (best is None)
    if found is not None and best is not None:
        assert found.n_bytes <= n_bytes
        assert found.kl == pytest.approx(best, abs=1e-12)
        picked = [options[int(found.formats[str(i)])] for i, options in enumerate(problem)]
        assert sum(size for size, _ in picked) == found.n_bytes
    smallest = min((size for size, total in all_of_them if total <= kl), default=None)
    small = chooser.within_kl(kl)
    if smallest is not None and small is not None:  # sums in another order may differ by an ulp
        assert small.kl <= kl + 1e-12
        assert small.n_bytes <= smallest or min(t for s, t in all_of_them if s < small.n_bytes) > (
            kl - 1e-12
        )


@settings(max_examples=40)  # 65,536 levels each
@given(unit_lists(50_000_000), st.integers(0, 250_000_000))
def test_sizes_without_a_common_divisor_lose_little(
    problem: list[list[tuple[int, float]]], n_bytes: int
) -> None:
    """Rounding up to levels never goes over, and is as good as a slightly smaller limit."""
    found = Chooser(made(problem)).within_bytes(n_bytes)
    fitting = [total for size, total in totals(problem) if size <= n_bytes]
    assert (found is None) == (not fitting)
    if found is not None:
        assert found.n_bytes <= n_bytes
        lost = len(problem) * (sum(max(n for n, _ in o) for o in problem) / 65536 + 1)
        slightly_less = [t for size, t in totals(problem) if size <= n_bytes - lost]
        assert found.kl <= min(slightly_less, default=math.inf) + 1e-12


@given(unit_lists(1000))
def test_nothing_on_the_front_is_beaten(problem: list[list[tuple[int, float]]]) -> None:
    front = Chooser(made(problem)).front()
    for a, b in itertools.pairwise(front):
        assert a.n_bytes < b.n_bytes
        assert a.kl > b.kl
    for point in front:
        assert not any(s <= point.n_bytes and t < point.kl - 1e-12 for s, t in totals(problem))


@pytest.mark.parametrize("bad", [[], [[]], [[(-1, 0.0)]], [[(1, math.nan)]], [[(1, -0.1)]]])
def test_what_cannot_be_chosen_between_is_refused(bad: list[list[tuple[int, float]]]) -> None:
    with pytest.raises(InvalidArgumentError):
        Chooser(made(bad))


# ---- the passes


@pytest.fixture(scope="module")
def matrices(tiny_checkpoint: Path) -> list[Any]:
    return [item for item in plan_conversion(tiny_checkpoint).tensors if item.act is not None]


@pytest.mark.parametrize("max_passes", [10, 11, 17, 18, 40, 1000])
def test_passes_stay_within_their_number_and_miss_no_tensor(
    matrices: list[Any], max_passes: int
) -> None:
    groups = plan_passes(matrices, 2, FORMATS, max_passes)
    names = [name for group in groups for name in group.tensors]
    assert sorted(names) == sorted(item.name for item in matrices)
    assert n_passes(groups) <= max_passes
    assert all(group.anchors for group in groups)
    alone = max_passes >= 3 + 14
    assert all(len(group.tensors) == 1 for group in groups) == alone


def test_too_few_passes_are_refused_with_the_number_needed(matrices: list[Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"9 passes.*1 x 3.*7 roles"):
        plan_passes(matrices, 2, FORMATS, 9)


def test_between_two_measured_formats_divergence_follows_a_power_law(
    matrices: list[Any], tmp_path: Path
) -> None:
    cache = MeasuredCache(tmp_path, "key")
    items = {item.name: item for item in matrices}
    a, b = "layers.0.attn_q", "layers.1.attn_q"
    for format, loss in zip(FORMATS, (16.0, 8.0, 2.0, 1.0, 0.0), strict=True):
        cache.put(LOSS, a, format, loss)
        cache.put(LOSS, b, format, 3 * loss)
    cache.put(FULL_LOSS, a, "E4_16", 10.0)
    cache.put(FULL_LOSS, b, "E4_16", 30.0)
    cache.put(KL, "both", "E4_16", 0.04)
    cache.put(KL, "both", "E8_32", 0.0025)
    group = Group("both", (a, b), 0, ("E4_16", "E8_32"))
    first, second = sensitivities([group], items, FORMATS, MeasuredCache(tmp_path, "key"))
    assert first.kl["E4_16"] == pytest.approx(0.04 * 10 / 40)
    assert second.kl["E4_16"] == pytest.approx(0.04 * 30 / 40)
    assert second.kl["E4_32"] == pytest.approx(0.08 * 30 / 40)  # outside: proportional
    exponent = math.log(0.04 / 0.0025) / math.log(8)
    assert first.kl["E6_16"] == pytest.approx(0.0025 * 2**exponent * 10 / 40)
    assert first.kl["F16"] == 0.0


def test_a_damaged_cache_is_measured_again(tmp_path: Path) -> None:
    cache = MeasuredCache(tmp_path, "key")
    cache.put(KL, "a", "E4_16", 0.5)
    path = cache.folder / "measured.json"
    assert MeasuredCache(tmp_path, "key").get(KL, "a", "E4_16") == 0.5
    good = path.read_text(encoding="utf-8")
    for bad in (
        good[:-9],
        good.replace("0.5", "NaN"),
        good.replace("0.5", '"x"'),
        "[]",
        "[" * 9999,
    ):
        path.write_text(bad, encoding="utf-8")
        assert MeasuredCache(tmp_path, "key").get(KL, "a", "E4_16") is None


# ---- a whole model


def windows(seed: int, n_windows: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    ids = np.random.default_rng(seed).integers(2, 258, (n_windows, 24))
    return ids.astype(np.int32)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a tokenizer, which takes longer to compile than all the rest."""
    folder = tmp_path_factory.mktemp("no-tokenizer") / "tiny"
    without = shutil.ignore_patterns("tokenizer*")
    return Path(shutil.copytree(tiny_checkpoint, folder, ignore=without))


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def within(
    checkpoint: Path, out: Path | None, cache_dir: Path, limit: Limit, **more: Any
) -> tuple[Any, list[str]]:
    """The allocation, and the stages of work it took."""
    pytest.importorskip("torch")
    stages: list[str] = []
    found = convert_within(
        checkpoint,
        out,
        limit=limit,
        calibration=CalibrationTokens(windows(1, 6)),
        held_out=windows(2, 3),
        options=AllocateOptions(Method("gptq", n_passes=0), cache_dir=cache_dir, **more),
        progress=lambda at: stages.append(at.stage),
    )
    return found, stages


def test_a_pass_measures_what_a_plain_forward_pass_gives(
    checkpoint: Path, cache_dir: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    from edgellm.converters.recipe import Recipe, matrix_rule, vector_rules
    from edgellm.converters.reference import Reference

    rules = (matrix_rule("token_embd", "E2_16", None), matrix_rule("*", "F16", None))
    convert(checkpoint, tmp_path / "a.edge", recipe=Recipe("a", (*vector_rules(), *rules)))
    original, changed = (
        Reference.from_checkpoint(checkpoint),
        Reference.from_edge(tmp_path / "a.edge"),
    )
    kl = []
    for window in windows(2, 3).tolist():
        p, q = (torch.log_softmax(m.logits(window).double(), -1) for m in (original, changed))
        kl.append(float((p.exp() * (p - q)).sum(-1).mean()))
    found, _ = within(checkpoint, None, cache_dir, Limit(max_kl=1.0))
    assert found.formats["token_embd"] == "E2_16"
    assert found.kl_alone["token_embd"] == pytest.approx(np.mean(kl), rel=1e-3)


def test_a_target_in_bits_per_weight_holds_and_the_next_one_costs_no_pass(
    checkpoint: Path, tmp_path: Path
) -> None:
    cache_dir, out = tmp_path / "cache", tmp_path / "a.edge"
    found, stages = within(checkpoint, out, cache_dir, Limit(target_bpw=8.5))
    assert "pass" in stages
    tensors = [t for t in read_header(out).tensors.values() if t.format != "U8"]
    source = [t for t in tensors if t.name != "rope_inv_freq"]
    n_parameters = sum(math.prod(t.shape) for t in source)
    bits = 8 * sum(t.n_bytes for t in tensors) / n_parameters
    assert bits == pytest.approx(found.bits_per_weight)
    assert 8.4 < bits <= 8.5
    assert {t.name: t.format for t in source if len(t.shape) == 2} == found.formats
    assert len(set(found.formats.values())) > 1
    assert 0.5 < found.kl_scale < 2  # tensors add up, more or less
    kl = found.conversion.divergence.kl
    assert kl == pytest.approx(found.kl_scale * sum(found.kl_alone.values()))
    again, stages = within(checkpoint, None, cache_dir, Limit(target_bpw=10))
    assert not {"pass", "measure"} & set(stages)
    assert again.predicted_kl < found.predicted_kl
    assert set(tmp_path.iterdir()) == {cache_dir, out}


def test_a_size_holds_for_the_whole_file(checkpoint: Path, cache_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.edge"
    within(checkpoint, out, cache_dir, Limit(target_bpw=8))
    limit = out.stat().st_size
    within(checkpoint, out, cache_dir, Limit(max_bytes=limit))
    assert limit * 0.95 < out.stat().st_size <= limit


def test_a_divergence_holds_and_is_measured_on_the_file(
    checkpoint: Path, cache_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.edge"
    loose, _ = within(checkpoint, out, cache_dir, Limit(max_kl=1e-3))
    tight, _ = within(checkpoint, out, cache_dir, Limit(max_kl=1e-4))
    assert loose.conversion.divergence.kl <= 1e-3
    assert tight.conversion.divergence.kl <= 1e-4
    assert tight.bits_per_weight > loose.bits_per_weight


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (Limit(target_bpw=4), r"the least possible is \d\.\d+ bits.*token_embd"),
        (Limit(max_bytes=9000), r"smallest file has \d+,\d+ bytes.*token_embd"),
        (Limit(max_kl=1e-15), r"the least possible is about.*nats"),
    ],
)
def test_a_limit_that_cannot_hold_names_the_tensors_in_the_way(
    checkpoint: Path, cache_dir: Path, tmp_path: Path, limit: Limit, reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        within(checkpoint, tmp_path / "a.edge", cache_dir, limit)
    assert list(tmp_path.iterdir()) == []


def test_what_was_chosen_is_a_recipe_to_read_edit_and_use(
    checkpoint: Path, cache_dir: Path, tmp_path: Path
) -> None:
    found, _ = within(checkpoint, tmp_path / "a.edge", cache_dir, Limit(target_bpw=8))
    path = tmp_path / "chosen.toml"
    write_recipe(found.recipe, path)
    assert read_recipe(path) == found.recipe
    calibration = CalibrationTokens(windows(1, 6))
    convert(checkpoint, tmp_path / "b.edge", recipe=path, calibration=calibration)
    assert found.conversion.n_bytes == sum(
        t.n_bytes for t in read_header(tmp_path / "b.edge").tensors.values() if t.format != "U8"
    )
    tensors = ("token_embd", "layers.1.ffn_down")
    a, b = (read_header(tmp_path / name) for name in ("a.edge", "b.edge"))
    assert all(a.tensors[t].format == b.tensors[t].format for t in tensors)


@pytest.mark.parametrize("values", [{}, {"max_kl": 1.0, "max_bytes": 1}, {"target_bpw": 0.0}])
def test_one_limit_above_zero_is_wanted(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="one limit"):
        Limit(**values)


def test_a_format_without_levels_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"Q9.*E4_16"):
        within(checkpoint, None, tmp_path, Limit(max_kl=1), formats=("E4_16", "Q9"))


# ---- the verb


def text_file(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("".join(f"Line {n} of a text, {n * n} long.\n" for n in range(400)))
    return path


def test_the_verb_chooses_converts_saves_and_plots(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    common = ["convert", str(tiny_checkpoint), "--calibration", str(text_file(tmp_path))]
    common += ["--cache-dir", str(tmp_path / "cache"), "--method", "rtn"]
    out, toml, plot = (tmp_path / name for name in ("a.edge", "a.toml", "a.svg"))
    files = ["--save-recipe", str(toml), "--plot", str(plot)]
    assert run_command_line([*common, str(out), "--target-bpw", "8", *files, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["bits_per_weight"] <= 8
    assert data["conversion"]["quality"]["divergence"]["n_tokens"] > 0
    assert [p["kl"] for p in data["front"]] == sorted(
        (p["kl"] for p in data["front"]), reverse=True
    )
    assert read_recipe(toml).name == "target-bpw-8.0"
    assert plot.read_bytes().startswith(b"<svg")
    assert run_command_line([*common, "--max-size", "150kB", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "bits per weight" in shown
    assert "predicted" in shown


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--target-bpw", "5", "--format", "E4_16"], "--format: a limit chooses"),
        (["--target-bpw", "5", "--max-kl", "1"], "one limit"),
        (["--method", "gptq"], "--method: only with --target-bpw"),
        (["--max-size", "12 bits"], "'12 bits' is no size"),
        (["--max-kl", "1", "--plot", "a.pdf"], "FILE.png or FILE.svg"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    reason: str,
) -> None:
    code = run_command_line(["convert", str(tiny_checkpoint), str(tmp_path / "a.edge"), *options])
    assert code == 2
    assert reason in " ".join(capsys.readouterr().err.split())
