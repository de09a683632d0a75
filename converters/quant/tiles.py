"""The R16 tile order in numpy: bytes of a tensor <-> matrices of integers.

The layout is that of native/src/quant/tiles.h: strips of 16 rows, each f32 d_row[16] and then its
tiles of 32 columns by ascending column. Knows no format's meaning of a value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

U8Array = npt.NDArray[np.uint8]
F32Array = npt.NDArray[np.float32]

TILE_ROWS = 16
TILE_K = 32
STRIP_HEADER_BYTES = 4 * TILE_ROWS
HEAD_TILES = 8  # that share a head, in formats that have them


def split_strips(data: U8Array, n_cols: int, tile_bytes: int) -> tuple[F32Array, U8Array]:
    """(d_row [n_strips, 16], tiles [n_strips, n_tiles, tile_bytes]) as views of `data`."""
    n_tiles = -(-n_cols // TILE_K)
    strips = data.reshape(-1, STRIP_HEADER_BYTES + n_tiles * tile_bytes)
    d_row = np.ascontiguousarray(strips[:, :STRIP_HEADER_BYTES]).view("<f4")
    tiles = strips[:, STRIP_HEADER_BYTES:].reshape(len(strips), n_tiles, tile_bytes)
    return d_row, tiles


def split_headed_strips(
    data: U8Array, n_cols: int, tile_bytes: int, head_bytes: int
) -> tuple[U8Array, U8Array]:
    """(heads [n_strips, n_heads, head_bytes], tiles [n_strips, n_tiles, tile_bytes]) as views."""
    n_tiles = -(-n_cols // TILE_K)
    n_heads = -(-n_tiles // HEAD_TILES)
    tiles_at = STRIP_HEADER_BYTES + n_heads * head_bytes
    strips = data.reshape(-1, tiles_at + n_tiles * tile_bytes)
    heads = strips[:, STRIP_HEADER_BYTES:tiles_at].reshape(len(strips), n_heads, head_bytes)
    return heads, strips[:, tiles_at:].reshape(len(strips), n_tiles, tile_bytes)


def row_factors(data: U8Array, n_rows: int) -> F32Array:
    """d_row [n_rows] of the strips of a matrix."""
    strips = data.reshape(-(-n_rows // TILE_ROWS), -1)
    return np.ascontiguousarray(strips[:, :STRIP_HEADER_BYTES]).view("<f4").reshape(-1)[:n_rows]


def join_strips(d_row: F32Array, tiles: U8Array) -> U8Array:
    """The inverse of split_strips, as one flat array."""
    header = np.ascontiguousarray(d_row, dtype="<f4").view(np.uint8)
    return np.concatenate([header, tiles.reshape(len(tiles), -1)], axis=1).reshape(-1)


def unpack_nibbles(groups: U8Array) -> U8Array:
    """[..., 4 * 64] bytes of a tile -> [..., 16 rows, 32 columns] of 0..15.

    Byte b of group j: row b >> 2, column class b & 3; the low nibble is quad 2j, the high 2j + 1.
    """
    g = groups.reshape(*groups.shape[:-1], 4, TILE_ROWS, 4)  # group, row, class
    quads = np.empty((*groups.shape[:-1], 4, 2, TILE_ROWS, 4), dtype=np.uint8)
    quads[..., 0, :, :] = g & 15
    quads[..., 1, :, :] = g >> 4
    return _rows_first(quads.reshape(*groups.shape[:-1], 8, TILE_ROWS, 4))


def pack_nibbles(values: U8Array) -> U8Array:
    """The inverse of unpack_nibbles."""
    quads = _quads_first(values)
    even, odd = quads[..., 0::2, :, :], quads[..., 1::2, :, :]
    return (even | odd << np.uint8(4)).reshape(*values.shape[:-2], 256)


def unpack_pairs(hi: U8Array) -> U8Array:
    """[..., 2 * 64] bytes -> [..., 16, 32] of 0..3: byte b of half h holds quads 4h .. 4h + 3."""
    h = hi.reshape(*hi.shape[:-1], 2, TILE_ROWS, 4)
    quads = np.empty((*hi.shape[:-1], 2, 4, TILE_ROWS, 4), dtype=np.uint8)
    for i in range(4):
        quads[..., i, :, :] = h >> (2 * i) & 3
    return _rows_first(quads.reshape(*hi.shape[:-1], 8, TILE_ROWS, 4))


def pack_pairs(values: U8Array) -> U8Array:
    """The inverse of unpack_pairs."""
    quads = _quads_first(values).reshape(*values.shape[:-2], 2, 4, TILE_ROWS, 4)
    packed = np.zeros((*values.shape[:-2], 2, TILE_ROWS, 4), dtype=np.uint8)
    for i in range(4):
        packed |= quads[..., i, :, :] << (2 * i)
    return packed.reshape(*values.shape[:-2], 128)


def unpack_triples(groups: U8Array) -> U8Array:
    """[..., 3 * 64] bytes -> [..., 16, 32] of 0..7: nibble group j holds quads 2j and 2j + 1 in the
    lower three bits of its halves, and in bits 3 and 7 bit j of quads 6 and 7."""
    g = groups.reshape(*groups.shape[:-1], 3, TILE_ROWS, 4)
    quads = np.zeros((*groups.shape[:-1], 8, TILE_ROWS, 4), dtype=np.uint8)
    for j in range(3):
        byte = g[..., j, :, :]
        quads[..., 2 * j, :, :] = byte & 7
        quads[..., 2 * j + 1, :, :] = byte >> 4 & 7
        quads[..., 6, :, :] |= (byte >> 3 & 1) << j
        quads[..., 7, :, :] |= (byte >> 7) << j
    return _rows_first(quads)


def pack_triples(values: U8Array) -> U8Array:
    """The inverse of unpack_triples."""
    quads = _quads_first(values)
    packed = np.empty((*values.shape[:-2], 3, TILE_ROWS, 4), dtype=np.uint8)
    for j in range(3):
        halves = [
            quads[..., 2 * j + i, :, :] | (quads[..., 6 + i, :, :] >> j & 1) << 3 for i in (0, 1)
        ]
        packed[..., j, :, :] = halves[0] | halves[1] << 4
    return packed.reshape(*values.shape[:-2], 192)


def unpack_bytes(groups: U8Array) -> U8Array:
    """[..., 8 * 64] bytes -> [..., 16, 32]: group t is quad t."""
    return _rows_first(groups.reshape(*groups.shape[:-1], 8, TILE_ROWS, 4))


def pack_bytes(values: U8Array) -> U8Array:
    """The inverse of unpack_bytes."""
    return _quads_first(values).reshape(*values.shape[:-2], 512)


def dequantize(d_row: F32Array, scales: F32Array, values: F32Array) -> F32Array:
    """w = d_row * (s * v), s * v being exact.

    d_row [n_strips, 16]; scales [n_strips, n_tiles, n_groups, 16 rows];
    values [n_strips, n_tiles, 16 rows, 32 columns] -> [n_strips * 16, n_tiles * 32].
    """
    n_groups = scales.shape[2]
    per_column = np.repeat(np.swapaxes(scales, 2, 3), TILE_K // n_groups, axis=3)
    products = per_column * values + np.float32(0)  # as integers: no negative zero
    products = products.transpose(0, 2, 1, 3)  # strip, row, tile, column
    return untile(d_row[:, :, None, None] * products)


def untile(strips: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n_strips, 16, n_tiles, 32] -> [n_strips * 16, n_tiles * 32]."""
    n_strips, n_rows, n_tiles, n_k = strips.shape
    return np.ascontiguousarray(strips).reshape(n_strips * n_rows, n_tiles * n_k)


