"""The container: what is in it, and every way in which it can be wrong."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from edgellm.converters.gguf import reader
from edgellm.converters.gguf.reader import read_gguf

from edgellm import EdgeError, FormatError, UnsupportedError
from gguf_format.raw import ARRAY, STRING, U32, gguf_file, keys_of, tensor, text

F16 = 1
Q4_0 = 2
ONE = tensor("a", (4, 2), F16, 0)


def written(tmp_path: Path, data: bytes, name: str = "model.gguf") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_what_is_in_a_file(version: int, tmp_path: Path) -> None:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "eps": 1e-6,
        "flag": True,
        "names": ["a", "\u00e9"],
        "signed": [-1, 2],
        "nested": [[1, 2], [3]],
        "empty": [],
        "wide": (10, struct.pack("<Q", 1 << 40)),
        "double": (12, struct.pack("<d", 0.1)),
        "general.alignment": 64,
    }
    tensors = [tensor("v", (3,), 0, 0), tensor("m", (64, 2, 5), Q4_0, 64)]
    data = gguf_file(metadata, tensors, bytes(64 + 360), version=version, alignment=64)
    file = read_gguf(written(tmp_path, data))
    assert file.metadata["eps"] == 1e-6  # of 32 bits, the shortest decimal
    assert file.metadata["wide"] == 1 << 40
    assert file.metadata["double"] == 0.1
    assert {key: file.metadata[key] for key in ("flag", "names", "nested", "empty")} == {
        "flag": True,
        "names": ["a", "\u00e9"],
        "nested": [[1, 2], [3]],
        "empty": [],
    }
    vector, matrix = file.tensors.values()
    assert (vector.name, vector.dtype, vector.shape, vector.n_bytes) == ("v", "F32", (3,), 12)
    assert (matrix.dtype, matrix.shape, matrix.n_bytes) == ("Q4_0", (5, 2, 64), 360)
    assert matrix.offset_bytes == vector.offset_bytes + 64 == len(data) - 360


def test_the_package_reads_the_same(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the package gguf is the oracle here")
    import numpy as np

    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_token_list(["<s>", "b\u00e4"])
    writer.add_token_scores([0.5, -1.25])
    writer.add_tensor("a", np.arange(12, dtype=np.float16).reshape(3, 4))
    writer.add_tensor("b", np.arange(5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file, wanted = read_gguf(path), gguf.GGUFReader(path)
    assert dict(file.metadata) == {
        key: field.contents() for key, field in wanted.fields.items() if not key.startswith("GGUF.")
    }
    for info in wanted.tensors:
        mine = file.tensors[info.name]
        assert (mine.offset_bytes, mine.n_bytes) == (info.data_offset, info.n_bytes)
        assert mine.shape == tuple(int(n) for n in info.shape)[::-1]


LONG = struct.pack("<Q", 1 << 40)
WRONG: dict[str, tuple[bytes, type[EdgeError], str, str]] = {
    "small": (b"GGUF\x03", FormatError, "file_too_small", "too small"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1",
        FormatError,
        "file_unreadable",
        "git-lfs",
    ),
    "version 1": (
        gguf_file({}, version=1),
        UnsupportedError,
        "version_unsupported",
        "version 1 cannot be read",
    ),
    "big endian": (
        gguf_file({}, version=3 << 24),
        UnsupportedError,
        "version_unsupported",
        "big-endian",
    ),
    "many tensors": (
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
        FormatError,
        "too_many_tensors",
        "tensors",
    ),
    "many keys": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
        FormatError,
        "gguf_invalid",
        "keys",
    ),
    "cut off": (gguf_file(b"", n_keys=5), FormatError, "header_truncated", "not complete"),
    "long key": (gguf_file(LONG, n_keys=1), FormatError, "gguf_invalid", "at most 65536"),
    "long text": (
        gguf_file(text("k") + struct.pack("<I", STRING) + LONG, n_keys=1),
        FormatError,
        "gguf_invalid",
        "text of 'k'",
    ),
    "no UTF-8": (
        gguf_file({"k": (STRING, text(b"\xff\xfe"))}),
        FormatError,
        "gguf_invalid",
        "not UTF-8",
    ),
    "unknown type": (gguf_file({"k": (99, b"")}), FormatError, "gguf_invalid", "unknown type 99"),
    "neither": (gguf_file({"k": (7, b"\x02")}), FormatError, "gguf_invalid", "neither true"),
    "key twice": (
        gguf_file(keys_of({"k": 1}) * 2, n_keys=2),
        FormatError,
        "json_duplicate_key",
        "'k' stands twice",
    ),
    "long array": (
        gguf_file({"k": (ARRAY, struct.pack("<I", U32) + LONG)}),
        FormatError,
        "gguf_invalid",
        "values in all",
    ),
    "array beyond the end": (
        gguf_file({"k": (ARRAY, struct.pack("<IQ", U32, 1 << 20))}),
        FormatError,
        "header_truncated",
        "not complete",
    ),
    "deep arrays": (
        gguf_file({"k": (ARRAY, struct.pack("<IQ", ARRAY, 1) * 9)}),
        FormatError,
        "gguf_invalid",
        "arrays in arrays",
    ),
    "alignment": (
        gguf_file({"general.alignment": 24}),
        FormatError,
        "data_misaligned",
        "power of two",
    ),
    "no dimensions": (
        gguf_file({}, [tensor("a", (), F16, 0)]),
        FormatError,
        "tensor_shape",
        "0 dimensions",
    ),
    "five dimensions": (
        gguf_file({}, [tensor("a", (1,) * 5, F16, 0)]),
        FormatError,
        "tensor_shape",
        "5 dimensions",
    ),
    "empty dimension": (
        gguf_file({}, [tensor("a", (0, 2), F16, 0)]),
        FormatError,
        "tensor_shape",
        "not valid",
    ),
    "huge": (
        gguf_file({}, [tensor("a", (1 << 40, 1 << 40), F16, 0)]),
        FormatError,
        "tensor_shape",
        "not valid",
    ),
    "part of a block": (
        gguf_file({}, [tensor("a", (33, 2), Q4_0, 0)]),
        FormatError,
        "tensor_shape",
        "whole Q4_0 blocks",
    ),
    "refused type": (
        gguf_file({}, [tensor("a", (256,), 16, 0)]),
        UnsupportedError,
        "tensor_dtype",
        "IQ2_XXS",
    ),
    "offset": (
        gguf_file({}, [tensor("a", (4, 2), F16, 8)], bytes(64)),
        FormatError,
        "tensor_offsets",
        "multiple of 32",
    ),
    "beyond the end": (
        gguf_file({}, [ONE], bytes(15)),
        FormatError,
        "tensor_past_end",
        "download is not complete",
    ),
    "far beyond": (
        gguf_file({}, [tensor("a", (4, 2), F16, (1 << 64) - 32)], bytes(64)),
        FormatError,
        "tensor_past_end",
        "download is not complete",
    ),
    "overlap": (
        gguf_file({}, [ONE, tensor("b", (4, 2), F16, 0)], bytes(64)),
        FormatError,
        "tensor_overlap",
        "'a' and 'b' overlap",
    ),
    "name twice": (
        gguf_file({}, [ONE, tensor("a", (4, 2), F16, 32)], bytes(64)),
        FormatError,
        "tensor_name",
        "twice",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case: str, tmp_path: Path) -> None:
    data, kind, code, message = WRONG[case]
    with pytest.raises(kind, match=message) as caught:
        read_gguf(written(tmp_path, data))
    assert caught.value.code == code
    assert "model.gguf" in str(caught.value)


def test_values_of_all_arrays_count_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_VALUES", 10)
    path = written(tmp_path, gguf_file({"a": [1] * 6, "b": [1] * 4}))
    assert len(read_gguf(path).metadata["b"]) == 4
    with pytest.raises(FormatError, match="more than 10 values"):
        read_gguf(written(tmp_path, gguf_file({"a": [1] * 6, "b": [1] * 5})))


def part(number: int, n_parts: int, name: str) -> bytes:
    metadata = {"split.no": number, "split.count": n_parts, "split.tensors.count": n_parts}
    return gguf_file(metadata, [tensor(name, (4, 2), F16, 0)], bytes(16))


def test_parts_are_read_together(tmp_path: Path) -> None:
    paths = [
        written(tmp_path, part(i, 2, "ab"[i]), f"m-0000{i + 1}-of-00002.gguf") for i in range(2)
    ]
    for path in paths:  # whichever is given
        file = read_gguf(path)
        assert list(file.tensors) == ["a", "b"]
        assert [info.path for info in file.tensors.values()] == paths == list(file.paths)
    paths[1].write_bytes(part(1, 2, "a"))
    with pytest.raises(FormatError, match="stands in") as caught:
        read_gguf(paths[0])
    assert caught.value.code == "tensor_overlap"
    paths[1].write_bytes(part(0, 2, "b"))
    with pytest.raises(FormatError, match="says it is part 0"):
        read_gguf(paths[0])
    paths[1].unlink()
    with pytest.raises(FormatError, match="is not beside it: the download"):
        read_gguf(paths[0])
    alone = written(tmp_path, part(0, 2, "a"), "renamed.gguf")
    with pytest.raises(FormatError, match="whose name must end in"):
        read_gguf(alone)


def test_a_missing_file_and_a_missing_tensor_of_parts(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read_gguf(tmp_path / "none.gguf")
    assert caught.value.code == "file_not_found"
    metadata = {"split.no": 0, "split.count": 2, "split.tensors.count": 3}
    written(tmp_path, gguf_file(metadata, [ONE], bytes(16)), "m-00001-of-00002.gguf")
    written(tmp_path, part(1, 2, "b"), "m-00002-of-00002.gguf")
    with pytest.raises(FormatError, match=r"hold 2 tensors, split.tensors.count is 3"):
        read_gguf(tmp_path / "m-00001-of-00002.gguf")
