"""ModelSpec: the JSON round trip and what is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from edgellm.converters.spec import LayerSpec, ModelSpec
from hypothesis import given
from hypothesis import strategies as st

from edgellm.errors import FormatError

LAYER = LayerSpec(n_heads=8, n_kv_heads=4, head_dim=8, d_ffn=172)
SPEC = ModelSpec(
    arch="llama",
    n_vocab=512,
    d_model=64,
    n_ctx_train=256,
    norm_eps=1e-5,
    tied_head=True,
    n_rope=8,
    rope_factor=1.0,
    bos_id=1,
    eos_ids=(1, 2),
    layers=(LAYER, replace(LAYER, head_dim=16, d_ffn=1)),
)


def test_json_round_trip_is_exact() -> None:
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC


@given(
    n_kv_heads=st.integers(1, 32),
    group=st.integers(1, 32),
    half_dim=st.integers(1, 512),
    eps=st.floats(1e-12, 1e-3),
)
def test_every_valid_spec_survives_the_round_trip(
    n_kv_heads: int, group: int, half_dim: int, eps: float
) -> None:
    layer = LayerSpec(n_kv_heads * group, n_kv_heads, 2 * half_dim, 7)
    spec = replace(SPEC, layers=(layer,), n_rope=2 * half_dim, norm_eps=eps)
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_what_has_its_default_is_left_out_of_the_text() -> None:
    keys = ("arch", "n_vocab", "d_model", "n_ctx_train", "norm_eps", "tied_head", "n_rope")
    keys += ("rope_factor", "bos_id", "eos_ids", "layers")
    value = json.loads(SPEC.to_json())
    assert tuple(value) == keys
    assert tuple(value["layers"][0]) == ("n_heads", "n_kv_heads", "head_dim", "d_ffn")


MOE = replace(LAYER, d_ffn=0, n_experts=4, n_experts_used=2, d_expert=20, d_shared=24)
CONV = LayerSpec(0, 0, 0, 7, mixer="short_conv", conv_kernel=3)
FEATURES = replace(
    SPEC,
    norm="layer",
    embed_scale=8.0,
    final_softcap=30.0,
    n_positions=300,
    rope_local_factor=1.25,
    n_ctx_original=64,
    tied_head=False,
    headless=True,
    layers=(
        replace(LAYER, rope="local", window=9, post_norm=True, qkv_bias=True, o_bias=True),
        replace(LAYER, parallel=True, ffn_bias=True, qk_norm="full", ffn_gated=False),
        replace(LAYER, balance_keys=True),
        CONV,
        replace(LAYER, pre_norm=False, attn_scale=0.5, attn_softcap=50.0, ffn_act="gelu_tanh"),
        replace(
            MOE, shared_gate=True, norm_topk=True, rope="none", qk_norm="head", rotate_keys=True
        ),
    ),
)


def test_every_key_survives_the_round_trip_and_is_written_where_it_is_no_default() -> None:
    text = FEATURES.to_json()
    assert ModelSpec.from_json(text) == FEATURES
    assert ModelSpec.from_json(text).to_json() == text
    written = {key for layer in json.loads(text)["layers"] for key in layer}
    assert written == {field.name for field in fields(LayerSpec)}
    assert set(json.loads(text)) == {field.name for field in fields(ModelSpec)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"norm": "batch"}, "'norm' is 'batch', allowed is rms, layer"),
        ({"embed_scale": 0.0}, "'embed_scale' is 0.0"),
        ({"final_softcap": -1.0}, "'final_softcap' is -1.0, allowed is 0 or"),
        ({"n_positions": -1}, "'n_positions' is -1"),
        ({"n_positions": 255}, "'n_ctx_train' is 256, it must be at most n_positions (255)"),
        ({"n_rope": 0, "n_ctx_original": 1}, "'n_ctx_original' is 1"),
        ({"headless": True}, "'headless' is true, which excludes tied_head"),
        ({"rope_local_factor": float("inf")}, "'rope_local_factor' is inf"),
    ],
)
def test_values_of_newer_keys_are_checked_too(change: dict[str, object], said: str) -> None:
    with pytest.raises(FormatError) as caught:
        replace(SPEC, **change)  # type: ignore[arg-type]
    assert caught.value.code == "spec_invalid"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "change", "key"),
    [
        (LAYER, {"rope": "half"}, "rope"),
        (LAYER, {"qk_norm": "rms"}, "qk_norm"),
        (LAYER, {"ffn_act": "tanh"}, "ffn_act"),
        (LAYER, {"window": (1 << 24) + 1}, "window"),
        (LAYER, {"attn_scale": 1e31}, "attn_scale"),
        (LAYER, {"attn_softcap": float("nan")}, "attn_softcap"),
        (LAYER, {"parallel": True, "post_norm": True}, "parallel"),
        (LAYER, {"parallel": True, "pre_norm": False}, "parallel"),
        (LAYER, {"balance_keys": True, "attn_softcap": 30.0}, "balance_keys"),
        (LAYER, {"d_ffn": 0}, "d_ffn"),
        (LAYER, {"n_experts_used": 1}, "n_experts_used"),
        (LAYER, {"d_expert": 8}, "d_expert"),
        (LAYER, {"d_shared": 8}, "d_shared"),
        (LAYER, {"norm_topk": True}, "norm_topk"),
        (LAYER, {"shared_gate": True}, "shared_gate"),
        (MOE, {"n_experts": 1025}, "n_experts"),
        (MOE, {"n_experts_used": 0}, "n_experts_used"),
        (MOE, {"n_experts_used": 5}, "n_experts_used"),
        (MOE, {"d_expert": 0}, "d_expert"),
        (MOE, {"d_ffn": 172}, "d_ffn"),
        (MOE, {"d_shared": 0, "shared_gate": True}, "shared_gate"),
        (MOE, {"ffn_bias": True}, "ffn_bias"),
        (MOE, {"ffn_gated": False}, "ffn_gated"),
        (LAYER, {"mixer": "mamba2"}, "mixer"),
        (LAYER, {"mixer": "short_conv", "conv_kernel": 3}, "n_heads"),
        (LAYER, {"conv_kernel": 3}, "conv_kernel"),
        (CONV, {"mixer": "gqa"}, "conv_kernel"),
        (CONV, {"conv_kernel": 1}, "conv_kernel"),
        (CONV, {"conv_kernel": 17}, "conv_kernel"),
        (CONV, {"head_dim": 8}, "head_dim"),
        (CONV, {"window": 4}, "window"),
        (CONV, {"qk_norm": "head"}, "qk_norm"),
        (CONV, {"balance_keys": True}, "balance_keys"),
    ],
)
def test_values_of_a_layer_must_go_together(
    layer: LayerSpec, change: dict[str, object], key: str
) -> None:
    with pytest.raises(FormatError) as caught:
        replace(SPEC, layers=(LAYER, replace(layer, **change)))  # type: ignore[arg-type]
    assert caught.value.code == "spec_invalid"
    assert f"layers[1]: '{key}' is" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "key"),
    [({"window": 2.5}, "window"), ({"qkv_bias": 1}, "qkv_bias"), ({"rope": 1}, "rope")],
)
def test_wrong_types_in_a_layer_are_told_apart(change: dict[str, object], key: str) -> None:
    with pytest.raises(FormatError, match=f"'{key}' must be") as caught:
        replace(SPEC, layers=(replace(LAYER, **change),))  # type: ignore[arg-type]
    assert caught.value.code == "json_type"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_vocab": 0}, "'n_vocab' is 0, allowed is 1 to 16777216"),
        ({"d_model": 65537}, "'d_model' is 65537"),
        ({"norm_eps": 0.0}, "'norm_eps' is 0.0"),
        ({"norm_eps": float("nan")}, "'norm_eps' is nan"),
        ({"rope_factor": float("inf")}, "'rope_factor' is inf"),
        ({"n_rope": 7}, "'n_rope' is 7, it must be even"),
        ({"n_rope": 10}, "'head_dim' is 8, it must be at least n_rope (10)"),
        ({"bos_id": 512}, "'bos_id' is 512, allowed is -1 to 511"),
        ({"eos_ids": (512,)}, "'eos_ids[0]' is 512"),
        ({"layers": ()}, "layers (their number)"),
        ({"layers": (LAYER,) * 1025}, "layers (their number)"),
        ({"layers": (replace(LAYER, n_kv_heads=3),)}, "'n_kv_heads' is 3, it must divide"),
        ({"layers": (replace(LAYER, head_dim=9),)}, "'head_dim' is 9, it must be even"),
    ],
)
def test_values_outside_their_range_are_refused_by_name(
    change: dict[str, object], said: str
) -> None:
    with pytest.raises(FormatError) as caught:
        replace(SPEC, **change)  # type: ignore[arg-type]
    assert caught.value.code == "spec_invalid"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda v: v.update(windows=1), "json_unknown_key"),
        (lambda v: v["layers"][1].update(windows=1), "json_unknown_key"),
        (lambda v: v.pop("bos_id"), "json_missing_key"),
        (lambda v: v["layers"][0].pop("d_ffn"), "json_missing_key"),
        (lambda v: v.update(d_model="64"), "json_type"),
        (lambda v: v.update(d_model=True), "json_type"),
        (lambda v: v.update(layers={}), "json_type"),
        (lambda v: v.update(eos_ids=[1.5]), "json_type"),
        (lambda v: v["layers"].append(3), "json_type"),
    ],
)
def test_wrong_keys_and_types_have_codes_of_their_own(edit: object, code: str) -> None:
    value = json.loads(SPEC.to_json())
    edit(value)  # type: ignore[operator]
    with pytest.raises(FormatError) as caught:
        ModelSpec.from_json(json.dumps(value))
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["", "[]", "nul", SPEC.to_json() + "x", "[" * 100_000])
def test_text_that_is_not_a_spec_is_a_format_error(text: str) -> None:
    with pytest.raises(FormatError):
        ModelSpec.from_json(text)


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(FormatError, match="stands twice"):
        ModelSpec.from_json(SPEC.to_json().replace('"arch"', '"bos_id":3,"arch"', 1))
