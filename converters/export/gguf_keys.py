"""What a GGUF file says of a model: architecture, hyper-parameters, vocabulary.

llama.cpp has an architecture for each family; those written here are told apart by their blocks:
"llama" (plain), "qwen2" (biases of q, k and v), "qwen3" (a norm of each head's query and key).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import UnsupportedError

from ..extras import chat_template, special_tokens
from ..plan import Job
from ..spec import LayerSpec, ModelSpec

F32Array = npt.NDArray[np.float32]

# Of the layers, beside Llama's.
_BLOCKS: Mapping[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
}
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_SAME = 1e-5  # relative; two ways to compute a rotary frequency


@dataclass(frozen=True)
class Target:
    """in_pairs: rotary dimensions are neighbours there. theta: base of the rotation. factors:
    float32, what its frequencies are divided by beside that; none if empty."""

    arch: str
    in_pairs: bool
    theta: float
    factors: F32Array


def target_of(job: Job) -> Target:
    """UnsupportedError names what of the model has no place in these architectures."""
    arch = _arch(job.spec)
    theta = _theta(job.config)
    table = job.tables.get("rope_inv_freq")
    if table is None or job.spec.rope_factor != 1 or job.spec.n_ctx_original:
        raise _refused("rotary positions other than plain or scaled ones")
    exponents = np.arange(0, job.spec.n_rope, 2) / job.spec.n_rope
    factors = (1 / np.power(theta, exponents) / table).astype(np.float32)
    if np.allclose(factors, 1, rtol=_SAME, atol=0):
        factors = np.empty(0, dtype=np.float32)
    elif arch != "llama":
        raise _refused(f"scaled rotary frequencies in the architecture '{arch}'")
    return Target(arch, arch == "llama", theta, factors)


def model_keys(job: Job, target: Target) -> dict[str, Any]:
    """Without the architecture in front."""
    spec, layer = job.spec, job.spec.layers[0]
    return {
        "context_length": spec.n_ctx_train,
        "embedding_length": spec.d_model,
        "block_count": len(spec.layers),
        "feed_forward_length": layer.d_ffn,
        "attention.head_count": layer.n_heads,
        "attention.head_count_kv": layer.n_kv_heads,
        "attention.key_length": layer.head_dim,
        "attention.value_length": layer.head_dim,
        "attention.layer_norm_rms_epsilon": spec.norm_eps,
        "rope.dimension_count": spec.n_rope,
        "rope.freq_base": target.theta,
        "vocab_size": spec.n_vocab,
    }


def tokenizer_keys(job: Job) -> dict[str, Any]:
    """With "tokenizer." in front. A model without a tokenizer is written without one."""
    source = job.checkpoint.tokenizer_description()
    keys: dict[str, Any] = {"model": "none"}
    if source is None:
        job.warnings.append("no tokenizer files: llama.cpp will know the model's ids only")
    else:
        from ..gguf.vocabulary_keys import vocabulary_keys

        keys = vocabulary_keys(source, job.spec.n_vocab)
    pad = special_tokens(job).get("pad_token")
    if pad in keys.get("tokens", ()):
        keys["padding_token_id"] = keys["tokens"].index(pad)
    if job.spec.bos_id >= 0:
        keys["bos_token_id"] = job.spec.bos_id
    for key, id_ in zip(
        ("eos_token_id", "eot_token_id", "eom_token_id"), job.spec.eos_ids, strict=False
    ):
        keys[key] = id_
    found = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    template = chat_template(job)
    return found | ({"tokenizer.chat_template": template} if template else {})


def _arch(spec: ModelSpec) -> str:
    first = spec.layers[0]
    if any(layer != first for layer in spec.layers):
        raise _refused("layers that differ")
    plain = LayerSpec(first.n_heads, first.n_kv_heads, first.head_dim, first.d_ffn)
    needed = {f.name for cls in (ModelSpec, LayerSpec) for f in fields(cls) if f.default is MISSING}
    value = spec.to_dict()
    found = [arch for arch, own in _BLOCKS.items() if replace(plain, **own) == first]
    if not found or set(value) - needed:
        other = (set(value) | set(value["layers"][0])) - needed
        raise _refused(", ".join(sorted(other)))
    if spec.n_rope != first.head_dim:
        raise _refused("heads of which a part turns")
    return found[0]


def _theta(config: Mapping[str, Any]) -> float:
    """As the families read it: of the newer object, else beside."""
    parameters = config.get("rope_parameters")
    nested = parameters.get("rope_theta") if isinstance(parameters, dict) else None
    return float(nested or config.get("rope_theta") or 10000.0)


def _refused(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"GGUF is written for models of the blocks of Llama, Qwen 2 and Qwen 3 only; this one has "
        f"{what}",
        code="spec_unsupported",
    )
