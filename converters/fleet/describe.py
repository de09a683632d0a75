"""What an index says of a .edge file: its digests, its size, what it reads per token and needs."""

from __future__ import annotations

from typing import Any

from edgellm.edgechunks import chunks_of
from edgellm.edgeheader import EdgeHeader

from ..prune.predict import read_bytes


def describe(header: EdgeHeader, sha256: str) -> dict[str, Any]:
    """sha256: of the whole file."""
    matrices = [tensor for tensor in header.tensors.values() if tensor.act is not None]
    layers: Any = header.spec.get("layers", [])
    experts = [(layer.get("n_experts_used", 0), layer.get("n_experts", 0)) for layer in layers]
    tied = header.spec.get("tied_head") is True
    return {
        "sha256": sha256,
        "n_bytes": header.file_bytes,
        "header_sha256": header.metadata["edgellm.header_sha256"],
        "root": header.root,
        "requires": list(header.requires),
        "arch": str(header.spec.get("arch", "")),
        "formats": sorted({tensor.format for tensor in matrices}),
        "n_chunks": sum(1 for _ in chunks_of(header)),
        "bytes_per_token": sum(
            read_bytes(tensor, experts, tied)
            for tensor in header.tensors.values()
            if tensor.format != "U8"
        ),
    }
