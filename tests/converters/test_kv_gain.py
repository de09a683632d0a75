"""What the formats of the KV cache cost, as conversions measure it, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters import recipe as recipes
from edgellm.converters.export.edge_source import EdgeCheckpoint
from edgellm.converters.layout import KEY_BALANCE_ROLES
from edgellm.converters.plan import Job, Options
from safetensors.numpy import load_file, save_file

from edgellm import edgefile

torch = pytest.importorskip("torch")

from edgellm.converters import kv_gain  # noqa: E402
from edgellm.converters.key_balance import KeySums, balance_of  # noqa: E402
from edgellm.converters.kv_rounding import KV_FORMATS, Levels, kv_rounding, scale_groups  # noqa: E402
from edgellm.converters.reference import Reference  # noqa: E402

from edgellm.errors import EdgeError, InvalidArgumentError  # noqa: E402


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


@pytest.fixture(scope="module")
def constant_keys(outliers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a bias of the keys that turns slowly: a large constant in every head."""
    folder = tmp_path_factory.mktemp("constant") / "tiny"
    folder.mkdir()
    for file in outliers.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"attention_bias": True, "rope_theta": 1e12}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = load_file(folder / "model.safetensors")
    for name, weights in list(tensors.items()):
        if not name.endswith("_proj.weight") or "self_attn" not in name:
            continue
        bias = np.zeros(len(weights), dtype=np.float32)
        if "k_proj" in name:
            bias.reshape(-1, 16)[:, 7] = 60.0
        tensors[name.replace("weight", "bias")] = bias
    save_file(tensors, folder / "model.safetensors")
    return folder


def converted(
    source: Path, out: Path, rotate_keys: bool | None = None, balance_keys: bool | None = None
) -> tuple[Any, list[tuple[bool, bool]]]:
    """The report's figures of the KV formats, and which layers of the file rotate keys and balance
    them."""
    recipe = replace(recipes.preset("E8_32"), rotate_keys=rotate_keys, balance_keys=balance_keys)
    report = convert(source, out, recipe=recipe, held_out=held_out())
    header = edgefile.read_header(out)
    layers = json.loads(header.metadata["edgellm.spec"])["layers"]
    assert report.quality is not None
    flags = [
        (layer.get("rotate_keys", False), layer.get("balance_keys", False)) for layer in layers
    ]
    for index, (_, balanced) in enumerate(flags):
        for role in KEY_BALANCE_ROLES:
            assert (f"layers.{index}.{role}" in header.tensors) == balanced
    return report.quality.kv, flags


def test_keys_with_outliers_gain_from_rotation(outliers: Path, tmp_path: Path) -> None:
    kv, flags = converted(outliers, tmp_path / "a.edge", balance_keys=False)
    assert [found.format for found in kv.formats] == ["K8V8", "K8V4", "K6V4"]
    assert kv.n_tokens == held_out().size
    k8v8, k8v4, k6v4 = kv.formats
    assert k8v8.kl_rotated_keys < 0.5 * k8v8.kl
    assert k6v4.kl_rotated_keys < 0.5 * k6v4.kl
    assert k8v4.kl_rotated_keys < k8v4.kl
    assert kv.rotate_keys
    assert flags == [(True, False)] * 2
    stored = json.loads(bytes(edgefile.read_tensor(tmp_path / "a.edge", "report")))
    assert stored["quality"]["kv"]["rotate_keys"] is True


