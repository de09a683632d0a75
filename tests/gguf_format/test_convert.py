"""`edgellm convert model.gguf`: formats by type, what goes along, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import convert, plan_conversion
from edgellm.converters.gguf.types import FORMATS
from edgellm.converters.quant import decode_matrix
from edgellm.converters.reference import Reference
from edgellm.converters.sources import open_checkpoint

import edgellm
from command_line import edgellm as run_edgellm
from edgellm.edgefile import read_header, read_tensor
from gguf_format.model import MATRICES, METADATA, VOCAB, WIDTH, model_bytes

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A file of model_bytes(**changes)."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(model_bytes(**changes))
        return path

    return write


def test_each_type_goes_to_its_format_and_runs(make: Make, tmp_path: Path) -> None:
    path, out = make(), tmp_path / "out.edge"
    report = convert(path, out)
    header = read_header(out)
    formats = {name: info.format for name, info in header.tensors.items()}
    names = {"attn_output": "attn_o", "token_embd": "token_embd"}
    for name, (kind, _) in MATRICES.items():
        stem = name.rpartition(".")[2]
        role = names.get(stem, stem)
        choice = FORMATS.get(kind)
        own = f"layers.0.{role}" if name.startswith("blk") else role
        assert formats[own] == ((choice.exact or choice.nearest) if choice else "F16"), name
    errors = {tensor.name: tensor.rel_rms_error for tensor in report.tensors}
    assert errors["layers.0.attn_q"] == 0
    assert 0 < errors["layers.0.attn_o"] < 0.03
    with open_checkpoint(path) as checkpoint:
        rows = checkpoint.read_rows("blk.0.attn_q.weight -> layers.0.attn_q", 0, WIDTH)
    data = np.frombuffer(read_tensor(header, "layers.0.attn_q"), dtype=np.uint8)
    assert np.array_equal(decode_matrix("L4_32", data, WIDTH, WIDTH), rows)
    source = json.loads(header.metadata["edgellm.source"])
    assert (source["kind"], list(source["files"])) == ("gguf", ["model.gguf"])
    with edgellm.load(out) as model:
        ids = model.tokenize("ab <tool>")
        assert ids[0] == 1
        assert ids[-1] == 7
        got = model.logits(ids)
    wanted_logits = Reference.from_checkpoint(path).logits(ids).numpy()
    assert got.shape == (len(ids), VOCAB)
    assert np.abs(got - wanted_logits).max() < 0.1 * np.abs(wanted_logits).max()


def test_the_template_and_the_special_tokens_go_along(make: Make, tmp_path: Path) -> None:
    convert(make(), tmp_path / "out.edge")
    header = read_header(tmp_path / "out.edge")
    assert read_tensor(header, "chat_template") == b"{{ messages }}"
    assert json.loads(bytes(read_tensor(header, "special_tokens")))["eos_token"] == "</s>"
    spec = json.loads(header.metadata["edgellm.spec"])
    assert (spec["bos_id"], spec["eos_ids"]) == (1, [2])


def test_another_format_rounds_what_was_exact(make: Make) -> None:
    plan = plan_conversion(make(), format="E4_32")
    assert {tensor.format for tensor in plan.tensors if tensor.act} == {"E4_32"}
    assert any("2 matrices that the checkpoint holds quantized" in w for w in plan.warnings)
    assert not any("rounded again" in warning for warning in plan_conversion(make()).warnings)


def test_the_verb(make: Make, tmp_path: Path) -> None:
    make()
    run = run_edgellm("convert", "model.gguf", "--dry-run", cwd=tmp_path)
    assert run.returncode == 0
    assert "L4_32" in run.stdout
    assert not list(tmp_path.glob("*.edge"))


def test_factors_of_rotary_frequencies_are_divided_by(make: Make) -> None:
    plain, slowed = (1.0,) * 8, (1.0,) * 4 + (8.0,) * 4
    tables = []
    for factors in (plain, slowed):
        with open_checkpoint(make(factors=factors)) as checkpoint:
            tables.append(checkpoint.arch.tables(checkpoint.config)["rope_inv_freq"])
    assert np.array_equal(tables[1], tables[0] / np.array(slowed, dtype=np.float32))


def test_its_pooling_is_the_default_of_embeddings(make: Make, tmp_path: Path) -> None:
    convert(make(metadata=METADATA | {"llama.pooling_type": 1}), tmp_path / "out.edge")
    stored = json.loads(bytes(read_tensor(tmp_path / "out.edge", "embedding")))
    assert stored == {"pooling": "mean", "normalize": True}


def test_unknown_keys_are_named(make: Make) -> None:
    plan = plan_conversion(make(metadata=METADATA | {"llama.novel": 3}))
    assert "GGUF keys without effect: llama.novel" in plan.warnings


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "architecture": (
        {"metadata": METADATA | {"general.architecture": "mamba"}},
        "spec_unsupported",
        "'mamba' is not supported",
    ),
    "no architecture": (
        {"metadata": {k: v for k, v in METADATA.items() if not k.startswith("general")}},
        "json_missing_key",
        "not a model",
    ),
    "key": (
        {"metadata": METADATA | {"llama.attention.clamp_kqv": 8.0, "llama.pooling_type": 4}},
        "spec_unsupported",
        "clamp_kqv = 8.0, llama.pooling_type = 4",
    ),
    "layers": (
        {"metadata": METADATA | {"llama.block_count": 1 << 31}},
        "spec_invalid",
        "layers",
    ),
    "missing": (
        {"metadata": {k: v for k, v in METADATA.items() if k != "llama.block_count"}},
        "json_missing_key",
        "'llama.block_count' is missing",
    ),
    "several sizes": (
        {"metadata": METADATA | {"llama.attention.head_count_kv": [2, 4]}},
        "spec_unsupported",
        "several sizes",
    ),
    "no number": (
        {"metadata": METADATA | {"llama.embedding_length": "64"}},
        "gguf_invalid",
        "must be a whole number",
    ),
    "rope": (
        {"metadata": METADATA | {"llama.rope.scaling.type": "novel"}},
        "spec_unsupported",
        "'novel'",
    ),
    "partial": (
        {"metadata": METADATA | {"llama.rope.dimension_count": 8}},
        "spec_unsupported",
        "rope.dimension_count is not the size of a head",
    ),
    "values": (
        {"metadata": METADATA | {"llama.attention.value_length": 8}},
        "spec_unsupported",
        "must be equal",
    ),
    "tensor": (
        {"without": ["blk.0.attn_k.weight"]},
        "tensor_missing",
        "attn_k.weight' is missing",
    ),
    "extra": (
        {"extra": {"blk.0.attn_sinks.weight": ("F32", (4,))}},
        "tensor_unexpected",
        "not understood: blk.0.attn_sinks.weight",
    ),
    "shape": (
        {"metadata": METADATA | {"llama.feed_forward_length": 96}},
        "tensor_shape",
        "its keys ask for",
    ),
    "quantized vector": (
        {
            "without": ["output_norm.weight"],
            "extra": {"output_norm.weight": ("Q8_0", (WIDTH,))},
        },
        "tensor_dtype",
        "a vector of type Q8_0",
    ),
    "factors": ({"factors": (1.0, 2.0)}, "tensor_shape", "2 factors"),
    "no frequency": ({"factors": (float("inf"),) * 8}, "spec_invalid", "0 or infinite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, make: Make) -> None:
    changes, code, message = REFUSED[case]
    with pytest.raises(edgellm.EdgeError, match=message) as caught:
        plan_conversion(make(**changes))
    assert caught.value.code == code


def test_a_vocabulary_alone_is_planned_but_not_converted(make: Make, tmp_path: Path) -> None:
    from gguf_format.raw import gguf_file

    path = tmp_path / "vocab.gguf"
    path.write_bytes(gguf_file(METADATA))
    assert plan_conversion(path).spec.n_vocab == VOCAB
    with pytest.raises(edgellm.FormatError, match="a vocabulary and no tensors"):
        convert(path, tmp_path / "out.edge")


def test_a_scale_that_is_not_finite_names_its_tensor(make: Make, tmp_path: Path) -> None:
    path = make()
    with open_checkpoint(path) as checkpoint:
        info = checkpoint.tensors["blk.0.attn_output.weight"]
    data = bytearray(path.read_bytes())
    data[info.offset_bytes : info.offset_bytes + 2] = b"\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(edgellm.NumericError, match=r"blk.0.attn_output.weight"):
        convert(path, tmp_path / "out.edge")
    assert not (tmp_path / "out.edge").exists()
