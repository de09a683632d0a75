"""Second link of the golden chain: the native runtime, through the public SDK, against the oracle.

Files with act="f32" have no rounding of activations, so the runtime must equal the reference on
the same dequantized weights; files with default activations are judged by their KL divergence.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert
from edgellm.converters.reference import Reference

import edgellm
from golden.measures import max_abs, mean_kl, nmse
from golden.tiny import (
    CASE_NAMES,
    SHARED_MODELS,
    case_ids,
    case_named,
    shared_data,
    shared_model,
    tiny_checkpoint,
)

FORMATS = ("E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32", "F16")
MakeEdge = Callable[..., Path]


@pytest.fixture(scope="module")
def make_edge(tmp_path_factory: pytest.TempPathFactory) -> MakeEdge:
    """Converts a shared model once per (model, format, act)."""
    folder = tmp_path_factory.mktemp("edge")

    def make(model: str, format: str, act: str | None = None) -> Path:
        act = "f32" if format == "F16" else act  # its only one
        out = folder / f"{model}-{format}-{act}.edge"
        if not out.exists():
            convert(shared_model(model), out, format=format, act=act)
        return out

    return make


def native_logits(path: Path, ids: list[int]) -> npt.NDArray[np.float32]:
    with edgellm.load(path, kv="F16", verify="never") as model:
        return model.logits(ids)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", CASE_NAMES)
def test_native_equals_the_reference_on_tiny_models(name: str, format: str, tmp_path: Path) -> None:
    case = case_named(name)
    out = tmp_path / "model.edge"
    convert(tiny_checkpoint(tmp_path, case), out, format=format, act="f32")
    ids = case_ids(case)
    wanted = Reference.from_edge(out).logits(ids, kv="F16").numpy()
    assert nmse(wanted, native_logits(out, ids)) <= 1e-6


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("model", SHARED_MODELS)
def test_native_equals_the_reference_on_real_models(
    model: str, format: str, make_edge: MakeEdge
) -> None:
    path = make_edge(model, format, "f32")
    with np.load(shared_model(model) / "expected" / "logits64.npz") as expected:
        ids = expected["input_ids"].tolist()
    wanted = Reference.from_edge(path).logits(ids, kv="F16").numpy()
    assert nmse(wanted, native_logits(path, ids)) <= 1e-6


@pytest.mark.parametrize("model", SHARED_MODELS)
def test_f16_logits_are_as_close_to_fp32_as_f16_storage_allows(
    model: str, make_edge: MakeEdge
) -> None:
    """5e-3, unless rounding weights and KV to f16 alone costs more: the oracle knows how much."""
    path = make_edge(model, "F16")
    with np.load(shared_model(model) / "expected" / "logits64.npz") as expected:
        ids, wanted = expected["input_ids"].tolist(), expected["logits"]
    rounded = Reference.from_edge(path).logits(ids, kv="F16").numpy()
    storage_error = max_abs(wanted, rounded)
    native_error = max_abs(wanted, native_logits(path, ids))
    print(f"{model}: F16 max abs {native_error:.2e}, of which storage {storage_error:.2e}")
    assert native_error <= max(5e-3, 1.1 * storage_error)


@pytest.mark.parametrize("model", SHARED_MODELS)
def test_f16_gives_the_expected_greedy_tokens(model: str, make_edge: MakeEdge) -> None:
    expected = np.load(shared_model(model) / "expected" / "greedy.npz")
    with edgellm.load(make_edge(model, "F16"), kv="F16", verify="never") as native:
        for i in range(3):
            prompt = expected[f"prompt_ids_{i}"].tolist()
            wanted = expected[f"output_ids_{i}"].tolist()
            got = native.generate(prompt, max_tokens=len(wanted), stop_ids=())
            assert got.token_ids == wanted, f"prompt {i}"


# Nats per token against float32, per format; stories260K is reported only.
KL_LIMITS = {"E8_32": 1e-3, "E4_16": 0.05, "E4_32": 0.08}
# The long text for babyllama is lower-cased and partly <unk> to it, unlike what it was trained on:
# 0.064 (E4_16) and 0.082 (E4_32) measured there.
LONG_TEXT_LIMITS = {
    "babyllama-tok105": {"E8_32": 1e-3, "E4_16": 0.08, "E4_32": 0.10},
    "seed6m": KL_LIMITS,
}


@pytest.mark.parametrize("format", KL_LIMITS)
@pytest.mark.parametrize("model", SHARED_MODELS)
def test_quantized_models_stay_close_to_fp32(model: str, format: str, make_edge: MakeEdge) -> None:
    path = make_edge(model, format)
    directory = shared_model(model)
    fp32 = Reference.from_checkpoint(directory)
    with np.load(directory / "expected" / "logits64.npz") as expected:
        sequences = [expected["input_ids"].tolist()]
    sequences += _long_texts(model, n_tokens=min(256, fp32.spec.n_ctx_train), n_sequences=6)
    kls = []
    with edgellm.load(path, kv="F16", verify="never") as native:
        for ids in sequences:
            kls.append(mean_kl(fp32.logits(ids).numpy(), native.logits(ids)))
    n_tokens = sum(map(len, sequences[1:]))
    mean = float(np.mean(kls[1:]))
    print(f"{model} {format}: KL {kls[0]:.5f} on 64 tokens, {mean:.5f} on {n_tokens} tokens")
    assert all(np.isfinite(kls))
    if model != "stories260K":
        assert kls[0] < KL_LIMITS[format]
        assert mean < LONG_TEXT_LIMITS[model][format]


def _long_texts(model: str, *, n_tokens: int, n_sequences: int) -> list[list[int]]:
    """Held-out text of the model's own kind, as BOS and n_tokens - 1 tokens each."""
    from tokenizers import Tokenizer

    directory = shared_model(model)
    if model == "seed6m":
        documents = []
        with lzma.open(shared_data("corpus", "valid.jsonl.xz"), "rt", encoding="utf-8") as lines:
            for line in lines:
                documents.append(json.loads(line)["text"])
                if len(documents) == 40:
                    break
        text = "\n".join(documents)
    else:
        text = shared_data("text", "tinystories_hw_train.txt").read_text(encoding="utf-8")[:12000]
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    bos_id = json.loads((directory / "config.json").read_text(encoding="utf-8"))["bos_token_id"]
    step = n_tokens - 1
    runs = [ids[i * step : (i + 1) * step] for i in range(n_sequences)]
    assert all(len(run) == step for run in runs)
    return [[bos_id, *run] for run in runs]
