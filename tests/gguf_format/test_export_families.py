"""Every family out and in: a Hugging Face directory written as GGUF gives the same model when our
reader reads it, and the package gguf finds the tensors that llama.cpp asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.export import export
from edgellm.converters.gguf.architectures import ARCHITECTURES
from edgellm.converters.gguf.dequantize import dequantize
from edgellm.converters.gguf.reader import read_gguf
from edgellm.converters.plan import Job, Options
from edgellm.converters.safetensors_header import TensorInfo
from edgellm.converters.sources import open_checkpoint

import edgellm
from gguf_format.families import WITHOUT, write_gguf
from golden.families import FAMILIES, family_model

gguf = pytest.importorskip("gguf", reason="the package gguf is the oracle here")

F16 = Options("F16", None, None, None)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "attention_factor": 1.7,
}
# What llama.cpp's code lacks, replaced in the rows of golden/families.toml beside WITHOUT.
LACKS: dict[str, dict[str, Any]] = {
    "olmo2_post_norms": {"attention_bias": False},
    "olmoe_full_norms": {"attention_bias": False, "num_key_value_heads": 6},
}
READ_ONLY = ("lfm2_convolutions",)


def saved(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    """The model of a row, saved; its matrices hold binary16 numbers only."""
    import torch

    row = FAMILIES[name] | WITHOUT[name] | LACKS.get(name, {}) | changes
    monkeypatch.setitem(FAMILIES, name, row)
    model = family_model(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", [name for name in WITHOUT if name not in READ_ONLY])
def test_out_and_in_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(name, tmp_path / "hf", monkeypatch)
    report = export(tmp_path / "hf", tmp_path / "out.gguf", "gguf-f16")
    notes = [text for text in report.warnings if "llama.cpp's" in text or "honour" in text]
    assert len(notes) == (name == "phi3_longrope")
    with (
        open_checkpoint(tmp_path / "hf") as one,
        open_checkpoint(tmp_path / "out.gguf") as other,
    ):
        wanted, got = Job(one, F16), Job(other, F16)
        arch = read_gguf(tmp_path / "out.gguf").metadata["general.architecture"]
        tied = wanted.spec.tied_head and ARCHITECTURES[arch].tied is not False
        assert got.spec == replace(wanted.spec, arch=got.spec.arch, tied_head=tied)
        for key, table in wanted.tables.items():
            assert np.allclose(got.tables[key], table, rtol=1e-6, atol=0), key
        read = {item.name: item for item in got.planned}
        for item in wanted.planned:
            if item.source is not None:
                rows = wanted.read_rows(item, 0, item.rows_cols[0])
                again = got.read_rows(read[item.name], 0, item.rows_cols[0])
                # Granite's biases are divided by what a key says, and multiplied again.
                limit = 1e-6 if item.role in ("attn_o_bias", "ffn_down_bias") else 0
                assert np.allclose(again, rows, rtol=limit, atol=0), item.name
    same_as_theirs(tmp_path / "out.gguf", write_gguf(model, tmp_path / "theirs.gguf"))


def same_as_theirs(path: Path, other: Path) -> None:
    """What llama.cpp's converter would have written: names, shapes, numbers, keys."""
    ours, theirs = read_gguf(path), read_gguf(other)
    scaled = {"output_norm.weight"} if "granite.logit_scale" in ours.metadata else set()
    assert not theirs.tensors.keys() - ours.tensors.keys()
    assert ours.tensors.keys() - theirs.tensors.keys() <= {"output.weight"}
    for name, info in theirs.tensors.items():
        assert ours.tensors[name].shape == info.shape, name
        if name not in scaled:
            biased = name.endswith(("attn_output.bias", "ffn_down.bias"))
            limit = 1e-6 if biased else 0
            assert np.allclose(values(ours.tensors[name]), values(info), rtol=limit, atol=0), name
    # Granite's is in the norm; with experts alone nobody reads the other.
    passed = ("logit_scale", "moe.feed_forward_length")
    for key, value in theirs.metadata.items():
        if key in ours.metadata and not key.endswith(passed):
            number = isinstance(value, float)
            assert ours.metadata[key] == (pytest.approx(value) if number else value), key


def values(info: TensorInfo) -> Any:
    raw = np.fromfile(info.path, np.uint8, info.n_bytes, offset=info.offset_bytes)
    return dequantize(raw.reshape(1, -1), info.dtype)


@pytest.mark.parametrize(
    ("name", "changes", "what"),
    [
        ("olmo2_post_norms", {"attention_bias": True}, "o_bias in every layer"),
        ("olmoe_full_norms", {"num_key_value_heads": 2}, "fewer heads of keys"),
        ("qwen2_moe_shared_expert", {"mlp_only_layers": [1]}, "beside layers without"),
        ("qwen2_moe_shared_expert", {"norm_topk_prob": True}, "norm_topk True"),
        ("gemma_zero_centred_norms", {"tie_word_embeddings": False}, "a head beside"),
        ("gemma2_caps_windows", {"attn_logit_softcapping": None}, "no attn_softcap"),
        ("smollm3_nope_layers", {"no_rope_layer_interval": 2}, "rope none .* in layer 1"),
        ("qwen2_upper_windows_yarn", {"rope_parameters": YARN}, "attention factor"),
        ("stablelm_sequential", {"rope_parameters": LLAMA3}, "scaled rotary frequencies"),
        ("lfm2_convolutions", {}, "family 'lfm2' cannot be written to GGUF"),
    ],
)
def test_what_llama_cpp_lacks_is_refused_by_name(
    name: str, changes: dict[str, Any], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(name, tmp_path / "hf", monkeypatch, **changes)
    with pytest.raises(edgellm.UnsupportedError, match=what):
        export(tmp_path / "hf", tmp_path / "out.gguf", "gguf-f16")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_window_without_a_key_shortens_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved("mistral_window", tmp_path / "hf", monkeypatch, sliding_window=9)
    report = export(tmp_path / "hf", tmp_path / "out.gguf", "gguf-q8_0")
    assert any("context is said to be 9 tokens" in text for text in report.warnings)
    with open_checkpoint(tmp_path / "out.gguf") as checkpoint:
        spec = Job(checkpoint, F16).spec
    assert spec.n_ctx_train == 9
    assert not any(layer.window for layer in spec.layers)


@pytest.mark.parametrize(
    "name",
    ["granite_multipliers", "gemma3_two_bases", "phi3_longrope", "qwen3_moe_sparse_step"],
)
def test_a_converted_model_goes_out_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file says what the original's says, and in F16, which both have, the same numbers."""
    saved(name, tmp_path / "hf", monkeypatch)
    export(tmp_path / "hf", tmp_path / "direct.gguf", "gguf-f16")
    convert(tmp_path / "hf", tmp_path / "model.edge", format="F16")
    export(tmp_path / "model.edge", tmp_path / "out.gguf", "gguf-f16")
    direct, out = read_gguf(tmp_path / "direct.gguf"), read_gguf(tmp_path / "out.gguf")
    assert out.metadata == {key: pytest.approx(v) for key, v in direct.metadata.items()}
    assert list(out.tensors) == list(direct.tensors)
    for tensor, info in direct.tensors.items():
        # What Granite's factor has changed was rounded when it was converted.
        limit = 2e-3 if name.startswith("granite") else 1e-6
        again = values(out.tensors[tensor])
        assert np.allclose(again, values(info), rtol=limit, atol=1e-6), tensor
