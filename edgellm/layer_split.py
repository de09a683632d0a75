"""Layers of a model on a GPU that has no room for all of them: which of them run on the CPU.

The rule of native/src/model/layer_split.cc, from the header of a file alone.
"""

from __future__ import annotations

from .edgeheader import EdgeHeader, TensorInfo
from .planner import layers_of

STEP_BYTES = 384 << 20  # of the GPU's memory, for everything but weights and KV
_BETWEEN = 32768  # bytes between two tensors that are copied as one


def host_layers(header: EdgeHeader, room_bytes: int) -> int | None:
    """The number of layers, the first ones, that stay on the CPU where the GPU has `room_bytes` for
    weights: as few as may be, 0 where the whole file fits. None if not even the head does."""
    counts = range(len(layers_of(header.spec)) + 1)
    return next((n for n in counts if _device_bytes(header, n) <= room_bytes), None)


def _device_bytes(header: EdgeHeader, n_host_layers: int) -> int:
    wanted = [one for one in header.tensors.values() if _is_on_device(one, n_host_layers, header)]
    total = end = 0
    for tensor in sorted(wanted, key=lambda one: one.offset):
        gap = tensor.offset - end
        total += tensor.n_bytes + (gap if total and gap < _BETWEEN else 0)
        end = tensor.offset + tensor.n_bytes
    return total


def _is_on_device(tensor: TensorInfo, n_host_layers: int, header: EdgeHeader) -> bool:
    if tensor.format == "U8" or n_host_layers == 0:
        return tensor.format != "U8"
    parts = tensor.name.split(".")
    if parts[0] != "layers" or len(parts) < 3 or not parts[1].isdecimal():
        is_tied = header.spec.get("tied_head") is True
        return is_tied if tensor.role == "token_embd" else tensor.role != "position_embd"
    layer = int(parts[1])
    # What the last layer on the CPU leaves to the first norm behind it is there, too.
    return layer >= n_host_layers or (layer + 1 == n_host_layers and tensor.format == "F32")
