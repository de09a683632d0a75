"""What a GGUF file says of a model: architecture, hyper-parameters, vocabulary.

The keys are those that gguf/config.py reads. Whether they say everything is not decided here: the
finished header is read again and compared (gguf_check.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import UnsupportedError

from ..embedding import read_embedding
from ..extras import chat_template, special_tokens
from ..gguf.architectures import ARCHITECTURES, Architecture
from ..gguf.checkpoint import GgufCheckpoint
from ..gguf.keys import POOLINGS
from ..plan import Job
from ..spec import ModelSpec
from .edge_source import EdgeCheckpoint
from .gguf_rope import rotation
from .plain import widths_differ

F32Array = npt.NDArray[np.float32]

_POOLING_NAMES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


@dataclass(frozen=True)
class Target:
    """arch: general.architecture. spec: what will be read from the file. keys: without the
    architecture in front. tensors: of rotary positions. divisors: what matrices of a role, and
    their biases, are divided by, the file having it as a key."""

    arch: str
    kind: Architecture
    spec: ModelSpec
    keys: Mapping[str, Any]
    tensors: Mapping[str, F32Array]
    divisors: Mapping[str, float]


def target_of(job: Job) -> Target:
    """UnsupportedError names what of the model has no place in its architecture's files. What is
    kept but not in full is a warning of the job."""
    spec = job.spec
    arch = next((name for name, kind in ARCHITECTURES.items() if spec.arch in kind.holds), None)
    if arch is None:
        raise UnsupportedError(
            f"models of the family '{spec.arch[:60]}' cannot be written to GGUF (those that can: "
            f"{', '.join(name for kind in ARCHITECTURES.values() for name in kind.holds)})",
            code="spec_unsupported",
        )
    kind = ARCHITECTURES[arch]
    turning = rotation(job, kind)
    lacking = [*kind.lacks(spec), *([turning.missing] if turning.missing else [])]
    # Layers without experts between those with: what such architectures have keys for.
    if widths_differ(spec) and not any(layer.n_experts for layer in spec.layers):
        lacking.append("layers that differ in width")
    if lacking:
        raise refused(arch, lacking)
    spec = _windowed(job, arch, kind)
    if kind.tied is False:
        spec = replace(spec, tied_head=False)
    divisors = job.arch.scales(job.config) or {}
    keys = _model_keys(arch, kind, spec) | dict(turning.keys)
    if arch == "granite":
        keys["residual_scale"] = next(iter(divisors.values()), 1.0)
    embedding = read_embedding(job.checkpoint)
    if embedding is not None and embedding["pooling"] in _POOLING_NAMES:
        named = {name: number for number, name in POOLINGS.items()}
        keys["pooling_type"] = named[_POOLING_NAMES[embedding["pooling"]]]
    return Target(arch, kind, spec, keys, turning.tensors, divisors)


def tokenizer_keys(job: Job) -> dict[str, Any]:
    """With "tokenizer." in front. A model without a tokenizer is written without one."""
    if isinstance(job.checkpoint, GgufCheckpoint):
        return job.checkpoint.vocabulary_keys()
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
    keys |= dict(zip(_END_KEYS, job.spec.eos_ids, strict=False))
    found = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    if isinstance(job.checkpoint, EdgeCheckpoint):
        job.checkpoint.check_vocabulary(found)
    template = chat_template(job)
    return found | ({"tokenizer.chat_template": template} if template else {})


def refused(arch: str, lacking: list[str]) -> UnsupportedError:
    """lacking: what the model has."""
    return UnsupportedError(
        f"llama.cpp's architecture '{arch}' has no place for what this model has: "
        f"{'; '.join(lacking[:4])}",
        code="spec_unsupported",
    )


def _windowed(job: Job, arch: str, kind: Architecture) -> ModelSpec:
    """llama.cpp has windows in few architectures. Within the window a model is the same without."""
    spec = job.spec
    windows = [layer.window for layer in spec.layers if layer.window]
    if not windows:
        return spec
    if arch == "phi3" and min(windows) < spec.n_ctx_train:
        job.warnings.append(
            f"llama.cpp does not honour the sliding window of {arch}: in texts of more than "
            f"{min(windows):,} tokens its answers are others"
        )
    if kind.has_windows:
        return spec
    n_ctx = min(spec.n_ctx_train, *windows)
    if n_ctx < spec.n_ctx_train:
        job.warnings.append(
            f"llama.cpp's '{arch}' knows no sliding window: the context is said to be {n_ctx:,} "
            "tokens, within which the model is the same"
        )
    layers = tuple(replace(layer, window=0) for layer in spec.layers)
    return replace(spec, n_ctx_train=n_ctx, layers=layers)


def _model_keys(arch: str, kind: Architecture, spec: ModelSpec) -> dict[str, Any]:
    layer = spec.layers[0]
    eps = "attention.layer_norm_rms_epsilon" if kind.rms else "attention.layer_norm_epsilon"
    keys: dict[str, Any] = {
        "context_length": spec.n_positions or spec.n_ctx_train,
        "embedding_length": spec.d_model,
        "block_count": len(spec.layers),
        "feed_forward_length": layer.d_ffn or layer.d_expert,
        "attention.head_count": layer.n_heads,
        "attention.head_count_kv": layer.n_kv_heads,
        "attention.key_length": layer.head_dim,
        "attention.value_length": layer.head_dim,
        eps: spec.norm_eps,
        "vocab_size": spec.n_vocab,
    }
    if layer.n_experts:
        keys |= {"expert_count": layer.n_experts, "expert_used_count": layer.n_experts_used}
    if arch in ("qwen2moe", "qwen3moe"):
        keys["feed_forward_length"] = layer.d_expert * layer.n_experts_used
        keys["expert_feed_forward_length"] = layer.d_expert
    if layer.d_shared:
        keys["expert_shared_feed_forward_length"] = layer.d_shared
    if arch in ("gptneox", "stablelm"):
        keys["use_parallel_residual"] = layer.parallel
    if arch == "granite":
        keys |= {
            "attention.scale": layer.attn_scale,
            "embedding_scale": spec.embed_scale,
            "logit_scale": 1.0,  # it is in the last norm
        }
    if arch == "gemma2":
        keys["attn_logit_softcapping"] = layer.attn_softcap
    if spec.final_softcap:
        keys["final_logit_softcapping"] = spec.final_softcap
    return keys | (_window_keys(arch, spec) if kind.has_windows else {})


def _window_keys(arch: str, spec: ModelSpec) -> dict[str, Any]:
    windows = [layer.window for layer in spec.layers]
    keys: dict[str, Any] = {}
    if any(windows):
        keys["attention.sliding_window"] = max(windows)
    period = {"gemma2": 2, "gemma3": 6}.get(arch)
    usual = [period is not None and index % period < period - 1 for index in range(len(windows))]
    is_sliding = [bool(window) for window in windows]
    if period is not None and is_sliding != usual and (arch == "gemma2" or any(windows)):
        keys["attention.sliding_window_pattern"] = is_sliding
    return keys