@pytest.mark.parametrize("source", ["outliers", "constant_keys"])
def test_a_balance_undoes_outliers_and_constants(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """More than a rotation does, which spreads what need not be stored."""
    kv, flags = converted(request.getfixturevalue(source), tmp_path / "a.edge")
    k8v8, _, k6v4 = kv.formats
    for found in (k8v8, k6v4):
        assert found.kl_balanced_keys < 0.5 * found.kl
        assert found.kl_balanced_keys < found.kl_rotated_keys
    assert kv.balance_keys
    assert flags == [(kv.rotate_keys, True)] * 2


@pytest.fixture(scope="module")
def balanced(constant_keys: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file whose keys are balanced alone, and its figures."""
    out = tmp_path_factory.mktemp("balanced") / "a.edge"
    kv, flags = converted(constant_keys, out, False, True)
    assert flags == [(False, True)] * 2
    return out, kv


def test_a_balanced_file_keeps_what_its_report_promises(balanced: tuple[Path, Any]) -> None:
    path, kv = balanced
    reference = Reference.from_edge(path)
    total = 0.0
    for window in held_out().tolist():
        f16, k8v8 = (reference.logits(window, kv=name).log_softmax(-1) for name in ("F16", "K8V8"))
        total += float((f16.exp() * (f16 - k8v8)).sum(-1).mean()) / len(held_out())
    assert total == pytest.approx(kv.formats[0].kl_balanced_keys, rel=0.05)


def test_plain_keys_gain_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    kv, flags = converted(tiny_checkpoint, tmp_path / "a.edge")
    assert not kv.rotate_keys
    assert not kv.balance_keys
    assert flags == [(False, False)] * 2


@pytest.mark.parametrize(("rotate", "balance"), [(False, False), (True, False), (True, True)])
def test_a_recipe_decides_for_itself(
    outliers: Path, tmp_path: Path, rotate: bool, balance: bool
) -> None:
    found = converted(outliers, tmp_path / "a.edge", rotate, balance)[1]
    assert found == [(rotate, balance)] * 2


def test_without_text_nothing_is_measured_and_keys_stay_as_they_are(
    outliers: Path, tmp_path: Path
) -> None:
    convert(outliers, tmp_path / "a.edge")
    spec = edgefile.read_header(tmp_path / "a.edge").metadata["edgellm.spec"]
    assert "_keys" not in spec
    recipe = replace(recipes.preset("E8_32"), balance_keys=True)
    with pytest.raises(InvalidArgumentError, match="balance_keys = true takes held-out text"):
        convert(outliers, tmp_path / "b.edge", recipe=recipe)
    assert not (tmp_path / "b.edge").exists()


def test_an_export_of_a_balanced_file_is_the_model_alone(balanced: tuple[Path, Any]) -> None:
    job = Job(EdgeCheckpoint(balanced[0]), Options("F16", None, None, None))
    assert not {item.role for item in job.planned} & set(KEY_BALANCE_ROLES)
    assert "_keys" not in job.spec.to_json()


def verdict(
    rows: Sequence[tuple[float, ...]], rotate: bool | None = None, balance: bool | None = None
) -> tuple[bool, bool, bool]:
    """rows: plain, rotated, balanced, both, other values. What is done, and if values gain."""
    figures = iter([value for row in rows for value in row])
    finals = [torch.zeros(1)] * (1 + 5 * len(rows))
    found = kv_gain.judged(finals, lambda _base, _final: (next(figures), 7), rotate, balance)
    assert [astuple(f)[1:] for f in found.formats] == list(rows)
    return found.rotate_keys, found.balance_keys, found.values_gain


def test_a_gain_is_a_quarter_of_what_matters_and_costs_no_other_format_as_much() -> None:
    flat = (0.01,) * 5
    assert verdict([flat, flat, flat]) == (False, False, False)
    rotation = (0.004, 0.002, 0.004, 0.002, 0.004)
    assert verdict([rotation, flat, flat]) == (True, False, False)
    assert verdict([flat, flat, (0.01, 0.01, 0.01, 0.01, 0.007)]) == (False, False, True)
    assert verdict([flat, flat, (0.01, 0.01, 0.01, 0.01, 0.008)]) == (False, False, False)
    tiny = (0.0001, 0.00005, 0.00005, 0.00002, 0.0001)
    assert verdict([tiny, flat, flat]) == (False, False, False)
    worse = (0.01, 0.02, 0.01, 0.02, 0.01)
    assert verdict([rotation, flat, worse]) == (False, False, False)


def test_keys_are_rotated_beside_a_balance_only_where_that_gains_again() -> None:
    flat = (0.01,) * 5
    balance = (0.004, 0.002, 0.001, 0.001, 0.004)
    both = (0.004, 0.002, 0.001, 0.0005, 0.004)
    assert verdict([balance, flat, flat]) == (False, True, False)
    assert verdict([both, flat, flat]) == (True, True, False)
    assert verdict([both, flat, flat], balance=False) == (True, False, False)
    assert verdict([both, flat, flat], rotate=False) == (False, True, False)
    assert verdict([balance, flat, flat], rotate=True) == (True, True, False)
    assert verdict([flat, flat, flat], rotate=True, balance=True) == (True, True, False)


# ---- the arithmetic


def test_a_balance_centres_keys_and_shares_what_they_vary_with_queries() -> None:
    generator = torch.Generator().manual_seed(2)
    spread = torch.tensor([0.1, 1.0, 8.0, 0.0])
    k = torch.randn(2, 400, 4, generator=generator) * spread + torch.tensor([5.0, -3.0, 0, 2])
    q = torch.randn(6, 400, 4, generator=generator) / torch.tensor([1.0, 2, 4, 8])
    parts = [KeySums.of(q[:, part], k[:, part]) for part in (slice(0, 100), slice(100, 400))]
    balance = balance_of(parts)
    assert torch.allclose(balance.mean, k.mean(1), atol=1e-5)
    keys, queries = balance.keys(k), balance.queries(q)
    assert float(keys.mean(1).abs().max()) < 1e-4
    key_rms = keys.square().mean(1).sqrt()
    query_rms = queries.reshape(2, 3 * 400, 4).square().mean(1).sqrt()
    assert torch.allclose(key_rms[:, :3], query_rms[:, :3], rtol=1e-3)
    assert balance.scale[:, 3].tolist() == [1.0, 1.0]  # nothing is known of a constant channel
    scores = q @ k.repeat_interleave(3, 0).transpose(1, 2)
    found = queries @ keys.repeat_interleave(3, 0).transpose(1, 2)
    assert torch.allclose(scores.softmax(-1), found.softmax(-1), atol=1e-5)


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
