"""GGUF files that we write: read by the package gguf and by our own reader, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.export import export
from edgellm.converters.export.gguf_file import GGUF_KINDS
from edgellm.converters.gguf.compiled import check_same, describe_compiled
from edgellm.converters.gguf.dequantize import dequantize
from edgellm.converters.gguf.quantize import quantize
from edgellm.converters.gguf.reader import read_gguf
from edgellm.converters.gguf.types import BY_NAME
from edgellm.converters.gguf.vocabulary_keys import vocabulary_keys
from edgellm.converters.plan import Job, Options
from edgellm.converters.safetensors_header import TensorInfo
from edgellm.converters.sources import open_checkpoint
from edgellm.converters.spec import ModelSpec
from edgellm.converters.tokenizer import Description, build_blob
from tokenizers import Tokenizer

import edgellm
from edgellm import _native
from edgellm.cli import run_command_line
from edgellm.cli.exits import Exit
from edgellm.edgefile import read_header, read_tensor
from edgellm.locate import resolve
from gguf_format.model import METADATA, model_bytes
from gguf_format.test_tokenizer import BPE, SPM, Vocabulary
from golden.tiny import case_named, hf_config, write_checkpoint

gguf = pytest.importorskip("gguf", reason="the package gguf is the oracle here")

F16 = Options("F16", None, None, None)
PATH = Path("model")
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def weights() -> Any:
    rng = np.random.default_rng(5)
    found = rng.standard_normal((6, 128)).astype(np.float32)
    found[0, :32] = 0  # a block of zeros
    found[1, 7] = -40
    return found


def checkpoint(folder: Path, **config: Any) -> Path:
    return write_checkpoint(folder, hf_config(case_named("mha_untied_head16")) | SHAPE | config)


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q4_0"])
def test_quantizers_give_ggmls_bits(name: str, weights: Any) -> None:
    wanted = gguf.quantize(weights, gguf.GGMLQuantizationType[name]).view(np.uint8)
    assert np.array_equal(quantize(weights, name), wanted)


def test_iq4_nl_is_nearer_than_q4_0(weights: Any) -> None:
    errors = {}
    for name in ("Q4_0", "IQ4_NL"):
        raw = quantize(weights, name)
        assert raw.shape == (6, 128 // 32 * BY_NAME[name].n_bytes)
        errors[name] = np.abs(dequantize(raw, name) - weights)
    assert np.square(errors["IQ4_NL"]).sum() < 0.9 * np.square(errors["Q4_0"]).sum()
    assert not errors["IQ4_NL"][0, :32].any()


def test_weights_that_do_not_fit_are_refused(weights: Any) -> None:
    for name, value in (("F16", 1e6), ("Q8_0", np.inf), ("IQ4_NL", np.nan)):
        spoiled = weights.copy()
        spoiled[2, 3] = value
        with pytest.raises(edgellm.NumericError), np.errstate(all="ignore"):
            quantize(spoiled, name)


@pytest.mark.parametrize("kind", GGUF_KINDS)
def test_both_readers_read_what_is_written(kind: str, tmp_path: Path) -> None:
    source, out = checkpoint(tmp_path / "src"), tmp_path / "out.gguf"
    report = export(source, out, kind)
    assert report.n_bytes == out.stat().st_size
    theirs = {info.name: info for info in gguf.GGUFReader(out).tensors}
    ours = read_gguf(out).tensors
    assert {name: info.tensor_type.name for name, info in theirs.items()} == {
        name: info.dtype for name, info in ours.items()
    }
    with open_checkpoint(source) as one, open_checkpoint(out) as other:
        wanted, got = Job(one, F16), Job(other, F16)
        assert got.spec == wanted.spec
        for item, same in zip(wanted.planned, got.planned, strict=True):
            if item.source is None:
                assert np.array_equal(wanted.tables[item.name], got.tables[item.name])
                continue
            rows = wanted.read_rows(item, 0, item.rows_cols[0])
            read = got.read_rows(same, 0, item.rows_cols[0])
            limit = {"gguf-f16": 0.001, "gguf-q8_0": 0.01}.get(kind, 0.15)
            if len(item.shape) == 1:
                limit = 0
            assert np.abs(read - rows).max() <= limit * np.abs(rows).max(), item.name
    errors = {matrix.format: matrix.rel_rms_error for matrix in report.matrices}
    assert GGUF_KINDS[kind] in errors
    assert report.worst.rel_rms_error < 0.13


QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def norms(config: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    return {
        f"model.layers.{layer}.self_attn.{name}_norm.weight": rng.standard_normal(
            config["head_dim"]
        ).astype(np.float32)
        for layer in range(config["num_hidden_layers"])
        for name in "qk"
    }


def test_other_architectures_and_scaled_rotations(tmp_path: Path) -> None:
    config = hf_config(case_named("mha_untied_head16")) | SHAPE | QWEN3
    source = write_checkpoint(tmp_path / "qwen3", config, extra=norms(config))
    export(source, tmp_path / "qwen3.gguf", "gguf-f16")
    scaled = checkpoint(tmp_path / "llama3", rope_scaling=LLAMA3)
    export(scaled, tmp_path / "llama3.gguf", "gguf-f16")
    for name in ("qwen3", "llama3"):
        with (
            open_checkpoint(tmp_path / name) as one,
            open_checkpoint(tmp_path / f"{name}.gguf") as other,
        ):
            wanted, got = Job(one, F16), Job(other, F16)
            assert got.spec == wanted.spec
            table = wanted.tables["rope_inv_freq"]
            assert np.allclose(got.tables["rope_inv_freq"], table, rtol=3e-7, atol=0)
    assert "rope_freqs.weight" in read_gguf(tmp_path / "llama3.gguf").tensors


def test_a_gguf_file_is_a_source_too(tmp_path: Path) -> None:
    plain = {k: v for k, v in METADATA.items() if ".rope." not in k}
    (tmp_path / "in.gguf").write_bytes(model_bytes(metadata=plain))
    export(tmp_path / "in.gguf", tmp_path / "out.gguf", "gguf-q8_0")
    found = read_gguf(tmp_path / "out.gguf")
    for key, value in plain.items():
        if key.startswith("tokenizer."):
            assert found.metadata[key] == value
    assert found.tensors["token_embd.weight"].dtype == "Q8_0"


@pytest.mark.parametrize("metadata", [BPE, SPM], ids=["bytes", "pieces"])
def test_the_vocabulary_comes_back(metadata: dict[str, Any]) -> None:
    """Keys -> description -> keys -> description: the same ids."""
    source = Vocabulary(PATH, metadata).description()
    assert source is not None
    keys = vocabulary_keys(Description(PATH, source.data), 270)
    assert len(keys["tokens"]) == 270
    again = Vocabulary(PATH, {f"tokenizer.ggml.{key}": value for key, value in keys.items()})
    other = again.description()
    assert other is not None
    natives = [
        _native.Tokenizer.from_blob(build_blob(PATH, data, Tokenizer.from_str(json.dumps(data))))
        for data in (source.data, other.data)
    ]
    for text in ("hi", " hi  hi\n", "<tool>hi", "<s>", "\u00e9\U0001f600"):
        assert natives[0].encode(text, True, True) == natives[1].encode(text, True, True)


def test_what_a_converted_file_holds_exactly_goes_out_as_it_is(tmp_path: Path) -> None:
    kept = (".rope.", "tokenizer.")
    plain = {k: v for k, v in METADATA.items() if not any(part in k for part in kept)}
    (tmp_path / "in.gguf").write_bytes(model_bytes(metadata=plain))
    convert(tmp_path / "in.gguf", tmp_path / "model.edge")
    report = export(tmp_path / "model.edge", tmp_path / "out.gguf", "gguf-q4_0")
    stored, written = (read_gguf(tmp_path / name).tensors for name in ("in.gguf", "out.gguf"))
    one, other = stored["blk.0.attn_q.weight"], written["blk.0.attn_q.weight"]
    assert one.dtype == other.dtype == "Q4_0"
    assert raw_bytes(one) == raw_bytes(other)
    errors = {matrix.name: matrix.rel_rms_error for matrix in report.matrices}
    # The second is BF16 in the one file and F16 in the other two.
    exact = [name for name, error in errors.items() if error == 0]
    assert exact == [one.name, "blk.0.ffn_up.weight"]
    assert any("5 matrices were rounded when this file was made" in w for w in report.warnings)
    damaged = bytearray((tmp_path / "model.edge").read_bytes())
    damaged[17_000] ^= 1
    (tmp_path / "damaged.edge").write_bytes(damaged)
    with pytest.raises(edgellm.IntegrityError):
        export(tmp_path / "damaged.edge", tmp_path / "none.gguf", "gguf-q4_0")


def raw_bytes(info: TensorInfo) -> bytes:
    return info.path.read_bytes()[info.offset_bytes : info.offset_bytes + info.n_bytes]


def test_what_llama_cpp_has_no_name_for_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo.gguf"
    assert run_command_line(["export", "demo", str(out), "--as", "gguf-q8_0"]) == Exit.UNSUPPORTED
    said = capsys.readouterr().err
    assert f"demo is {resolve('demo')}" in said
    assert "its way to cut texts, for which llama.cpp has no name" in said
    assert not out.exists()


def test_a_model_goes_out_with_tokenizer_and_template(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.edge"
    convert(shared_data / "models" / "seed6m", model, format="E4_16")
    out = str(tmp_path / "model.gguf")
    assert run_command_line(["export", str(model), out, "--as", "gguf-q8_0"]) == 0
    assert "are rounded again" in capsys.readouterr().err
    header = read_header(model)
    with open_checkpoint(tmp_path / "model.gguf") as checkpoint:
        job = Job(checkpoint, F16)
        template = checkpoint.optional_text("chat_template.jinja")
    assert template == bytes(read_tensor(header, "chat_template")).decode()
    spec = ModelSpec.from_json(header.metadata["edgellm.spec"])
    assert job.spec == replace(spec, eos_ids=job.spec.eos_ids)
    assert set(job.spec.eos_ids) >= set(spec.eos_ids)


@pytest.mark.parametrize("metadata", [BPE, SPM], ids=["bytes", "pieces"])
def test_a_compiled_vocabulary_comes_back(metadata: dict[str, Any]) -> None:
    source = Vocabulary(PATH, metadata).description()
    assert source is not None
    wanted = vocabulary_keys(Description(PATH, source.data), 270)
    blob = build_blob(PATH, source.data, Tokenizer.from_str(json.dumps(source.data)))
    assert vocabulary_keys(describe_compiled(PATH, blob), 270) == wanted
    named = {f"tokenizer.ggml.{key}": value for key, value in wanted.items()}
    check_same(PATH, blob, named)
    swapped = [*wanted["tokens"]]
    swapped[70], swapped[71] = swapped[71], swapped[70]
    with pytest.raises(edgellm.UnsupportedError, match="what it does with"):
        check_same(PATH, blob, named | {"tokenizer.ggml.tokens": swapped})


def test_what_is_refused(tmp_path: Path) -> None:
    gelu = checkpoint(tmp_path / "gelu", hidden_act="gelu")
    with pytest.raises(edgellm.UnsupportedError, match="ffn_act gelu"):
        export(gelu, tmp_path / "out.gguf", "gguf-f16")
    config = hf_config(case_named("mha_untied_head16")) | SHAPE | QWEN3 | {"rope_scaling": LLAMA3}
    qwen3 = write_checkpoint(tmp_path / "qwen3", config, extra=norms(config))
    with pytest.raises(edgellm.UnsupportedError, match="scaled rotary frequencies"):
        export(qwen3, tmp_path / "out.gguf", "gguf-f16")
    (tmp_path / "there.gguf").write_bytes(b"")
    with pytest.raises(edgellm.FormatError, match="exists"):
        export(checkpoint(tmp_path / "src"), tmp_path / "there.gguf", "gguf-f16")
    assert not list(tmp_path.glob("out*"))
    source = Vocabulary(PATH, BPE).description()
    assert source is not None
    split = {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": False}
    source.data["pre_tokenizer"]["pretokenizers"].insert(0, split)
    with pytest.raises(edgellm.UnsupportedError, match=r"llama\.cpp has no name"):
        vocabulary_keys(source, 260)
