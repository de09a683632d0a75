"""What a loaded model is and what it costs, gathered from its file and the runtime."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from .results import ModelInfo

if TYPE_CHECKING:
    from . import _native as native_module


def model_info(native: native_module.Model, path: Path) -> ModelInfo:
    """`Model.info()` of the file at `path`."""
    from . import _native

    metadata = native.metadata
    tensors = [t for t in json.loads(metadata["edgellm.tensors"]).values() if t["format"] != "U8"]
    return ModelInfo(
        path=str(path),
        file_bytes=native.file_bytes,
        n_vocab=native.n_vocab,
        n_ctx=native.n_ctx_train,
        n_layers=len(json.loads(native.spec_json)["layers"]),
        n_parameters=sum(math.prod(t["shape"]) for t in tensors),
        weight_formats=dict(Counter(t["format"] for t in tensors)),
        eos_ids=native.eos_ids,
        has_tokenizer=native.tokenizer is not None,
        kv_format=native.kv_format,
        kv_bytes_per_token=native.kv_bytes_per_token,
        kv_bytes=native.kv_bytes(),
        backend=native.backend,
        host_layers=native.host_layers,
        graph_tokens=native.graph_tokens,
        isa=_native.active_isa(),
        threads=native.n_threads,
        load_ms=native.load_ms,
        verified_fraction=native.verified_fraction,
        root=native.root,
        source=json.loads(metadata.get("edgellm.source", "{}")),
        expert_load={at: load for at, load in enumerate(native.expert_load) if load},
    )
