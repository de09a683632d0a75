"""Writes the worked example of docs/FORMAT.md: a real file, dumped, and weights decoded by hand.

python tests/format/make_hexdump.py
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgellm.edgefile import EdgeHeader, EdgeWriter, read_header

DOC = Path(__file__).parents[2] / "docs" / "FORMAT.md"
MARKERS = ("<!-- hexdump: tests/format/make_hexdump.py -->\n", "<!-- end of hexdump -->\n")
LUT = (0, 12, 22, 32, 40, 46, 53, 59, 64, 70, 76, 83, 90, 98, 108, 120)
ROW, K = 1, 21  # the weight that is decoded
_PARTS_L4 = (("d_row", 0, 8), ("s", 64, 4), ("zero", 96, 2), ("nibbles[2]", 112 + 2 * 64, 8))
_PARTS_K4 = (
    *(("d_row", 0, 8), ("d", 64, 4), ("dmin", 96, 4), ("sc", 128, 2), ("min", 144, 2)),
    ("nibbles[2]", 160 + 2 * 64, 8),
)
_PARTS_L8 = (("d_row", 0, 8), ("s", 64, 4), ("quads[5]", 96 + 5 * 64, 8))
LUT_E3 = (0, 14, 23, 31, 38, 45, 53, 63)
K_E3 = 25
LUT_E2 = (0, 13, 22, 31)


def strip_bytes() -> bytes:
    """One E4_16 strip of one tile: 2 rows x 32 k, rows 2 to 15 are padding."""
    return _strip(n_scale_groups=2, n_code_groups=4)


def strip_e3_32() -> bytes:
    return _strip(n_scale_groups=1, n_code_groups=3)


def strip_e2_16() -> bytes:
    return _strip(n_scale_groups=2, n_code_groups=2)


def _strip(n_scale_groups: int, n_code_groups: int) -> bytes:
    d_row = struct.pack("<16f", 0.5, 0.25, *[0.0] * 14)
    scales = bytes(
        0x90 + 2 * group + row if row < 2 else 0
        for group in range(n_scale_groups)
        for row in range(16)
    )
    codes = bytes(
        (37 * j + 29 * b) % 256 if b < 8 else 0 for j in range(n_code_groups) for b in range(64)
    )
    return d_row + scales + codes


def example_file(path: Path) -> None:
    with EdgeWriter(path, spec={}) as writer:
        writer.plan("w", "ffn_up", format="E4_16", shape=(2, 32), act="a8")
        writer.plan("norm", "ffn_norm", format="F32", shape=(4,))
        writer.add("w", strip_bytes())
        writer.add("norm", struct.pack("<4f", 1.0, 2.0, 3.0, 4.0))


def example() -> str:
    """The text between the markers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example.edge"
        example_file(path)
        return _describe(path.read_bytes(), read_header(path))


def _describe(file: bytes, header: EdgeHeader) -> str:
    text = file[8 : header.data_start].rstrip(b" ").decode("ascii")
    w, norm, hashes = (header.data_start + t.offset for t in header.tensors.values())
    pieces = [
        (0, 8, f"header_len = {header.data_start - 8}"),
        (8, 24, f"the header, {len(text)} bytes of JSON, then blanks up to {header.data_start}"),
        (w, 16, "w: strip 0: f32 d_row[0..3] = 0.5, 0.25, 0, 0; twelve more are 0"),
        (w + 64, 16, "w: tile 0: sc[0][row], columns 0 to 15"),
        (w + 80, 16, "w: tile 0: sc[1][row], columns 16 to 31"),
        (w + 96, 16, "w: tile 0: nibbles[0], rows 0 to 3, columns 0-3 low, 4-7 high"),
        (w + 96 + 2 * 64, 16, "w: tile 0: nibbles[2], rows 0 to 3, columns 16-19 low, 20-23 high"),
        (w + 352, 16, "w: padding, 352 bytes up to 384"),
        (norm, 16, "norm: f32[4] = 1, 2, 3, 4"),
        (hashes, 32, "edgellm.hashes: SHA-256 of the 448 bytes before it"),
        (len(file) - 16, 16, f"its padding; the file ends at {len(file)}"),
    ]
    lines = ["The header, broken into lines here:", "", "```json"]
    lines += re.sub(r'(?<=",)(?="edgellm)|(?<=\},)(?=\\?")', "\n", text).splitlines()
    lines += ["```", "", "```text"]
    for start, n_bytes, what in pieces:
        lines.append(f"# {what}")
        lines += [
            _row(file, at, min(16, start + n_bytes - at))
            for at in range(start, start + n_bytes, 16)
        ]
    lines += ["```", "", *_decode(strip_bytes()), ""]
    lines += [*_linear_example(), "", *_bytes_example(), "", *_multiples_example(), ""]
    return "\n".join([*lines, *_narrow_example(strip_e3_32(), strip_e2_16()), ""])


