"""Writes native/fuzz/seeds/tiny.edge, a small valid file, and every way to spoil it.

The cases go to native/tests/format/attacks.json. Both readers, C++ and Python, take that table and
must report the stated code for every case:

    python tests/format/make_attacks.py

A case edits the header text (each `find` occurs exactly once), then the file is sealed again with a
right header hash, so that the rule behind the hash is reached; `seal: false` leaves the old hash.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from edgellm.edgefile import EdgeWriter

TABLE = Path(__file__).parents[2] / "native" / "tests" / "format" / "attacks.json"
SEED = Path(__file__).parents[2] / "native" / "fuzz" / "seeds" / "tiny.edge"
WEIGHT_BYTES = 2 * (64 + 2 * 288)  # E4_16 [17, 40]: two strips of two tiles


@dataclass(frozen=True)
class Case:
    """One spoiled file. Offsets are from the start of the file unless they say otherwise."""

    name: str
    code: str
    edits: tuple[tuple[str, str], ...] = ()
    seal: bool = True
    header_len_hex: str | None = None  # stored length, whatever the header really is
    data_start: int | None = None  # where the data is put, instead of 16384
    file_bytes: int | None = None  # cut or zero-extended to this
    flip: tuple[int, ...] = field(default=())  # offsets from the data start of bytes to invert


def base_file() -> bytes:
    """The file the cases start from: a matrix, a vector, a blob and the hashes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "base.edge"
        with EdgeWriter(path, spec={"arch": "none"}, requires=()) as writer:
            writer.plan("w", "ffn_up", format="E4_16", shape=(17, 40), act="a8")
            writer.plan("norm", "attn_norm", format="F32", shape=(5,))
            writer.add("w", bytes(i % 251 for i in range(WEIGHT_BYTES)))
            writer.add("norm", bytes(range(20)))
            writer.append("note", "note", b"edge file!")
            writer.set_source({"model.safetensors": "0" * 64})
        return path.read_bytes()


def _entry(name: str, n_bytes: int, start: int) -> str:
    return (
        f'"{name}":{{"dtype":"U8","shape":[{n_bytes}],"data_offsets":[{start},{start + n_bytes}]}}'
    )


W = _entry("w", 1280, 0)
NORM = _entry("norm", 64, 1280)
NOTE = _entry("note", 64, 1344)
HASHES = _entry("edgellm.hashes", 64, 1408)


FAR_PAST_THE_END = (  # consistent in itself: the blob claims nearly 2^48 bytes
    ("[1408,1472]", "[281474976710592,281474976710656]"),
    ("[1344,1408]", "[1344,281474976710592]"),
    ('[64],"data_offsets":[1344', '[281474976709248],"data_offsets":[1344'),
    ("[10]", "[281474976709248]"),
)


def _row(name: str, rest: str) -> str:
    return json.dumps(f'"{name}":{{{rest}}}')[1:-1]


W_ROW = _row("w", '"role":"ffn_up","format":"E4_16","shape":[17,40],"act":"a8"')
NORM_ROW = _row("norm", '"role":"attn_norm","format":"F32","shape":[5]')
NOTE_ROW = _row("note", '"role":"note","format":"U8","shape":[10]')
HASHES_ROW = _row("edgellm.hashes", '"role":"hashes","format":"U8","shape":[32]')


def _w_row(rest: str) -> tuple[tuple[str, str], ...]:
    return ((W_ROW, _row("w", rest)),)


def _deep(n: int) -> str:
    return "[" * n + "]" * n


