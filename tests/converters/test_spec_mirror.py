"""ModelSpec in Python and in C++ are the same list of fields with the same ranges."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from edgellm.converters import spec as spec_module
from edgellm.converters.spec import LayerSpec, ModelSpec

REPO = Path(__file__).resolve().parents[2]
HEADER = (REPO / "native/src/model/spec.h").read_text(encoding="utf-8")
SOURCE = (REPO / "native/src/model/spec.cc").read_text(encoding="utf-8")
CPP_TYPES = {
    "std::string": "str",
    "int": "int",
    "int32_t": "int",
    "float": "float",
    "bool": "bool",
    "NormKind": "str",
    "RopeUse": "str",
    "QkNorm": "str",
    "FfnAct": "str",
    "Mixer": "str",
    "std::vector<int32_t>": "tuple[int, ...]",
    "std::vector<LayerSpec>": "tuple[LayerSpec, ...]",
}


def cpp_fields(struct: str) -> dict[str, str]:
    body = re.search(rf"struct {struct} \{{(.*?)\n\}};", HEADER, re.DOTALL)
    assert body is not None, f"no struct {struct} in spec.h"
    found = re.findall(r"^  ([\w:<>]+) (\w+)(?: = [^;]+)?;", body.group(1), re.MULTILINE)
    return {name: CPP_TYPES[cpp_type] for cpp_type, name in found}


@pytest.mark.parametrize("cls", [ModelSpec, LayerSpec])
def test_fields_have_the_same_names_types_and_order_in_both_languages(cls: type) -> None:
    python_fields = {field.name: field.type for field in fields(cls)}
    assert list(cpp_fields(cls.__name__).items()) == list(python_fields.items())


@pytest.mark.parametrize("cls", [ModelSpec, LayerSpec])
def test_the_native_reader_knows_exactly_these_keys(cls: type) -> None:
    names = {field.name for field in fields(cls)}
    key_lists = re.findall(r"only_keys\(\s*\{(.*?)\}", SOURCE, re.DOTALL)
    assert names in [set(re.findall(r'"(\w+)"', text)) for text in key_lists]


def test_ranges_are_the_same_in_both_languages() -> None:
    constants = {
        "kMaxVocab": spec_module.MAX_VOCAB,
        "kMaxWidth": spec_module.MAX_WIDTH,
        "kMaxLayers": spec_module.MAX_LAYERS,
        "kMaxHeads": spec_module.MAX_HEADS,
        "kMaxHeadDim": spec_module.MAX_HEAD_DIM,
        "kMaxFfn": spec_module.MAX_FFN,
        "kMaxContext": spec_module.MAX_CONTEXT,
        "kMaxEosIds": spec_module.MAX_EOS_IDS,
        "kMaxExperts": spec_module.MAX_EXPERTS,
        "kMaxConvKernel": spec_module.MAX_CONV_KERNEL,
    }
    for name, value in constants.items():
        found = re.search(rf"{name} = ([\d <]+);", SOURCE)
        assert found is not None, name
        base, _, shift = found.group(1).partition(" << ")
        assert int(base) << int(shift or 0) == value, name