def linear_strip_bytes() -> bytes:
    """One L4_32 strip of one tile: 2 rows x 32 k, rows 2 to 15 are padding."""
    d_row = struct.pack("<16f", 1.0, 1.0, *[0.0] * 14)
    scales = struct.pack("<16e", 0.015625, -0.0078125, *[0.0] * 14)
    zeros = bytes((8, 11, *[0] * 14))
    nibbles = bytes((37 * j + 29 * b) % 256 if b < 8 else 0 for j in range(4) for b in range(64))
    return d_row + scales + zeros + nibbles


def _two_rows(format_name: str, strip: bytes, parts: Sequence[tuple[str, int, int]]) -> list[str]:
    """The opening of an example: the parts of a strip (what, start, bytes)."""
    title = f"A strip of `{format_name}`, two rows of 32 columns, from the byte at which it begins:"
    lines = [title, "", "```text"]
    for what, start, n_bytes in parts:
        lines += [f"# {what}, the bytes of rows 0 and 1", _row(strip, start, n_bytes)]
    return lines


def _linear_example() -> list[str]:
    strip = linear_strip_bytes()
    lines = _two_rows("L4_32", strip, _PARTS_L4)
    (s,) = struct.unpack_from("<e", strip, 64 + 2 * ROW)
    zero = strip[96 + ROW]
    group, column = K // 8, K % 8
    byte = strip[112 + 64 * group + 4 * ROW + column % 4]
    q = byte >> 4 if column >= 4 else byte & 15
    return [
        *lines,
        "```",
        "",
        f"The weight at row {ROW}, column {K}: `s[{ROW}]` = {s}; `zero[{ROW}]` = {zero}; byte"
        f" {4 * ROW + column % 4} of `nibbles[{group}]` is 0x{byte:02x}, whose"
        f" {'high' if column >= 4 else 'low'} half is q = {q}; w = {s} * ({q} - {zero}) ="
        f" {s * (q - zero)}.",
    ]


def bytes_strip_bytes() -> bytes:
    """One L8_32 strip of one tile: 2 rows x 32 k, rows 2 to 15 are padding."""
    quads = bytes((37 * j + 29 * b) % 256 if b < 8 else 128 for j in range(8) for b in range(64))
    return linear_strip_bytes()[:96] + quads


def _bytes_example() -> list[str]:
    strip = bytes_strip_bytes()
    lines = _two_rows("L8_32", strip, _PARTS_L8)
    (s,) = struct.unpack_from("<e", strip, 64 + 2 * ROW)
    quad, at = K // 4, 4 * ROW + K % 4
    q = strip[96 + 64 * quad + at]
    return [
        *lines,
        "```",
        "",
        f"The weight at row {ROW}, column {K}: `s[{ROW}]` = {s}; byte {at} of `quads[{quad}]` is"
        f" 0x{q:02x}, q = {q};",
        f"w = {s} * ({q} - 128) = {s * (q - 128)}.",
    ]


def multiples_strip_bytes() -> bytes:
    """One K4_32 strip of one tile: 2 rows x 32 k, rows 2 to 15 are padding."""
    d_row = struct.pack("<16f", 1.0, 1.0, *[0.0] * 14)
    head = struct.pack("<32e", 0.015625, 0.0078125, *[0.0] * 14, 0.03125, 0.0625, *[0.0] * 14)
    multiples = bytes((63, 40, *[0] * 14, 20, 12, *[0] * 14))
    return d_row + head + multiples + linear_strip_bytes()[112:]


def _multiples_example() -> list[str]:
    strip = multiples_strip_bytes()
    lines = _two_rows("K4_32", strip, _PARTS_K4)
    (d,), (dmin,) = (struct.unpack_from("<e", strip, at + 2 * ROW) for at in (64, 96))
    sc, minimum = strip[128 + ROW], strip[144 + ROW]
    group, column = K // 8, K % 8
    byte = strip[160 + 64 * group + 4 * ROW + column % 4]
    q = byte >> 4 if column >= 4 else byte & 15
    return [
        *lines,
        "```",
        "",
        f"The weight at row {ROW}, column {K}: `d[{ROW}]` = {d}; `dmin[{ROW}]` = {dmin};"
        f" `sc[{ROW}]` = {sc}; `min[{ROW}]` = {minimum}; byte {4 * ROW + column % 4} of"
        f" `nibbles[{group}]` is 0x{byte:02x}, whose {'high' if column >= 4 else 'low'} half is"
        f" q = {q};",
        f"w = {d} * {sc} * {q} - {dmin} * {minimum} = {d * sc * q - dmin * minimum}.",
    ]


