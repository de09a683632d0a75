"""converters/embedding.py: what sentence-transformers directories say, strange ones included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.embedding import embedding_files, read_embedding

from edgellm.errors import FormatError

MODEL = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
LAST = {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}


def read(directory: Path, **files: Any) -> dict[str, Any] | None:
    (directory / "1_Pooling").mkdir()
    (directory / "config.json").write_text("{}", encoding="utf-8")
    names = {
        "modules": "modules.json",
        "pooling": "1_Pooling/config.json",
        "lengths": "sentence_bert_config.json",
        "prompts": "config_sentence_transformers.json",
    }
    for key, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (directory / names[key]).write_text(text, encoding="utf-8")
    with Checkpoint(directory, without_weights=True) as checkpoint:
        assert set(embedding_files(checkpoint)) >= {names[key] for key in files}
        return read_embedding(checkpoint)


def test_a_plain_checkpoint_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (
            {"modules": [MODEL, POOLING, NORMALIZE], "pooling": LAST},
            {"pooling": "last", "normalize": True},
        ),
        (
            {
                "modules": [MODEL, POOLING],
                "pooling": {"pooling_mode_cls_token": True},
                "lengths": {"max_seq_length": 512, "do_lower_case": False},
                "prompts": {"prompts": {"query": "Instruct: "}, "default_prompt_name": None},
            },
            {"pooling": "cls", "normalize": False, "max_tokens": 512},
        ),
        (
            {"modules": [MODEL, POOLING], "pooling": {"pooling_mode": "mean"}},
            {"pooling": "mean", "normalize": False},
        ),
    ],
)
def test_what_is_done_as_it_says(
    files: dict[str, Any], wanted: dict[str, Any], tmp_path: Path
) -> None:
    assert read(tmp_path, **files) == wanted


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"modules": [MODEL, POOLING, DENSE, NORMALIZE], "pooling": LAST}, "Dense"),
        ({"modules": [MODEL, POOLING], "pooling": {"pooling_mode_max_tokens": True}}, "max_tokens"),
        (
            {"modules": [MODEL, POOLING], "pooling": {**LAST, "pooling_mode_cls_token": True}},
            "pooling_mode_lasttoken, pooling_mode_cls_token",
        ),
        ({"modules": [MODEL, POOLING], "pooling": {}}, "by nothing"),
        ({"modules": [MODEL, POOLING, POOLING], "pooling": LAST}, "Pooling"),
        ({"modules": [MODEL, NORMALIZE, POOLING], "pooling": LAST}, "Normalize before"),
        ({"modules": [MODEL]}, "without a pooling"),
        ({"modules": [{**DENSE, "path": ""}, POOLING], "pooling": LAST}, "Dense"),
        (
            {"modules": [MODEL, POOLING], "pooling": LAST, "lengths": {"do_lower_case": True}},
            "lower-casing",
        ),
        (
            {"modules": [MODEL, POOLING], "pooling": LAST, "prompts": {"default_prompt_name": "q"}},
            "prompt 'q'",
        ),
    ],
)
def test_what_is_not_done_is_left_out_by_name(
    files: dict[str, Any], said: str, tmp_path: Path
) -> None:
    found = read(tmp_path, **files)
    assert found is not None
    assert said in found["left_out"]


@pytest.mark.parametrize(
    "files",
    [
        {"modules": "{"},
        {"modules": "[" * 100_000},
        {"modules": []},
        {"modules": {"0": MODEL}},
        {"modules": [MODEL] * 100},
        {"modules": [MODEL, 7]},
        {"modules": [MODEL, {"path": 1, "type": "Pooling"}]},
        {"modules": [MODEL, {**POOLING, "path": "../1_Pooling"}]},
        {"modules": [MODEL, {**POOLING, "path": "/etc"}]},
        {"modules": [MODEL, POOLING], "pooling": [1]},
        {"modules": [MODEL, POOLING], "pooling": LAST, "lengths": {"max_seq_length": 0}},
        {"modules": [MODEL, POOLING], "pooling": LAST, "lengths": {"max_seq_length": "9"}},
    ],
)
def test_files_that_make_no_sense_are_typed_errors(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        read(tmp_path, **files)