def tile(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n_rows, n_cols] zero-padded to tiles -> [n_strips, n_tiles, 16, 32]."""
    n_rows, n_cols = matrix.shape
    pad = (-n_rows % TILE_ROWS, -n_cols % TILE_K)
    padded = np.pad(matrix, ((0, pad[0]), (0, pad[1]))) if any(pad) else matrix
    n_strips, n_tiles = padded.shape[0] // TILE_ROWS, padded.shape[1] // TILE_K
    return padded.reshape(n_strips, TILE_ROWS, n_tiles, TILE_K).transpose(0, 2, 1, 3)


def tile_scales(scale_bytes: U8Array, n_groups: int) -> U8Array:
    """[n_rows, groups of a row] zero-padded to tiles -> [n_strips, n_tiles, n_groups * 16]."""
    n_rows, n_all = scale_bytes.shape
    padded = np.pad(scale_bytes, ((0, -n_rows % TILE_ROWS), (0, -n_all % n_groups)))
    strips = padded.reshape(-1, TILE_ROWS, padded.shape[1] // n_groups, n_groups)
    return strips.transpose(0, 2, 3, 1).reshape(len(strips), -1, n_groups * TILE_ROWS)


def tile_halves(values: npt.NDArray[np.float16]) -> U8Array:
    """Binary16 [n_rows, tiles of a row], zero-padded -> [n_strips, n_tiles, 2 * 16] bytes."""
    n_rows, n_tiles = values.shape
    halves = np.ascontiguousarray(values, dtype="<f2").view(np.uint8).reshape(n_rows, n_tiles, 2)
    padded = np.pad(halves, ((0, -n_rows % TILE_ROWS), (0, 0), (0, 0)))
    strips = padded.reshape(-1, TILE_ROWS, n_tiles, 2).transpose(0, 2, 1, 3)
    return strips.reshape(len(strips), n_tiles, 2 * TILE_ROWS)


def pack_strips(d_row: F32Array, tiles: list[U8Array]) -> U8Array:
    """Strips from d_row [n_rows] and the parts of every tile, each [n_strips, n_tiles, bytes]."""
    raw = np.concatenate(tiles, axis=2)
    padded = np.zeros(len(raw) * TILE_ROWS, dtype=np.float32)
    padded[: len(d_row)] = d_row
    return join_strips(padded.reshape(-1, TILE_ROWS), raw)


def group_scale(scale_bytes: U8Array, mask: int = 1) -> F32Array:
    """s = (sc & ~mask) + (mask + 1) / 2 - 128, the bits of mask not being the scale's.

    Odd, -127..127, for one such bit; +-2, 6, .. 126 for two; +-4, 12, .. 124 for three.
    """
    return (scale_bytes & (0xFF - mask)).astype(np.float32) - np.float32(128 - (mask + 1) // 2)


def _rows_first(quads: U8Array) -> U8Array:
    """[..., 8 quads, 16 rows, 4] -> [..., 16, 32]."""
    rows = np.moveaxis(quads, -2, -3)
    return rows.reshape(*quads.shape[:-3], TILE_ROWS, TILE_K)


def _quads_first(values: U8Array) -> U8Array:
    """[..., 16, 32] -> [..., 8, 16, 4]."""
    return np.moveaxis(values.reshape(*values.shape[:-1], 8, 4), -2, -3)
