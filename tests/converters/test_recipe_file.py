"""Recipes in TOML: what they choose, and how each way to be wrong is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgellm.converters import plan_conversion, read_recipe, write_recipe
from edgellm.converters import recipe as recipes
from edgellm.converters.quant.methods import Method
from edgellm.converters.recipe import CalibrationOptions, default_recipe, preset

from edgellm.errors import EdgeError

ROOT = Path(__file__).parents[2]
GOOD = """
name = "mixed"
[calibration]
n_windows = 3
window_tokens = 16
[[rules]]
pattern = "layers.0.ffn_down"
format = "E6_16"
method = "gptaq"
damping = 0.02
n_passes = 1
[[rules]]
pattern = "ffn_*"
format = "E4_32"
method = "gptq"
act = "f32"
[[rules]]
pattern = "*"
format = "E8_32"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_first_rule_that_matches_role_or_name_wins(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, GOOD)
    recipe = read_recipe(path)
    assert recipe.name == "mixed"
    assert recipe.calibration == CalibrationOptions(3, 16)
    down = recipe.choose("ffn_down", "layers.0.ffn_down")
    assert (down.format, down.act, down.method) == (
        "E6_16",
        "a8",
        Method("gptaq", damping=0.02, n_passes=1),
    )
    plan = plan_conversion(tiny_checkpoint, recipe=path, calibration=[path])
    found = {item.name: (item.format, item.act) for item in plan.tensors}
    assert found["layers.1.ffn_down"] == ("E4_32", "f32")
    assert found["layers.1.attn_q"] == ("E8_32", "a8")
    assert found["layers.1.ffn_norm"] == ("F32", None)


def test_a_recipe_without_a_name_has_that_of_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[[rules]]\npattern = "*"\nformat = "F16"\n')
    assert read_recipe(path).name == "recipe"


def test_the_recipe_in_the_docs_is_one(tiny_checkpoint: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "COMPRESSION.md").read_text(encoding="utf-8")
    path = write(tmp_path, text.split("```toml\n")[1].split("```")[0])
    plan = plan_conversion(tiny_checkpoint, recipe=path, calibration=[path])
    found = {item.role: item.format for item in plan.tensors}
    assert (found["token_embd"], found["ffn_down"], found["ffn_up"]) == ("E8_32", "E6_16", "E4_16")


RULE = '[[rules]]\npattern = "*"\nformat = "E4_16"\n'


@pytest.mark.parametrize("rotate_values", [False, True])
@pytest.mark.parametrize("rotate_keys", [None, False, True])
@pytest.mark.parametrize("balance_keys", [None, False, True])
def test_what_becomes_of_keys_and_values_is_written_and_read(
    tmp_path: Path, rotate_values: bool, rotate_keys: bool | None, balance_keys: bool | None
) -> None:
    choices = {"rotate_keys": rotate_keys, "balance_keys": balance_keys}
    recipe = replace(preset("E4_16"), rotate_values=rotate_values, **choices)
    write_recipe(recipe, tmp_path / "r.toml")
    assert read_recipe(tmp_path / "r.toml") == recipe


@pytest.mark.parametrize(
    ("text", "code", "match"),
    [
        ("name = ", "json_syntax", "not TOML"),
        ("a = " + "[" * 5000, "json_syntax", "not TOML"),
        ('name = "x"', "json_missing_key", "no \\[\\[rules\\]\\]"),
        ("rules = 3", "json_missing_key", "no \\[\\[rules\\]\\]"),
        ("rules = [3]", "json_type", "rule 1: not a table"),
        (RULE + "colour = 1", "json_unknown_key", "rule 1: 'colour' not known"),
        ("colour = 1\n" + RULE, "json_unknown_key", "'colour' not known"),
        ("rotate_values = 1\n" + RULE, "json_type", "'rotate_values' must be true or false"),
        ('rotate_keys = "auto"\n' + RULE, "json_type", "'rotate_keys' must be true or false"),
        ("[calibration]\nn = 1\n" + RULE, "json_unknown_key", "calibration: 'n' not known"),
        ("[calibration]\nn_windows = 0\n" + RULE, "invalid_argument", "calibration takes"),
        ("[calibration]\nn_windows = true\n" + RULE, "json_type", "must be a number"),
        ('[[rules]]\npattern = "*"', "json_missing_key", "needs 'pattern' and 'format'"),
        ('[[rules]]\npattern = 3\nformat = "F16"', "json_type", "'pattern' must be a text"),
        ('[[rules]]\npattern = "*"\nformat = "Q4"', "tensor_format", "rule 1.*'Q4' is not known"),
        (RULE + 'method = "magic"', "invalid_argument", "rule 1.*known: rtn, importance"),
        (RULE + 'act = "a4"', "invalid_argument", "rule 1.*'a4'"),
        (RULE + "damping = 0.1", "json_unknown_key", "'rtn' takes no damping"),
        (RULE + 'method = "gptq"\ndamping = 0', "invalid_argument", "0 < damping"),
        (RULE + 'method = "gptq"\ndamping = "a"', "json_type", "'damping' must be a number"),
        (RULE + 'method = "gptq"\nn_passes = 1.5', "json_type", "'n_passes' must be a number"),
        (RULE + 'method = "gptq"\ndamping = nan', "invalid_argument", "0 < damping"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, text: str, code: str, match: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(EdgeError, match=match) as caught:
        read_recipe(path)
    assert caught.value.code == code
    assert "recipe.toml" in str(caught.value)


def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=r"none\.toml: no such file"):
        read_recipe(tmp_path / "none.toml")
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EdgeError, match="not TOML"):
        read_recipe(path)


def test_the_default_formats_are_chosen_in_one_place(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats = {"token_embd": "E6_16", "output": "E8_32", "attn_*": "E4_16", "*": "E3_32"}
    monkeypatch.setattr(recipes, "DEFAULT_FORMATS", formats)
    found = {item.name: item.format for item in plan_conversion(tiny_checkpoint).tensors}
    assert (found["token_embd"], found["layers.0.attn_q"]) == ("E6_16", "E4_16")
    assert found["layers.0.ffn_down"] == "E3_32"
    assert default_recipe().formats(("output",)) == ("E8_32",)
    assert default_recipe(head_format="F16").formats(("output",)) == ("F16",)
    named = plan_conversion(tiny_checkpoint, format="E4_16")  # a named format is of all matrices
    assert {t.format for t in named.tensors if t.act is not None} == {"E4_16"}
