"""Pruning: what goes is what does least, and what stays is the same model in every runtime."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from edgellm.converters import convert, plan_conversion
from edgellm.converters.prune import PruneOptions, predict, prune
from edgellm.converters.reference import Reference
from edgellm.converters.spec import ModelSpec
from safetensors.numpy import load_file, save_file

from edgellm import load
from edgellm.edgefile import read_header
from golden.measures import nmse
from golden.tiny import write_checkpoint
from pruning import CONFIG, FIXED, IDS, TEXT, WINDOWS, pruned


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "model", CONFIG)


def changed(source: Path, out: Path, **tensors: np.ndarray) -> Path:
    """The checkpoint with other numbers in some tensors; `_` stands for a dot."""
    out.mkdir()
    (out / "config.json").write_bytes((source / "config.json").read_bytes())
    values = load_file(source / "model.safetensors")
    for name, value in tensors.items():
        key = f"model.layers.{name.replace('__', '.')}.weight"
        assert values[key].shape == value.shape
        values[key] = value
    save_file(values, out / "model.safetensors")
    return out


def stored(directory: Path) -> dict[str, np.ndarray]:
    return load_file(directory / "model.safetensors")


def spec_of(directory: Path) -> ModelSpec:
    return plan_conversion(directory).spec


def logits(directory: Path) -> torch.Tensor:
    return Reference.from_checkpoint(directory).logits(IDS)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_pruning_nothing_writes_the_same_model_byte_by_byte(dtype: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "model", CONFIG, dtype=dtype, n_shards=2)
    report = prune(source, tmp_path / "out", PruneOptions(), predict_options=FIXED)
    whole = {k: v for path in source.glob("*.safetensors") for k, v in load_file(path).items()}
    written = stored(tmp_path / "out")
    assert written.keys() == whole.keys()
    assert all(written[k].dtype == v.dtype for k, v in whole.items())
    assert all(written[k].tobytes() == v.tobytes() for k, v in whole.items())
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == CONFIG
    assert report.predicted.after == report.predicted.before


def test_the_same_inputs_give_the_same_bytes_for_any_number_of_threads(
    source: Path, tmp_path: Path
) -> None:
    options = PruneOptions(layers=1, attention=1, heads=2, ffn=0.4)
    for n in (1, 3):
        prune(source, tmp_path / str(n), options, texts=TEXT, n_threads=n, predict_options=FIXED)
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "3" / path.name).read_bytes()


def test_channels_that_write_nothing_go_first_and_change_nothing(
    source: Path, tmp_path: Path
) -> None:
    values = stored(source)
    down = [values[f"model.layers.{i}.mlp.down_proj.weight"].copy() for i in range(4)]
    scattered = np.random.default_rng(0).permutation(192)[:64]
    down[1][:, scattered] = 0
    down[2][:, 128:] = 0
    silent = changed(
        source, tmp_path / "silent", **{f"{i}__mlp__down_proj": down[i] for i in (1, 2)}
    )
    out = pruned(silent, tmp_path / "out", ffn=128 / (4 * 192))
    assert [layer.d_ffn for layer in spec_of(out).layers] == [192, 128, 128, 192]
    wanted = np.delete(values["model.layers.1.mlp.up_proj.weight"], scattered, axis=0)
    assert np.array_equal(stored(out)["model.layers.1.mlp.up_proj.weight"], wanted)
    assert nmse(logits(silent).numpy(), logits(out).numpy()) < 1e-12


def test_natively_a_last_tile_of_zeros_is_worth_nothing_to_the_bit(
    source: Path, tmp_path: Path
) -> None:
    """Sums run over ascending columns, so that zeros behind them add nothing."""
    down = stored(source)["model.layers.2.mlp.down_proj.weight"].copy()
    down[:, 128:] = 0
    silent = changed(source, tmp_path / "silent", **{"2__mlp__down_proj": down})
    out = pruned(silent, tmp_path / "out", ffn=64 / (4 * 192))
    for format in ("F16", "E4_16"):
        got = []
        for directory in (silent, out):
            file = directory.with_suffix(f".{format}.edge")
            convert(directory, file, format=format)
            with load(file, verify="never") as model:
                got.append(model.logits(IDS))
        assert np.array_equal(*got)


def test_a_layer_that_does_nothing_goes_first_and_changes_nothing(
    source: Path, tmp_path: Path
) -> None:
    values = stored(source)
    zeros = {
        f"2__{name}": np.zeros_like(values[f"model.layers.2.{name.replace('__', '.')}.weight"])
        for name in ("self_attn__o_proj", "mlp__down_proj")
    }
    idle = changed(source, tmp_path / "idle", **zeros)
    for by in ("influence", "kl"):
        options = PruneOptions(layers=1, layers_by=by)
        report = prune(idle, tmp_path / by, options, texts=TEXT, predict_options=FIXED)
        assert [index for index, _ in report.layers_gone] == [2]
        assert report.divergence is not None
        assert report.divergence.kl == 0
        assert torch.equal(logits(tmp_path / by), logits(idle))


def test_block_influence_is_its_definition_and_looked_at_again(
    source: Path, tmp_path: Path
) -> None:
    model = Reference.from_checkpoint(source)
    kept, gone = [0, 1, 2, 3], []
    for _ in range(2):
        influence = dict.fromkeys(kept, 0.0)
        for window in WINDOWS.tolist():
            x = model.embed(window)
            for index in kept:
                y = model.block(x, index)
                cosine = torch.nn.functional.cosine_similarity(x, y, dim=-1).mean()
                influence[index] += (1 - float(cosine)) / len(WINDOWS)
                x = y
        gone.append(min(influence, key=influence.__getitem__))
        kept.remove(gone[-1])
    report = predict(source, PruneOptions(layers=2), texts=TEXT, predict_options=FIXED)
    assert [index for index, _ in report.layers_gone] == gone
    assert report.layers_gone[1][1] == pytest.approx(influence[gone[1]], rel=1e-4)


def test_by_kl_the_layer_goes_without_which_the_model_diverges_least(
    source: Path, tmp_path: Path
) -> None:
    model = Reference.from_checkpoint(source)
    found = []
    for missing in range(4):
        layers = [index for index in range(4) if index != missing]
        kl = 0.0
        for window in WINDOWS.tolist():
            x = model.embed(window)
            for index in layers:
                x = model.block(x, index)
            p, q = model.logits(window).log_softmax(-1), model.head(x).log_softmax(-1)
            kl += float((p.exp() * (p - q)).sum(-1).mean()) / len(WINDOWS)
        found.append(kl)
    options = PruneOptions(layers=1, layers_by="kl")
    report = predict(source, options, texts=TEXT, predict_options=FIXED)
    ((index, kl),) = report.layers_gone
    assert index == int(np.argmin(found))
    assert kl == pytest.approx(min(found), rel=1e-4)


def test_heads_that_look_at_the_first_token_most_go_first(source: Path, tmp_path: Path) -> None:
    """Oracle: attention weights, computed from the matrices."""
    model = Reference.from_checkpoint(source)
    sinks = np.zeros((4, 6))
    for window in WINDOWS.tolist():
        x = model.embed(window)
        for index in range(4):
            p = f"layers.{index}."
            h = model._norm(x, p + "attn_norm")
            q, k = (
                model._rotate(
                    (h @ model.weights[p + name].T).view(-1, n, 16).transpose(0, 1), "full"
                )
                for name, n in (("attn_q", 6), ("attn_k", 3))
            )
            scores = q @ k.repeat_interleave(2, 0).transpose(1, 2) / 4
            unseen = torch.ones(len(window), len(window), dtype=torch.bool).triu(1)
            weights = scores.masked_fill(unseen, -math.inf).softmax(-1)
            sinks[index] += weights[:, 1:, 0].mean(-1).numpy() / len(WINDOWS)
            x = model.block(x, index)
    groups = sinks.reshape(4, 3, 2).mean(-1)
    best = groups.argmin(axis=1)
    order = np.argsort(-groups.reshape(-1))
    gone = [divmod(int(i), 3) for i in order if i % 3 != best[i // 3]][:3]
    report = predict(source, PruneOptions(heads=3), texts=TEXT, predict_options=FIXED)
    for layer in report.cut.layers:
        wanted = tuple(g for g in range(3) if (layer.index, g) not in gone)
        assert layer.kv_heads == wanted
        assert layer.heads == tuple(h for g in wanted for h in (2 * g, 2 * g + 1))


def test_a_head_that_writes_nothing_goes_first_and_changes_nothing(
    source: Path, tmp_path: Path
) -> None:
    o = stored(source)["model.layers.3.self_attn.o_proj.weight"].copy()
    o[:, 32:64] = 0  # query heads 2 and 3, of key head 1
    silent = changed(source, tmp_path / "silent", **{"3__self_attn__o_proj": o})
    out = pruned(silent, tmp_path / "out", heads=1, heads_by="output")
    assert [layer.n_kv_heads for layer in spec_of(out).layers] == [3, 3, 3, 2]
    assert [layer.n_heads for layer in spec_of(out).layers] == [6, 6, 6, 4]
    assert nmse(logits(silent).numpy(), logits(out).numpy()) < 1e-12


CUTS = {
    "uneven": {"layers": 1, "attention": 1, "heads": 2, "ffn": 0.4},
    "uniform": {"layers": 1, "heads": 3, "ffn": 0.5, "uniform": True},
}


@pytest.mark.parametrize("name", CUTS)
def test_the_native_runtime_equals_the_reference_on_pruned_models(
    name: str, source: Path, tmp_path: Path
) -> None:
    out = pruned(source, tmp_path / "out", **CUTS[name])
    layers = spec_of(out).layers
    widths = {(layer.n_heads, layer.n_kv_heads, layer.d_ffn) for layer in layers}
    assert len(layers) == 3
    assert (len(widths) == 1) == (name == "uniform")
    if name == "uniform":
        assert json.loads((out / "config.json").read_text())["num_key_value_heads"] == 2
    else:
        assert {layer.n_heads for layer in layers} >= {1}
    file = tmp_path / "pruned.edge"
    convert(out, file, format="E4_16", act="f32")
    wanted = Reference.from_edge(file).logits(IDS, kv="F16").numpy()
    with load(file, kv="F16", verify="never") as model:
        assert nmse(wanted, model.logits(IDS)) <= 1e-6
    answers = []
    convert(out, file, format="E4_16")
    for threads in (1, 2):
        with load(file, threads=threads, verify="never") as model:
            answers.append(model.generate(IDS, max_tokens=12).token_ids)
    assert answers[0] == answers[1]


def test_what_was_predicted_is_what_comes_out(source: Path, tmp_path: Path) -> None:
    options = PruneOptions(layers=1, ffn=0.5)
    before = predict(source, options, texts=TEXT, predict_options=FIXED)
    assert before.out is None
    assert list(source.parent.iterdir()) == [source]  # nothing was written
    out = tmp_path / "out"
    report = prune(source, out, options, texts=TEXT, predict_options=FIXED)
    assert report.predicted == before.predicted
    for directory, told in ((source, before.predicted.before), (out, before.predicted.after)):
        file = tmp_path / f"{directory.name}.edge"
        convert(directory, file, format="E4_16")
        tensors = read_header(file).tensors.values()
        n_bytes = sum(info.n_bytes for info in tensors if info.format != "U8")
        assert told.bytes_per_token == n_bytes  # a tied head reads all of the embedding
        assert told.tokens_per_s == pytest.approx(10e9 / n_bytes)
        assert abs(told.file_bytes - file.stat().st_size) < 40 << 10  # the report, to some KiB
    assert "10.00 GB/s (given)" in before.predicted.basis
    assert before.predicted.after.bytes_per_token < before.predicted.before.bytes_per_token


def test_masks_set_the_least_to_zero_and_remove_nothing(source: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    whole = stored(source)
    by_size = stored(pruned(source, tmp_path / "magnitude", mask="magnitude", mask_share=0.5))
    matrix = np.abs(whole[name])
    assert np.array_equal(by_size[name] == 0, matrix <= np.median(matrix))
    wanda = stored(pruned(source, tmp_path / "wanda", mask="wanda", mask_share=0.25))
    assert ((wanda[name] == 0).sum(axis=1) == 12).all()  # of the 48 of every row
    assert {key: value.shape for key, value in wanda.items()} == {
        key: value.shape for key, value in whole.items()
    }
    for other in (by_size, wanda):
        kept = other[name] != 0
        assert np.array_equal(other[name][kept], whole[name][kept])
        assert np.array_equal(
            other["model.embed_tokens.weight"], whole["model.embed_tokens.weight"]
        )


def test_wanda_keeps_small_weights_of_large_inputs(source: Path, tmp_path: Path) -> None:
    norm = stored(source)["model.layers.0.input_layernorm.weight"].copy()
    norm[7] = 1000
    loud = changed(source, tmp_path / "loud", **{"0__input_layernorm": norm})
    found = stored(pruned(loud, tmp_path / "out", mask="wanda", mask_share=0.5))
    assert (found["model.layers.0.self_attn.q_proj.weight"][:, 7] != 0).all()
