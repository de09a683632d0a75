"""Models in L4_32, L8_32 and K4_32: equal to the oracle, the same bits, broken scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.reference import Reference

import edgellm
from edgellm import _native
from edgellm.edgefile import EdgeWriter, read_header, read_tensor
from edgellm.errors import NumericError
from golden.measures import nmse
from golden.test_same_bits import MAX_TOKENS, logits_in_pieces, logits_in_process
from golden.tiny import CASE_NAMES, case_ids, case_named, tiny_checkpoint

CASE = case_named(CASE_NAMES[1])  # its head is not tied


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("l4"), CASE)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    out = checkpoint.parent / "l4.edge"
    convert(checkpoint, out, format="L4_32")
    return out


@pytest.mark.parametrize("format", ["K4_32", "L4_32", "L8_32"])
def test_native_equals_the_reference(format: str, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.edge"
    convert(checkpoint, out, format=format, act="f32")
    ids = case_ids(CASE)
    wanted = Reference.from_edge(out).logits(ids, kv="F16").numpy()
    with edgellm.load(out, kv="F16", verify="never") as native:
        assert nmse(wanted, native.logits(ids)) <= 1e-6


def test_the_bits_are_the_same_for_every_level_thread_count_and_split(
    model: Path, tmp_path: Path
) -> None:
    wanted = logits_in_process(model, tmp_path / "scalar.npy", "scalar", 1)
    assert np.isfinite(wanted).all()
    for isa in _native.isa_levels():
        got = logits_in_process(model, tmp_path / f"{isa}.npy", isa, 2)
        assert np.array_equal(wanted, got), isa
    for piece_tokens in (1, 7, MAX_TOKENS):
        assert np.array_equal(wanted, logits_in_pieces(model, piece_tokens)), piece_tokens


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E01])  # infinities and a NaN
@pytest.mark.parametrize("name", ["token_embd", "layers.0.attn_v", "layers.1.ffn_down", "output"])
def test_a_scale_that_is_not_finite_ends_the_step(
    name: str, bits: int, model: Path, tmp_path: Path
) -> None:
    check_broken_scale(name, bits, model, tmp_path)


@pytest.mark.parametrize(
    ("format", "name"),
    [("K4_32", "token_embd"), ("K4_32", "layers.1.ffn_down"), ("L8_32", "layers.0.attn_v")],
)
def test_an_infinite_scale_of_the_other_formats_ends_the_step(
    format: str, name: str, checkpoint: Path, tmp_path: Path
) -> None:
    convert(checkpoint, tmp_path / "model.edge", format=format)
    check_broken_scale(name, 0x7C00, tmp_path / "model.edge", tmp_path)


def check_broken_scale(name: str, bits: int, model: Path, tmp_path: Path) -> None:
    """The first scales of the tensor, of L4_32's or L8_32's tile or K4_32's head, are replaced."""
    header = read_header(model)
    assert name in header.tensors
    with EdgeWriter(tmp_path / "bad.edge", spec=header.spec) as writer:
        for info in header.tensors.values():
            if info.name == "edgellm.hashes":
                continue
            data = bytearray(read_tensor(header, info.name))
            if info.name == name:
                for row in range(16):  # the first strip: tokens 0 to 15
                    data[64 + 2 * row : 66 + 2 * row] = bits.to_bytes(2, "little")
            shape = (len(data),) if info.format == "U8" else info.shape
            writer.append(
                info.name, info.role, bytes(data), format=info.format, shape=shape, act=info.act
            )
    with (
        edgellm.load(tmp_path / "bad.edge", verify="always") as native,
        pytest.raises(NumericError, match="infinite or NaN"),
    ):
        native.logits([3, 5, 7])
