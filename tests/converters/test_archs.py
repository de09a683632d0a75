"""archs/: what families make of other spellings of their configuration and of their tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import archs, convert, plan_conversion
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.export import export
from edgellm.converters.plan import Job, Options
from edgellm.converters.reference import Reference
from edgellm.converters.spec import ModelSpec
from safetensors.numpy import load_file, save_file

from edgellm.errors import EdgeError, FormatError, UnsupportedError
from golden.families import FAMILIES, family_ids, save_family
from golden.measures import max_abs

GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "head_dim": 8,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 7,
    "num_key_value_heads": 1,
    "vocab_size": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}


def spec_of(config: dict[str, Any]) -> ModelSpec:
    return archs.find(config).to_spec(archs.language_config(config), {})


def test_gemma3_says_its_windows_and_bases_in_two_ways() -> None:
    older = GEMMA3 | {
        "sliding_window": 9,
        "sliding_window_pattern": 3,
        "rope_theta": 5e5,
        "rope_local_base_freq": 2e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    sliding, full = "sliding_attention", "full_attention"
    newer = GEMMA3 | {
        "sliding_window": 9,
        "layer_types": [sliding, sliding, full, sliding, sliding, full, sliding],
        "rope_parameters": {
            full: {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
            sliding: {"rope_type": "default", "rope_theta": 2e4},
        },
    }
    assert spec_of(older) == spec_of(newer)
    assert [layer.window for layer in spec_of(older).layers] == [9, 9, 0, 9, 9, 0, 9]
    tables = [archs.find(config).tables(config) for config in (older, newer)]
    for name in ("rope_inv_freq", "rope_inv_freq_local"):
        assert np.array_equal(tables[0][name], tables[1][name])
    assert tables[0]["rope_inv_freq"][0] == np.float32(1 / 8)
    assert tables[0]["rope_inv_freq_local"][0] == 1


def test_an_absent_window_is_the_default_and_a_null_is_none() -> None:
    config = {"architectures": ["MistralForCausalLM"], "vocab_size": 64}
    assert spec_of(config).layers[0].window == 4096
    assert spec_of(config | {"sliding_window": None}).layers[0].window == 0


def test_the_model_type_names_the_family_where_no_class_is_named() -> None:
    config = {"model_type": "qwen2", "vocab_size": 64}
    assert spec_of(config).arch == "qwen2"
    with pytest.raises(UnsupportedError, match="'rwkv5' is not supported"):
        archs.find({"model_type": "rwkv5"})


@pytest.mark.parametrize(
    "config",
    [
        *({"architectures": [f"{name}Model"]} for name in ("Bert", "Roberta", "ModernBert", "T5")),
        *({"architectures": [f"{name}Model"]} for name in ("NomicBert", "XLMRoberta", "MPNet")),
        *({"architectures": [f"{name}Model"]} for name in ("DistilBert", "Electra", "DebertaV2")),
        {"architectures": ["T5EncoderModel"], "model_type": "t5"},
        {"architectures": ["BertForMaskedLM"], "model_type": "bert"},
        {"model_type": "nomic_bert"},
        {"model_type": "xlm-roberta"},
    ],
)
def test_encoders_are_out_of_scope_and_say_so(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=r"encoder-only .* out of scope for now"):
        archs.find(config)


def test_decoders_that_look_ahead_and_classifiers_are_refused() -> None:
    plain = {"architectures": ["Qwen2ForCausalLM"], "vocab_size": 64}
    with pytest.raises(UnsupportedError, match="is_causal = False"):
        spec_of(plain | {"is_causal": False})
    bare = {"architectures": ["Gemma3TextModel"], "model_type": "gemma3_text"}
    with pytest.raises(UnsupportedError, match="use_bidirectional_attention = True"):
        spec_of(GEMMA3 | bare | {"use_bidirectional_attention": True})
    assert spec_of(GEMMA3 | bare) == spec_of(GEMMA3)
    with pytest.raises(UnsupportedError, match="gives classes"):
        archs.find({"architectures": ["LlamaForSequenceClassification"]})


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("OlmoeForCausalLM", {"clip_qkv": 8.0}, "clip_qkv = 8.0"),
        ("StableLmForCausalLM", {"qk_layernorm": True}, "qk_layernorm = True"),
        ("Gemma2ForCausalLM", {"use_bidirectional_attention": True}, "use_bidirectional"),
        ("Gemma2ForCausalLM", {"hidden_activation": "tanh"}, "hidden_activation = 'tanh'"),
        (
            "Qwen2ForCausalLM",
            {"layer_types": ["chunked"] * 32, "use_sliding_window": True},
            "layer",
        ),
        ("GPT2LMHeadModel", {"add_cross_attention": True}, "add_cross_attention"),
        ("GraniteMoeHybridForCausalLM", {}, "num_local_experts = 8"),
        ("GraniteMoeHybridForCausalLM", {"num_local_experts": 0}, "state space layer"),
        ("Phi3ForCausalLM", {"lm_head_bias": True}, "lm_head_bias"),
        ("LlamaForCausalLM", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    ],
)
def test_what_a_family_does_not_honour_is_refused_by_name(
    name: str, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnsupportedError, match=said):
        spec_of({"architectures": [name], "vocab_size": 64, **change})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("SmolLM3ForCausalLM", {"no_rope_layers": [1, 0]}),
        ("SmolLM3ForCausalLM", {"no_rope_layer_interval": 0}),
        ("Gemma3ForCausalLM", {"sliding_window_pattern": 0}),
        ("Gemma2ForCausalLM", {"layer_types": "full_attention"}),
        ("Gemma2ForCausalLM", {"attn_logit_softcapping": -1.0}),
        ("MixtralForCausalLM", {"num_experts_per_tok": 9}),
        ("Qwen2MoeForCausalLM", {"decoder_sparse_step": 0}),
        ("GraniteForCausalLM", {"logits_scaling": 0.0}),
        ("GPTNeoXForCausalLM", {"rotary_pct": 1.5}),
        ("Phi3ForCausalLM", {"rope_scaling": {"type": "su", "short_factor": [1.0]}}),
        ("LlavaForConditionalGeneration", {"text_config": "llama"}),
        (
            "Qwen2ForCausalLM",
            {"sliding_window": 1 << 40, "use_sliding_window": True, "max_window_layers": 0},
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(EdgeError) as caught:
        spec_of({"architectures": [name], "vocab_size": 64, **change})
    assert isinstance(caught.value, FormatError | UnsupportedError)


JUNK = (None, -1, 0, 3, 10**400, 1e-300, 1e300, "x", ["x"] * 40, {"rope_type": "yarn"})


@pytest.mark.parametrize("name", archs.supported())
def test_whatever_stands_in_a_configuration_gives_a_spec_or_a_typed_error(name: str) -> None:
    """Every key that is read, with values that it should not have."""
    family: Any = archs.find({"architectures": [name]})
    plain = {"architectures": [name], "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
    plain |= {"num_local_experts": 0} if "Hybrid" in name else {}
    codes: set[str] = set()
    for key in family.defaults:
        for value in JUNK:
            config = plain | {key: value}
            try:
                spec = family.to_spec(config, {})
                family.tables(config)
                family.tensors(spec, config, ())
            except EdgeError as error:
                codes.add(error.code)
    assert codes <= {"json_type", "json_missing_key", "spec_invalid", "spec_unsupported"}


def test_rotary_parameters_that_make_no_sense_are_typed_errors() -> None:
    keys = ("factor", "original_max_position_embeddings", "rope_theta", "beta_fast", "mscale")
    keys += ("attention_factor", "partial_rotary_factor", "low_freq_factor", "truncate")
    factors = {"short_factor": [1.0] * 64, "long_factor": [1.0] * 64}
    n_refused = 0
    for kind in ("default", "linear", "llama3", "yarn", "longrope"):
        given = {"rope_type": kind, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        for key in keys:
            for value in JUNK:
                rope = given | (factors if kind == "longrope" else {}) | {key: value}
                config = {"architectures": ["LlamaForCausalLM"], "rope_parameters": rope}
                try:
                    spec_of(config)
                    archs.find(config).tables(config)
                except EdgeError:
                    n_refused += 1
    assert n_refused > 100


def test_a_configuration_of_a_billion_parts_is_refused_before_they_are_made() -> None:
    config = {"architectures": ["MixtralForCausalLM"], "num_hidden_layers": 1000}
    config |= {"num_local_experts": 1000, "vocab_size": 64}
    with pytest.raises(FormatError, match="parts of tensors") as caught:
        archs.find(config).tensors(spec_of(config), config, ())
    assert caught.value.code == "too_many_tensors"


def test_experts_may_be_stored_in_one_tensor(tmp_path: Path) -> None:
    directory, wanted = save_family("olmoe_full_norms", tmp_path / "one_by_one")
    stacked: dict[str, Any] = {}
    parts: dict[str, list[Any]] = {}
    for name, value in load_file(directory / "model.safetensors").items():
        head, dot, rest = name.partition(".experts.")
        if not dot:
            stacked[name] = value
            continue
        parts.setdefault(f"{head}.experts.{rest.split('.')[1]}", []).append(
            (int(rest.split(".")[0]), value)
        )
    for prefix in {name.rpartition(".")[0] for name in parts}:
        gate, up, down = (
            np.stack(
                [value for _, value in sorted(parts[f"{prefix}.{role}_proj"], key=lambda p: p[0])]
            )
            for role in ("gate", "up", "down")
        )
        stacked[f"{prefix}.gate_up_proj"] = np.concatenate([gate, up], axis=1)
        stacked[f"{prefix}.down_proj"] = down
    other = tmp_path / "stacked"
    other.mkdir()
    save_file(stacked, other / "model.safetensors")
    (other / "config.json").write_text((directory / "config.json").read_text())
    got = Reference.from_checkpoint(other).logits(family_ids("olmoe_full_norms")).numpy()
    assert max_abs(wanted, got) <= 1e-4 * np.abs(wanted).max()


def wrapped_checkpoint(directory: Path, prefix: str, head: str) -> tuple[Path, Any]:
    """A model that sees, whose language model is Gemma 3, under one of the spellings in use."""
    inner, wanted = save_family("gemma3_two_bases", directory / "inner")
    outer = directory / "outer"
    outer.mkdir()
    tensors = {
        name.replace("model.", prefix, 1): value
        for name, value in load_file(inner / "model.safetensors").items()
    }
    tensors |= {
        f"{head}vision_tower.layers.0.weight": np.ones((4, 4), dtype=np.float32),
        f"{head}multi_modal_projector.weight": np.ones((2, 4), dtype=np.float32),
    }
    save_file(tensors, outer / "model.safetensors")
    text = json.loads((inner / "config.json").read_text())
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "eos_token_id": [3, 4],
        "text_config": {
            k: v for k, v in text.items() if k not in ("architectures", "eos_token_id")
        },
        "vision_config": {"hidden_size": 4},
    }
    (outer / "config.json").write_text(json.dumps(config))
    return outer, wanted


@pytest.mark.parametrize(
    ("prefix", "head"), [("language_model.model.", ""), ("model.language_model.", "model.")]
)
def test_a_model_that_sees_converts_its_language_model_and_says_so(
    prefix: str, head: str, tmp_path: Path
) -> None:
    source, wanted = wrapped_checkpoint(tmp_path, prefix, head)
    ids = family_ids("gemma3_two_bases")
    got = Reference.from_checkpoint(source)
    assert got.spec.eos_ids == (3, 4)
    assert max_abs(wanted, got.logits(ids).numpy()) <= 1e-4 * np.abs(wanted).max()
    report = convert(source, tmp_path / "x.edge")
    left_out = next(text for text in report.warnings if "left out" in text)
    assert "2 tensors" in left_out
    assert "multi_modal_projector, vision_tower" in left_out


def test_rotary_sections_of_a_vision_model_are_one_rotation_in_a_text() -> None:
    config = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": {"depth": 2},
        "vision_start_token_id": 5,
    }
    spec = spec_of(config)
    assert (spec.arch, spec.n_rope, spec.layers[0].qkv_bias) == ("qwen2", 16, True)


def test_parts_of_a_tensor_are_the_same_in_any_blocks(tmp_path: Path) -> None:
    """Rows of views that cross the borders of their parts."""
    for name in ("gpt_neox_parallel", "gpt2_learned_positions", "mixtral_window"):
        directory, _ = save_family(name, tmp_path / name)
        with Checkpoint(directory) as checkpoint:
            job = Job(checkpoint, Options("F16", None, None, None))
            views = [item for item in job.planned if " -> " in str(item.source)]
            assert views
            for item in views[:12]:
                n_rows = item.rows_cols[0]
                whole = job.read_rows(item, 0, n_rows)
                pieces = [job.read_rows(item, i, min(7, n_rows - i)) for i in range(0, n_rows, 7)]
                assert np.array_equal(whole, np.concatenate(pieces)), item.name


def test_a_fused_tensor_of_another_shape_is_refused_by_its_own_name(tmp_path: Path) -> None:
    directory, _ = save_family("phi3_longrope", tmp_path / "phi3")
    tensors = load_file(directory / "model.safetensors")
    name = "model.layers.0.self_attn.qkv_proj.weight"
    tensors[name] = tensors[name][:-1].copy()
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(FormatError, match=name) as caught:
        plan_conversion(directory)
    assert caught.value.code == "tensor_shape"


@pytest.mark.parametrize("kind", ["fp8-tensor", "w8a8-onnx"])
def test_what_is_not_llamas_is_not_exported(kind: str, tmp_path: Path) -> None:
    if kind == "w8a8-onnx":
        pytest.importorskip("onnx")
    directory, _ = save_family("mistral_window", tmp_path / "source")
    with pytest.raises(UnsupportedError, match="also has window"):
        export(directory, tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_every_family_has_a_row() -> None:
    in_rows = {archs.find({"model_type": row["model_type"]}) for row in FAMILIES.values()}
    assert in_rows == {archs.find({"architectures": [name]}) for name in archs.supported()}
