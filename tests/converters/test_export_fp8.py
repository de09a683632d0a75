"""FP8 checkpoints that we write: torch's bits, read by us and by transformers, whole or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.export import export, fp8_checkpoint, shards
from edgellm.converters.export.fp8_checkpoint import FP8_KINDS, pack_blocks, unpacked
from edgellm.converters.reference import Reference
from safetensors import safe_open
from safetensors.torch import load_file

from command_line import data_of, edgellm, failure_of
from edgellm.errors import FormatError, InvalidArgumentError, NumericError, UnsupportedError
from golden.tiny import CASES, case_ids, hf_config, named_weights, shared_model, tiny_checkpoint

CASE: dict[str, Any] = {
    **CASES[1],
    "name": "blocks",
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
DOWN = "model.layers.1.mlp.down_proj.weight"
kinds = pytest.mark.parametrize("kind", FP8_KINDS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path, CASE, dtype="BF16", n_shards=2)


def torch_blocks(weights: npt.NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales, block by block, in torch alone."""
    w = torch.from_numpy(weights)
    codes = torch.empty(w.shape, dtype=torch.float8_e4m3fn)
    scales = torch.empty(-(-w.shape[0] // 128), -(-w.shape[1] // 128))
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            block = w[i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128]
            amax = block.abs().max()
            scales[i, j] = amax / 448 if amax > 0 else 1.0
            cast = (block / scales[i, j]).to(torch.float8_e4m3fn)
            codes[i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128] = cast
    return codes, scales


@pytest.mark.parametrize("shape", [(256, 384), (300, 130), (1, 1), (127, 129)])
def test_blocks_have_the_codes_and_scales_of_torch(shape: tuple[int, int]) -> None:
    weights = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    weights *= np.exp(np.random.default_rng(2).normal(0, 4, shape)).astype(np.float32)
    weights[:128, :128] *= 0 if shape == (256, 384) else 1
    codes, scales = torch_blocks(weights)
    packed = pack_blocks(weights)
    np.testing.assert_array_equal(packed.codes, codes.view(torch.uint8).numpy())
    np.testing.assert_array_equal(packed.scales, scales.numpy())
    whole = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)
    wanted = codes.float() * whole[: shape[0], : shape[1]]
    np.testing.assert_array_equal(unpacked(packed, "F8_E4M3"), wanted.numpy())


@kinds
def test_what_is_written_is_what_torch_would_write(
    kind: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp8_checkpoint, "READ_WEIGHTS", 1)  # in as many pieces as there can be
    report = export(source, tmp_path / "out", kind)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert len(report.matrices) == 14
    for matrix in report.matrices:
        shape = tuple(stored[matrix.name].shape)
        weights = torch.from_numpy(named_weights(matrix.name, shape)).to(torch.bfloat16).float()
        if kind == "fp8-block":
            codes, scale = torch_blocks(weights.numpy())
            assert torch.equal(stored[matrix.name + "_scale_inv"], scale)
        elif kind == "fp8-tensor":
            scale = weights.abs().max() / 448
            codes = (weights / scale).to(torch.float8_e4m3fn)
            assert torch.equal(stored[matrix.name + "_scale"], scale.reshape(1))
        else:
            codes = weights.to(torch.float8_e5m2)
        assert stored[matrix.name].dtype == codes.dtype
        assert torch.equal(stored[matrix.name].view(torch.uint8), codes.view(torch.uint8))
        assert 0.02 < matrix.rel_rms_error < (0.07 if kind == "fp8-e5m2" else 0.035)
    wanted = named_weights("model.norm.weight", (256,))
    assert torch.equal(stored["model.norm.weight"], torch.from_numpy(wanted).to(torch.bfloat16))


@kinds
def test_our_reader_reads_it_and_exports_it_again_to_the_same_values(
    kind: str, source: Path, tmp_path: Path
) -> None:
    export(source, tmp_path / "one", kind)
    again = export(tmp_path / "one", tmp_path / "two", kind)
    assert any("second time" in warning for warning in again.warnings)
    with Checkpoint(tmp_path / "one") as one, Checkpoint(tmp_path / "two") as two:
        assert set(one.tensors) == set(two.tensors)
        for name, info in one.tensors.items():
            n_rows = info.shape[0] if len(info.shape) == 2 else 1
            first, second = one.read_rows(name, 0, n_rows), two.read_rows(name, 0, n_rows)
            np.testing.assert_allclose(first, second, rtol=2e-7)


@pytest.mark.parametrize("kind", ["fp8-e5m2", "fp8-tensor", "fp8-block"])
def test_transformers_reads_it_as_we_do(kind: str, source: Path, tmp_path: Path) -> None:
    needs = {"fp8-block": "accelerate", "fp8-tensor": "compressed_tensors"}
    if kind in needs:
        pytest.importorskip(needs[kind], reason=f"transformers reads {kind} with it")
    from transformers import AutoModelForCausalLM

    export(source, tmp_path / "out", kind)
    # Without a GPU transformers unpacks blocks to bfloat16 whatever is asked for.
    dtype = torch.bfloat16 if kind == "fp8-block" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=dtype, local_files_only=True
    ).eval()
    ids = case_ids(CASE)
    with torch.inference_mode():
        got = model(torch.tensor([ids])).logits[0].float()
    wanted = Reference.from_checkpoint(tmp_path / "out").logits(ids)
    error = float((got - wanted).square().sum() / wanted.square().sum())
    assert error < (1e-3 if kind == "fp8-block" else 1e-10)