CONTAINER = (
    Case("empty file", "file_too_small", file_bytes=0),
    Case("seven bytes", "file_too_small", file_bytes=7),
    Case("length over the cap", "header_too_large", header_len_hex="6400001"),
    Case("length of all ones", "header_too_large", header_len_hex="ffffffffffffffff"),
    Case("length past the end", "header_truncated", header_len_hex="4e20"),
    Case("file ends in the header", "header_truncated", file_bytes=9000),
    Case("no header at all", "not_an_edge_file", header_len_hex="0", file_bytes=8),
    Case(
        "header starts with a blank", "not_an_edge_file", (('{"__metadata__"', ' {"__metadata__"'),)
    ),
    Case("header shorter than stated", "json_syntax", header_len_hex="258"),
    Case("plain safetensors file", "not_an_edge_file", (("__metadata__", "metadata__"),)),
    Case("no edgellm.version", "not_an_edge_file", (("edgellm.version", "edgellm.verzion"),)),
    Case("version 1", "version_unsupported", (('version":"0"', 'version":"1"'),)),
    Case("unknown feature", "feature_unsupported", (('requires":"[]"', r'requires":"[\"x\"]"'),)),
    Case("requires is an object", "json_type", (('requires":"[]"', 'requires":"{}"'),)),
    Case("requires holds a number", "json_type", (('requires":"[]"', 'requires":"[1]"'),)),
    Case("no root", "json_missing_key", (("edgellm.root", "edgellm.rot"),)),
    Case("no spec", "json_missing_key", (("edgellm.spec", "edgellm.spek"),)),
    Case("data start off the page", "data_misaligned", data_start=16384 + 64),
    Case("one header bit", "header_hash", (("ffn_up", "ffn_uq"),), seal=False),
    Case("one padding byte of the header", "header_hash", (("}} ", "}}\n"),), seal=False),
    Case("no header digest", "json_missing_key", (("header_sha256", "header_sha512"),)),
    Case("two digest fields", "header_hash", (('"w":{', '"edgellm.header_sha256":"x","w":{'),)),
    Case("one byte too many", "trailing_bytes", file_bytes=16384 + 1473),
    Case("one byte too few", "tensor_past_end", file_bytes=16384 + 1471),
    Case("no data", "tensor_past_end", file_bytes=16384),
    Case("stored hashes changed", "root_hash", flip=(1408,)),
    Case("padding of the hashes changed", "root_hash", flip=(1471,)),
    Case("root of something else", "root_hash", (('root":"', 'root":"0'),)),
    Case("first data byte", "leaf_hash", flip=(0,)),
    Case("last data byte", "leaf_hash", flip=(1353,)),
    Case("padding of a tensor", "leaf_hash", flip=(1407,)),
)

JSON_RULES = (
    Case("two tensors of one name", "json_duplicate_key", ((NOTE, NOTE + "," + NOTE),)),
    Case("two rows of one name", "json_duplicate_key", ((NOTE_ROW, NOTE_ROW + "," + NOTE_ROW),)),
    Case("two spec keys", "json_duplicate_key", (('"edgellm.spec"', '"edgellm.root"'),)),
    Case("brackets to depth 33", "json_depth", ((NOTE, NOTE + ',"x":' + _deep(32)),)),
    Case("brackets without end", "json_depth", ((NOTE, NOTE + ',"x":' + "[" * 9000),)),
    Case("NaN", "json_syntax", (("[1280]", "[NaN]"),)),
    Case("leading zero", "json_syntax", (("[1280]", "[01280]"),)),
    Case("integer of 20 digits", "json_syntax", (("[1280]", "[99999999999999999999]"),)),
    Case("float beyond double", "json_syntax", (("[1280]", "[1e999]"),)),
    Case("lone surrogate", "json_syntax", (('"arch', r'"\ud800arch'),)),
    Case("trailing comma", "json_syntax", (("[1280]", "[1280,]"),)),
    Case("comment", "json_syntax", (("[1280]", "[1280/**/]"),)),
    Case("raw control character", "json_syntax", (('"w":{', '"w\u0001":{'),)),
    Case("metadata is a list", "json_type", (('"__metadata__":{', '"__metadata__":[],"x":{'),)),
    Case("metadata value is a number", "json_type", (('version":"0"', 'version":0'),)),
    Case("tensors is no object", "json_type", (('tensors":"{', 'tensors":"[]","x":"{'),)),
    Case("tensors is no JSON", "json_syntax", (('tensors":"{', 'tensors":"{{'),)),
)

