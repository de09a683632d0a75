"""Writes a `.edge` file with random codes in the shape of a model spec, for timings alone.

No checkpoint is needed: codes are random bytes, and the scales of the rows keep activations in
bounds. Same spec, same bytes. Matrices are E4_16, those that route F16.

    python benchmarks/random_edge.py SPEC.json OUT.edge
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from edgellm.converters.layout import Slot, tensor_slots
from edgellm.converters.quant.f16 import encode_f16
from edgellm.converters.spec import ModelSpec

from edgellm.edgefile import EdgeWriter, tensor_bytes

TILE_ROWS, TILE_COLS, TILE_BYTES = 16, 32, 288
CODE_RMS = 2600.0  # of scale times level over random bytes
STRIPS_AT_ONCE = 1024
FAITHFUL = ("ffn_router", "ffn_gate_inp_shexp", "position_embd")


def format_of(slot: Slot) -> str:
    if len(slot.shape) == 1:
        return "F32"
    return "F16" if slot.role in FAITHFUL else "E4_16"


def blocks(slot: Slot, n_layers: int) -> Iterator[npt.NDArray[np.uint8]]:
    """The bytes of one tensor, some strips at a time."""
    rng = np.random.default_rng(zlib.crc32(slot.name.encode()))
    if len(slot.shape) == 1:
        yield np.ones(slot.shape, "<f4").view(np.uint8)
        return
    n_rows, n_cols = slot.shape
    # Embeddings as large as what layers add: else all tokens would look alike to a router.
    size = 1.0 if slot.role == "token_embd" else n_cols**-0.5
    if slot.role.startswith(("attn_o", "ffn_down")):
        size *= (2 * n_layers) ** -0.5
    if slot.role in FAITHFUL:
        yield encode_f16(rng.standard_normal(slot.shape, dtype=np.float32) * np.float32(size))
        return
    n_strips, n_tiles = -(-n_rows // TILE_ROWS), -(-n_cols // TILE_COLS)
    for begin in range(0, n_strips, STRIPS_AT_ONCE):
        n = min(STRIPS_AT_ONCE, n_strips - begin)
        strips = np.empty((n, 4 * TILE_ROWS + n_tiles * TILE_BYTES), np.uint8)
        strips[:, 4 * TILE_ROWS :] = rng.integers(0, 256, (n, n_tiles * TILE_BYTES), np.uint8)
        strips[:, : 4 * TILE_ROWS] = np.full(TILE_ROWS, size / CODE_RMS, "<f4").view(np.uint8)
        yield strips.reshape(-1)


def write(spec: ModelSpec, out: Path, blobs: Mapping[str, bytes] | None = None) -> None:
    """`blobs`: what stands beside the weights, by name."""
    slots = tensor_slots(spec)
    rope = Slot("rope_inv_freq", (spec.n_rope // 2,))
    slots.insert(1, rope)
    with EdgeWriter(out, spec=json.loads(spec.to_json())) as writer:
        for slot in slots:
            act = {"F32": None, "F16": "f32", "E4_16": "a8"}[format_of(slot)]
            writer.plan(slot.name, slot.role, format=format_of(slot), shape=slot.shape, act=act)
        for slot in slots:
            if slot is rope:
                exponents = np.arange(spec.n_rope // 2) / (spec.n_rope // 2)
                writer.add(slot.name, (1e6**-exponents).astype("<f4").view(np.uint8).data)
                continue
            writer.add(slot.name, (block.data for block in blocks(slot, len(spec.layers))))
        for name, data in (blobs or {}).items():
            writer.append(name, name, data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("spec", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    spec = ModelSpec.from_json(arguments.spec.read_text(encoding="utf-8"))
    write(spec, arguments.out)
    n_bytes = sum(
        tensor_bytes(format_of(slot), *(slot.shape if len(slot.shape) == 2 else (1, *slot.shape)))
        for slot in tensor_slots(spec)
    )
    print(f"{arguments.out}: {n_bytes / 1e9:.2f} GB of weights")


if __name__ == "__main__":
    main()