def test_many_files_get_an_index_and_every_tensor_is_aligned(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.ShardWriter.__init__, "__defaults__", (300_000,))
    export(source, tmp_path / "out", "fp8-block")
    paths = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(paths) > 2
    with Checkpoint(tmp_path / "out") as checkpoint, Checkpoint(source) as original:
        assert set(checkpoint.tensors) == set(original.tensors)
        sizes = {"BF16": 2, "F8_E4M3": 1}
        for info in checkpoint.tensors.values():
            assert info.offset_bytes % sizes[info.dtype] == 0
    for path in paths:
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118


def test_what_lies_beside_the_weights_comes_along(source: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "chat_template.jinja", "LICENSE", "notes.txt"):
        (source / name).write_text(name, encoding="utf-8")
    export(source, tmp_path / "out", "fp8-tensor")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    beside = {"tokenizer.json", "chat_template.jinja", "LICENSE"}
    assert names == {"config.json", "model.safetensors", *beside}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert quantization["quant_method"] == "compressed-tensors"
    assert config == {**hf_config(CASE), "torch_dtype": "bfloat16"}


def test_blocks_that_an_edge_would_cut_off_stay_as_they_are(tmp_path: Path) -> None:
    ragged = {**CASE, "name": "ragged", "intermediate_size": 200, "num_key_value_heads": 1}
    source = tiny_checkpoint(tmp_path, ragged)
    report = export(source, tmp_path / "out", "fp8-block")
    # k and v have 64 rows; q is joined with them.
    assert {matrix.name.split(".")[-2] for matrix in report.matrices} == {"o_proj"}
    assert any("12 of 14 matrices kept" in warning for warning in report.warnings)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    left_out = config["quantization_config"]["modules_to_not_convert"]
    assert {"lm_head", "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"} < set(
        left_out
    )
    with Checkpoint(tmp_path / "out") as checkpoint:
        got = checkpoint.read_rows(DOWN, 0, 256)
    np.testing.assert_array_equal(got, named_weights(DOWN, (256, 200)))
    with pytest.raises(UnsupportedError, match="fp8-tensor"):
        export(tiny_checkpoint(tmp_path, CASES[0]), tmp_path / "none", "fp8-block")


@pytest.mark.parametrize(("kind", "value"), [("fp8-block", np.nan), ("fp8-e5m2", 70000)])
def test_a_weight_that_no_code_stands_for_is_named_and_leaves_nothing(
    kind: str, value: float, tmp_path: Path
) -> None:
    weights = named_weights(DOWN, (256, 384))
    weights[200, 3] = value
    source = tiny_checkpoint(tmp_path, CASE, extra={DOWN: weights})
    (tmp_path / "here").mkdir()
    with pytest.raises(NumericError, match=DOWN):
        export(source, tmp_path / "here" / "out", kind)
    assert list((tmp_path / "here").iterdir()) == []


def test_an_export_replaces_nothing_and_an_interrupted_one_leaves_nothing(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "here" / "full").mkdir(parents=True)
    with pytest.raises(FormatError, match="exists"):
        export(source, tmp_path / "here" / "full", "fp8-tensor")
    with pytest.raises(FormatError, match="no such directory"):
        export(source, tmp_path / "nowhere" / "out", "fp8-tensor")

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "here" / "out", "fp8-tensor", progress=interrupt)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["full"]
    with pytest.raises(InvalidArgumentError, match="fp8-block"):
        export(source, tmp_path / "here" / "out", "fp4")


def test_the_verb_says_what_it_wrote_and_refuses_in_one_line(source: Path, tmp_path: Path) -> None:
    run = edgellm("export", source, "out", "--as", "fp8-block", "--json", cwd=tmp_path)
    data = data_of(run, "export")
    assert data["kind"] == "fp8-block"
    written = [path.stat().st_size for path in (tmp_path / "out").iterdir()]
    assert data["n_bytes"] == sum(written)
    run = edgellm("export", source, "out", "--as", "fp8-block", cwd=tmp_path)
    assert "exists" in failure_of(run, 3)
    run = edgellm("export", source, "more", "--as", "fp8-tensor", cwd=tmp_path)
    assert "14 matrices as F8_E4M3" in run.stdout


def test_a_real_model_in_fp8_says_nearly_the_same(tmp_path: Path) -> None:
    source = shared_model("seed6m")
    ids = np.load(source / "expected" / "logits64.npz")["input_ids"].reshape(-1).tolist()
    wanted = Reference.from_checkpoint(source).logits(ids).log_softmax(-1)
    for kind, limit in (("fp8-block", 0.002), ("fp8-tensor", 0.002), ("fp8-e5m2", 0.01)):
        export(source, tmp_path / kind, kind)
        got = Reference.from_checkpoint(tmp_path / kind).logits(ids).log_softmax(-1)
        divergence = float((wanted.exp() * (wanted - got)).sum(-1).mean())
        assert 1e-5 < divergence < limit, kind