TENSORS = (
    Case("dtype F16", "tensor_dtype", ((W, W.replace("U8", "F16")),)),
    Case("dtype is a number", "json_type", ((W, W.replace('"U8"', "8")),)),
    Case("stored shape of two numbers", "tensor_shape", (("[1280]", "[1280,1]"),)),
    Case("stored shape too small", "tensor_shape", (("[1280]", "[1216]"),)),
    Case("fractional shape", "json_type", (("[1280]", "[1280.0]"),)),
    Case("boolean shape", "json_type", (("[1280]", "[true]"),)),
    Case("unknown key of a tensor", "json_unknown_key", (('"w":{', '"w":{"z":0,'),)),
    Case("tensor without dtype", "json_missing_key", ((W, W.replace('"dtype":"U8",', "")),)),
    Case("offsets reversed", "tensor_offsets", (("[0,1280]", "[1280,0]"),)),
    Case("offsets negative", "tensor_offsets", (("[0,1280]", "[-1280,0]"),)),
    Case("offsets of three numbers", "tensor_offsets", (("[0,1280]", "[0,1280,0]"),)),
    Case("offsets beyond 2^48", "tensor_offsets", (("[0,1280]", "[0,281474976710657]"),)),
    Case("data shorter than the shape", "tensor_offsets", (("[0,1280]", "[0,1216]"),)),
    Case("overlap", "tensor_overlap", (("[1280,1344]", "[1216,1280]"),)),
    Case("same place twice", "tensor_overlap", (("[1344,1408]", "[1280,1344]"),)),
    Case("hole", "tensor_hole", ((NOTE + ",", ""), ("," + NOTE_ROW, ""))),
    Case("first tensor not at zero", "tensor_hole", (("[0,1280]", "[64,1344]"),)),
    Case("far past the end", "tensor_past_end", FAR_PAST_THE_END),
    Case("row without data", "tensor_missing", ((NOTE + ",", ""),)),
    Case("data without row", "tensor_unexpected", (("," + NOTE_ROW, ""),)),
    Case(
        "no hashes",
        "tensor_missing",
        (("," + HASHES, ""), ("," + HASHES_ROW, "")),
        file_bytes=16384 + 1408,
    ),
    Case("hashes of another role", "tensor_role", ((r"\"hashes\"", r"\"hushes\""),)),
    Case("too few hashes", "tensor_shape", (("[32]", "[31]"),)),
    Case("unknown format", "tensor_format", (("E4_16", "E5_16"),)),
    Case("unknown act", "tensor_act", ((r"\"a8\"", r"\"a7\""),)),
    Case(
        "matrix without act",
        "json_missing_key",
        _w_row('"role":"ffn_up","format":"E4_16","shape":[17,40]'),
    ),
    Case(
        "vector with act",
        "json_unknown_key",
        ((r"\"shape\":[5]", r"\"shape\":[5],\"act\":\"a8\""),),
    ),
    Case("role in capitals", "tensor_role", (("ffn_up", "FFN_UP"),)),
    Case("role with a control character", "tensor_role", (("ffn_up", r"ffn\\u001bup"),)),
    Case("name with a blank", "tensor_name", (('"w":{', '"w w":{'), (r"\"w\":{", r"\"w w\":{"))),
    Case("empty name", "tensor_name", (('"w":{', '"":{'), (r"\"w\":{", r"\"\":{"))),
    Case("vector of two dimensions", "tensor_shape", ((r"[5]", "[5,1]"),)),
    Case("matrix of one dimension", "tensor_shape", (("[17,40]", "[680]"),)),
    Case("one row too many for the data", "tensor_shape", (("[17,40]", "[33,40]"),)),
    Case("zero rows", "tensor_shape", (("[17,40]", "[0,40]"),)),
    Case("negative rows", "tensor_shape", (("[17,40]", "[-17,40]"),)),
    Case(
        "product beyond 64 bits",
        "tensor_shape",
        (("[17,40]", "[281474976710656,281474976710656]"),),
    ),
    Case("row is a list", "json_type", ((NOTE_ROW, r"\"note\":[]"),)),
    Case("role is a number", "json_type", ((r"\"ffn_up\"", "1"),)),
)

CASES = CONTAINER + JSON_RULES + TENSORS


def table() -> dict[str, object]:
    """The content of attacks.json."""
    base = base_file()
    header = base[8:16384].rstrip(b" ").decode("ascii")
    defaults = Case("", "")
    rows = []
    for case in CASES:
        changed = {
            key: value for key, value in vars(case).items() if value != getattr(defaults, key)
        }
        rows.append(changed)
    return {"header": header, "data_hex": base[16384:].hex(), "cases": rows}


if __name__ == "__main__":
    SEED.write_bytes(base_file())
    TABLE.write_text(json.dumps(table(), indent=1) + "\n", encoding="ascii")