def _narrow_example(e3: bytes, e2: bytes) -> list[str]:
    """The same for a strip of E3_32 and one of E2_16, without a file around them."""
    pieces = [
        (e3, 64, 16, "E3_32: tile 0: sc[row]"),
        *((e3, 80 + 64 * j, 8, f"E3_32: tile 0: nibbles[{j}], rows 0 and 1") for j in range(3)),
        (e2, 64, 16, "E2_16: tile 0: sc[0][row], columns 0 to 15"),
        (e2, 80, 16, "E2_16: tile 0: sc[1][row], columns 16 to 31"),
        *((e2, 96 + 64 * h, 8, f"E2_16: tile 0: pairs[{h}], rows 0 and 1") for h in range(2)),
    ]
    lines = ["A strip of 2 rows x 32 columns in the narrow formats, with the same `d_row`:", ""]
    lines += ["```text"]
    for strip, at, n_bytes, what in pieces:
        lines += [f"# {what}", _row(strip, at, n_bytes)]
    return [*lines, "```", "", *_decode_e3(e3), "", *_decode_e2(e2)]


def _decode_e3(strip: bytes) -> list[str]:
    d_row = struct.unpack_from("<16f", strip)[ROW]
    sc, b = strip[64 + ROW], 4 * ROW + K_E3 % 4
    groups = [strip[80 + 64 * j + b] for j in range(3)]
    q = sum((byte >> 3 & 1) << j for j, byte in enumerate(groups))
    s, zero = (sc & 0xFC) - 126, 40 - 4 * (sc & 3)
    return [
        f"E3_32, row {ROW}, column {K_E3}, of quad 6: `sc[{ROW}]` = 0x{sc:02x}, so `s` ="
        f" (0x{sc:02x} & 0xfc) - 126 = {s} and z = 40 - 4 * {sc & 3} = {zero}; byte {b} of the"
        f" nibble groups is {', '.join(f'0x{byte:02x}' for byte in groups)}, whose bits 3 are"
        f" q = {q};",
        f"w = {d_row} * {s} * ({LUT_E3[q]} - {zero}) = {d_row * s * (LUT_E3[q] - zero)}.",
    ]


def _decode_e2(strip: bytes) -> list[str]:
    d_row = struct.unpack_from("<16f", strip)[ROW]
    sc, b = strip[64 + 16 * (K // 16) + ROW], 4 * ROW + K % 4
    byte, shift = strip[96 + 64 * (K // 16) + b], 2 * (K // 4 % 4)
    q = byte >> shift & 3
    s, zero = (sc & 0xF8) - 124, 24 - 2 * (sc & 7)
    return [
        f"E2_16, row {ROW}, column {K}, of quad {K // 4}: `sc[{K // 16}][{ROW}]` = 0x{sc:02x}, so"
        f" `s` = (0x{sc:02x} & 0xf8) - 124 = {s} and z = 24 - 2 * {sc & 7} = {zero}; byte {b} of"
        f" `pairs[{K // 16}]` is 0x{byte:02x}, whose bits {shift} and {shift + 1} are q = {q};",
        f"w = {d_row} * {s} * ({LUT_E2[q]} - {zero}) = {d_row * s * (LUT_E2[q] - zero)}.",
    ]


def _row(file: bytes, at: int, n_bytes: int) -> str:
    chunk = file[at : at + n_bytes]
    shown = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in chunk)
    return f"{at:08x}  {chunk.hex(' '):<47}  |{shown}|"


def _decode(strip: bytes) -> list[str]:
    d_row = struct.unpack_from("<16f", strip)[ROW]
    sc = strip[64 + 16 * (K // 16) + ROW]
    group, column = K // 8, K % 8
    byte = strip[96 + 64 * group + 4 * ROW + column % 4]
    q = byte >> 4 if column >= 4 else byte & 15
    s = (sc & 0xFE) - 127
    weight = d_row * s * (LUT[q] + 2 * (sc & 1) - 64)
    return [
        f"The weight at row {ROW}, column {K}: `d_row[{ROW}]` = {d_row};"
        f" `sc[{K // 16}][{ROW}]` = 0x{sc:02x}, so `s` = (0x{sc:02x} & 0xfe) - 127 = {s} and"
        f" the LUT is U{sc & 1}; byte {4 * ROW + column % 4} of `nibbles[{group}]` is"
        f" 0x{byte:02x}, whose {'high' if column >= 4 else 'low'} half is q = {q};",
        f"w = {d_row} * {s} * ({LUT[q]} + {2 * (sc & 1)} - 64) = {weight}.",
    ]


def document(text: str) -> str:
    """`text` of the document with the example replaced by a fresh one."""
    before, rest = text.split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    return before + MARKERS[0] + example() + MARKERS[1] + after


if __name__ == "__main__":
    DOC.write_text(document(DOC.read_text(encoding="utf-8")), encoding="utf-8")
