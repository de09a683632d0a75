"""What the formats of the KV cache cost, as conversions measure it, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters import recipe as recipes
from safetensors.numpy import load_file, save_file

from edgellm import edgefile

torch = pytest.importorskip("torch")

from edgellm.converters import kv_gain  # noqa: E402
from edgellm.converters.kv_rounding import KV_FORMATS, Levels, kv_rounding, scale_groups  # noqa: E402

from edgellm.errors import EdgeError  # noqa: E402


def held_out() -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.random.default_rng(2).integers(2, 258, (2, 96)).astype(np.int32)


@pytest.fixture(scope="module")
def outliers(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with sharper attention and, in every head, a pair of key channels 16 times as
    large that queries make up for: the same function, hard to round."""
    folder = tmp_path_factory.mktemp("outliers") / "tiny"
    folder.mkdir()
    for file in tiny_checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    for name, weights in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = weights.reshape(-1, 16, weights.shape[1]) * 2
            heads[:, [5, 13]] *= 16 if "k_proj" in name else 1 / 16
            tensors[name] = np.ascontiguousarray(heads.reshape(weights.shape))
    save_file(tensors, folder / "model.safetensors")
    return folder


def converted(source: Path, out: Path, rotate_keys: bool | None = None) -> tuple[Any, list[bool]]:
    """The report's figures of the KV formats, and which layers of the file rotate keys."""
    recipe = replace(recipes.preset("E8_32"), rotate_keys=rotate_keys)
    report = convert(source, out, recipe=recipe, held_out=held_out())
    spec = json.loads(edgefile.read_header(out).metadata["edgellm.spec"])
    assert report.quality is not None
    return report.quality.kv, [layer.get("rotate_keys", False) for layer in spec["layers"]]


def test_keys_with_outliers_gain_and_the_file_rotates_them(outliers: Path, tmp_path: Path) -> None:
    kv, flags = converted(outliers, tmp_path / "a.edge")
    assert [found.format for found in kv.formats] == ["K8V8", "K8V4", "K6V4"]
    assert kv.n_tokens == held_out().size
    k8v8, k8v4, k6v4 = kv.formats
    assert k8v8.kl_rotated_keys < 0.5 * k8v8.kl
    assert k6v4.kl_rotated_keys < 0.5 * k6v4.kl
    assert k8v4.kl_rotated_keys < k8v4.kl
    assert kv.keys_gain
    assert flags == [True, True]
    stored = json.loads(bytes(edgefile.read_tensor(tmp_path / "a.edge", "report")))
    assert stored["quality"]["kv"]["keys_gain"] is True


def test_plain_keys_gain_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    kv, flags = converted(tiny_checkpoint, tmp_path / "a.edge")
    assert not kv.keys_gain
    assert flags == [False, False]


@pytest.mark.parametrize("rotate", [False, True])
def test_a_recipe_decides_for_itself(outliers: Path, tmp_path: Path, rotate: bool) -> None:
    assert converted(outliers, tmp_path / "a.edge", rotate)[1] == [rotate, rotate]


def test_without_text_nothing_is_measured_and_no_key_rotated(
    outliers: Path, tmp_path: Path
) -> None:
    convert(outliers, tmp_path / "a.edge")
    assert "rotate_keys" not in edgefile.read_header(tmp_path / "a.edge").metadata["edgellm.spec"]


def verdict(rows: Sequence[tuple[float, float, float]]) -> tuple[bool, bool]:
    figures = iter([value for row in rows for value in row])
    finals = [torch.zeros(1)] * (1 + 3 * len(rows))
    found = kv_gain.judged(finals, lambda _base, _final: (next(figures), 7))
    assert [(f.kl, f.kl_rotated_keys, f.kl_other_values) for f in found.formats] == list(rows)
    return found.keys_gain, found.values_gain


def test_a_gain_is_a_quarter_of_what_matters_and_costs_no_other_format_as_much() -> None:
    flat = (0.01, 0.01, 0.01)
    assert verdict([flat, flat, flat]) == (False, False)
    assert verdict([(0.004, 0.002, 0.004), flat, flat]) == (True, False)
    assert verdict([flat, flat, (0.01, 0.01, 0.007)]) == (False, True)
    assert verdict([flat, flat, (0.01, 0.01, 0.008)]) == (False, False)
    assert verdict([(0.0001, 0.00005, 0.0001), flat, flat]) == (False, False)
    assert verdict([(0.004, 0.002, 0.004), flat, (0.01, 0.02, 0.01)]) == (False, False)


# ---- the arithmetic


def test_every_format_rounds_keys_and_values_as_far_as_its_bits_go() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(n, 300, 80, generator=generator) for n in (4, 2, 2))
    p = torch.softmax(torch.randn(4, 300, 300, generator=generator), -1)
    exact_scores = q @ k.repeat_interleave(2, 0).transpose(1, 2)
    exact_sums = p @ v.repeat_interleave(2, 0)
    errors = {}
    for name, rounding in KV_FORMATS.items():
        for keys, values in ((False, False), (True, True)):
            kv = replace(rounding, rotate_keys=keys, rotate_values=values)
            errors[name, keys] = (
                float((kv.scores(q, k) - exact_scores).square().mean().sqrt()),
                float((kv.mixed(p, v) - exact_sums).square().mean().sqrt()),
            )
    for keys in (False, True):
        f16, k8v8, k8v4, k6v4 = (errors[name, keys] for name in KV_FORMATS)
        assert 10 * f16[0] < k8v8[0] < 0.5 * k6v4[0]
        assert 10 * f16[1] < k8v8[1] < 0.2 * k8v4[1]
        assert k8v4[1] == k6v4[1]
        assert k8v4[0] < k8v8[0]  # its first page is F16
    first = KV_FORMATS["K6V4"].scores(q, k)[..., :32]
    assert torch.equal(first, KV_FORMATS["F16"].scores(q, k[:, :32]))


def test_groups_of_channels_share_a_scale_as_in_the_runtime() -> None:
    lengths = {8: [8], 64: [64], 80: [48, 32], 96: [48, 48], 192: [64, 64, 64]}
    for head_dim, wanted in lengths.items():
        assert [at.stop - at.start for at in scale_groups(head_dim)] == wanted
    assert [at.stop - at.start for at in scale_groups(80, 32)] == [32, 32, 16]


def test_a_format_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(EdgeError, match="'K2V2' is not known"):
        kv_rounding("K2V2")


def test_with_more_levels_on_one_side_the_largest_value_stands_there() -> None:
    """By hand: e = the largest magnitude, +a of +a and -a; s = f16(e / -8); round_even(x / s)."""
    levels = Levels(-8, 7)
    for x, scale, wanted in (
        ([4.0, -2.0, 0.25], -0.5, [-8, 4, 0]),
        ([-4.0, 2.0, 3.9], 0.5, [-8, 4, 7]),
        ([4.0, -4.0, 0.75], -0.5, [-8, 7, -2]),
        ([0.0, 0.0, 0.0], 0.0, [0, 0, 0]),
    ):
        found, step = levels.of(torch.tensor([x]))
        assert float(step) == scale
        assert found[0].tolist() == wanted
