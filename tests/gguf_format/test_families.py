"""Every architecture both ways: a Hugging Face directory and a GGUF file of the same tiny model
give the same spec and the same tensors, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.adapter import convert_adapter
from edgellm.converters.plan import Job, Options
from edgellm.converters.sources import open_checkpoint

from edgellm.edgefile import read_header, read_tensor
from gguf_format.families import ARCHS, WITHOUT, write_gguf
from golden.adapters import write_peft_of
from golden.families import FAMILIES, family_model

F16 = Options("F16", None, None, None)


def changed_model(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(FAMILIES, name, FAMILIES[name] | WITHOUT[name])
    return family_model(name)


@pytest.mark.parametrize("name", WITHOUT)
def test_both_ways_give_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = changed_model(name, monkeypatch)
    model.save_pretrained(tmp_path / "hf")
    path = write_gguf(model, tmp_path / "model.gguf")
    with open_checkpoint(tmp_path / "hf") as one, open_checkpoint(path) as other:
        wanted, got = Job(one, F16), Job(other, F16)
        assert got.spec == replace(wanted.spec, arch=wanted.spec.arch.replace("mistral", "llama"))
        assert [item.name for item in got.planned] == [item.name for item in wanted.planned]
        assert not got.warnings
        for key, table in wanted.tables.items():
            assert np.array_equal(got.tables[key], table), key
        for item, same in zip(wanted.planned, got.planned, strict=True):
            if item.source is None:
                continue
            n_rows, half = item.rows_cols[0], item.rows_cols[0] // 2
            rows = wanted.read_rows(item, 0, n_rows)
            assert np.array_equal(got.read_rows(same, 0, n_rows), rows), item.name
            if half and len(item.shape) == 2:
                assert np.array_equal(got.read_rows(same, half, n_rows - half), rows[half:])


def test_experts_may_stand_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = changed_model("mixtral_window", monkeypatch)
    stacked = write_gguf(model, tmp_path / "stacked.gguf")
    split = write_gguf(model, tmp_path / "split.gguf", split_experts=True)
    with open_checkpoint(stacked) as one, open_checkpoint(split) as other:
        wanted, got = Job(one, F16), Job(other, F16)
        assert len(other.weight_paths) == 1
        for item, same in zip(wanted.planned, got.planned, strict=True):
            if item.source is not None:
                rows = wanted.read_rows(item, 0, item.rows_cols[0])
                assert np.array_equal(got.read_rows(same, 0, item.rows_cols[0]), rows)


def test_adapters_fit_a_granite_made_from_gguf(tmp_path: Path) -> None:
    """Its multipliers are in the weights; the file says which."""
    model = family_model("granite_multipliers")
    model.save_pretrained(tmp_path / "hf")
    write_gguf(model, tmp_path / "model.gguf")
    write_peft_of(tmp_path / "peft", model)
    made = []
    for source in ("hf", "model.gguf"):
        base, adapter = tmp_path / f"{source}.edge", tmp_path / f"{source}-adapter.edge"
        convert(tmp_path / source, base, format="F16")
        convert_adapter(tmp_path / "peft", adapter, base=base)
        header = read_header(adapter)
        names = [name for name in header.tensors if "lora" in name]
        made.append({name: bytes(read_tensor(header, name)) for name in names})
    assert len(made[0]) == 2 * 2 * 7  # two halves, two layers
    assert made[0] == made[1]


def test_every_architecture_has_a_row() -> None:
    from edgellm.converters.gguf.architectures import ARCHITECTURES

    types = {FAMILIES[name]["model_type"] for name in WITHOUT}
    assert {ARCHS.get(kind, kind) for kind in types} == set(ARCHITECTURES)
