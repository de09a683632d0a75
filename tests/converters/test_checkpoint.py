"""The safetensors reader: right values, and a typed error for every way a directory is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.safetensors_header import read_safetensors_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm.errors import EdgeError, FormatError, UnsupportedError
from golden.tiny import CASES, hf_config, llama_shapes, named_weights, tiny_checkpoint

CASE = CASES[0]


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("n_shards", [1, 3])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_rows_arrive_as_exact_float32_from_every_dtype(
    dtype: str, n_shards: int, tmp_path: Path
) -> None:
    directory = tiny_checkpoint(tmp_path, CASE, dtype=dtype, n_shards=n_shards)
    stored = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}[dtype]
    with Checkpoint(directory) as checkpoint:
        shapes = llama_shapes(hf_config(CASE))
        assert set(checkpoint.tensors) == set(shapes)
        for name, shape in shapes.items():
            wanted = named_weights(name, shape).astype(stored).astype(np.float32)
            if len(shape) == 1:
                got = checkpoint.read_rows(name, 0, 1)[0]
            else:
                parts = [checkpoint.read_rows(name, r, 1) for r in range(3)]
                got = np.concatenate([*parts, checkpoint.read_rows(name, 3, shape[0] - 3)])
            np.testing.assert_array_equal(got, wanted)


def test_a_wrong_path_names_the_nearest_directories(tmp_path: Path) -> None:
    (tmp_path / "llama-3.2-1b").mkdir()
    with pytest.raises(FormatError, match=r"did you mean .*llama-3\.2-1b") as caught:
        Checkpoint(tmp_path / "llama-3.2-1B")
    assert caught.value.code == "file_not_found"


def test_a_safetensors_file_in_place_of_its_directory_is_explained(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path, CASE)
    with pytest.raises(FormatError, match="give its directory"):
        Checkpoint(directory / "model.safetensors")


def test_pickled_weights_are_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(UnsupportedError, match="convert to safetensors first"):
        Checkpoint(tmp_path)


def test_a_directory_without_weights_or_config_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"config\.json"):
        Checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FormatError, match=r"neither model\.safetensors nor"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "file_name",
    ["../evil.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", ".safetensors", "..", ""],
)
def test_shard_names_cannot_leave_the_directory(file_name: str, tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path, CASE, n_shards=2)
    index = {"weight_map": {"model.norm.weight": file_name}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match="only plain"):
        Checkpoint(directory)


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path, CASE)
    outside = tmp_path / "outside.safetensors"
    (directory / "model.safetensors").rename(outside)
    (directory / "model.safetensors").symlink_to(outside)
    with pytest.raises(FormatError, match="link out of"):
        Checkpoint(directory)


def test_the_links_of_a_hub_cache_are_followed(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "snapshots", CASE)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (directory / "model.safetensors").rename(blobs / "0123abcd")
    (directory / "model.safetensors").symlink_to("../../blobs/0123abcd")
    with Checkpoint(directory) as checkpoint:
        assert checkpoint.read_rows("model.norm.weight", 0, 1).shape == (1, CASE["hidden_size"])


def test_a_shard_that_the_index_names_must_exist_and_hold_the_tensor(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path, CASE, n_shards=2)
    index_path = directory / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    first, second = sorted(set(index["weight_map"].values()))
    moved = next(name for name, shard in index["weight_map"].items() if shard == first)
    index["weight_map"][moved] = second
    index_path.write_text(json.dumps(index))
    with pytest.raises(FormatError, match="is not in") as caught:
        Checkpoint(directory)
    assert caught.value.code == "tensor_missing"
    (directory / first).unlink()
    with pytest.raises(FormatError, match="download is not complete"):
        Checkpoint(directory)


GOOD = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("header", "data", "code"),
    [
        ({"a": GOOD}, bytes(23), "tensor_past_end"),
        ({"a": GOOD}, bytes(25), "trailing_bytes"),
        ({"a": {**GOOD, "dtype": "F99"}}, bytes(24), "tensor_dtype"),
        ({"a": {**GOOD, "dtype": ["F32"]}}, bytes(24), "tensor_dtype"),
        ({"a": {**GOOD, "shape": [2, -3]}}, bytes(24), "tensor_shape"),
        ({"a": {**GOOD, "shape": [1 << 61, 1 << 61]}}, bytes(24), "tensor_offsets"),
        ({"a": {**GOOD, "shape": [2.0, 3]}}, bytes(24), "tensor_shape"),
        ({"a": {**GOOD, "data_offsets": [0, 20]}}, bytes(24), "tensor_offsets"),
        ({"a": {**GOOD, "data_offsets": [24, 0]}}, bytes(24), "tensor_offsets"),
        ({"a": {**GOOD, "data_offsets": [0]}}, bytes(24), "tensor_offsets"),
        ({"a": {**GOOD, "data_offsets": [4, 28]}}, bytes(28), "tensor_hole"),
        ({"a": GOOD, "b": {**GOOD, "data_offsets": [20, 44]}}, bytes(44), "tensor_overlap"),
        ({"a": {"dtype": "F32", "shape": [2, 3]}}, bytes(24), "json_type"),
        ({"a": 3}, b"", "json_type"),
        ([], b"", "json_type"),
        (b"{", b"", "json_syntax"),
        (b"\xff\xfe", b"", "json_syntax"),
        (b"[" * 200_000, b"", "json_syntax"),
        (b'{"a":1,"a":1}', b"", "json_duplicate_key"),
    ],
)
def test_every_defect_of_a_header_has_its_code(
    header: Any, data: bytes, code: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError) as caught:
        read_safetensors_header(write_raw(tmp_path / "x.safetensors", header, data))
    assert caught.value.code == code


def test_lengths_are_checked_before_they_are_used(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"1234567")
    with pytest.raises(FormatError, match="too small"):
        read_safetensors_header(path)
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(FormatError, match="header says"):
        read_safetensors_header(path)
    path.write_bytes((1 << 20).to_bytes(8, "little") + b"{}")
    with pytest.raises(FormatError, match="ends inside its header"):
        read_safetensors_header(path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 400), value=st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7D]))
def test_a_changed_header_byte_gives_a_typed_error_or_a_valid_table(
    position: int, value: int, tmp_path: Path
) -> None:
    text = json.dumps({"a": GOOD, "b": {**GOOD, "data_offsets": [24, 48]}}).encode()
    blob = bytearray(len(text).to_bytes(8, "little") + text + bytes(48))
    blob[position % (8 + len(text))] = value
    path = tmp_path / "x.safetensors"
    path.write_bytes(blob)
    try:
        tensors = read_safetensors_header(path)
    except EdgeError:
        return
    assert sum(info.n_bytes for info in tensors) <= 48


def test_a_file_that_shrinks_while_it_is_read_is_an_error_not_zeros(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path, CASE)
    with Checkpoint(directory) as checkpoint:
        path = directory / "model.safetensors"
        path.write_bytes(path.read_bytes()[:2000])
        name = max(checkpoint.tensors.values(), key=lambda info: info.offset_bytes).name
        with pytest.raises(FormatError, match="shrank"):
            checkpoint.read_rows(name, 0, 1)
