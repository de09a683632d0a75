"""A small model to prune, and text to score it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from edgellm.converters import CalibrationTokens
from edgellm.converters.prune import PredictOptions, PruneOptions, prune

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 16,
    "vocab_size": 97,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOWS = np.random.default_rng(5).integers(0, 97, (6, 24)).astype(np.int32)
TEXT = CalibrationTokens(WINDOWS)
IDS = WINDOWS[0].tolist()
FIXED = PredictOptions("E4_16", bandwidth_gb_per_s=10.0)


def pruned(source: Path, out: Path, **options: object) -> Path:
    prune(source, out, PruneOptions(**options), texts=TEXT, predict_options=FIXED)  # type: ignore[arg-type]
    return out
