"""Model.embed(): what it takes, what it refuses, and what the file's own defaults change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import convert

import command_line
import edgellm
from edgellm.embedding import EmbeddingDefaults, parse_defaults
from tiny_model import D_MODEL, EOS, N_CTX, write_tiny_checkpoint

TEXTS = ["a cat", "a dog sat on the mat", "\u00e9"]


@pytest.fixture(scope="module")
def model(tiny_edge: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(tiny_edge) as loaded:
        yield loaded


def test_a_batch_is_its_texts_one_by_one(model):
    for pooling in ("mean", "last", "cls"):
        together = model.embed(TEXTS, pooling=pooling)
        assert together.shape == (3, D_MODEL)
        assert together.dtype == np.float32
        alone = [model.embed(text, pooling=pooling) for text in TEXTS]
        assert np.array_equal(together, np.concatenate(alone))
        assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_ids_are_one_text_as_the_tokenizer_writes_it(model):
    text = TEXTS[1]
    assert np.array_equal(model.embed(text), model.embed(model.tokenize(text)))
    assert not np.array_equal(model.embed(text), model.embed(model.tokenize(text, bos=False)))
    assert np.array_equal(model.embed(np.array(model.tokenize(text))), model.embed(text))


def test_where_nobody_says_otherwise_the_last_token_is_taken_and_normalised(model):
    assert np.array_equal(model.embed(TEXTS), model.embed(TEXTS, pooling="last", normalize=True))
    longer = model.embed(TEXTS, normalize=False)
    lengths = np.linalg.norm(longer, axis=1, keepdims=True)
    assert lengths.min() > 2
    assert np.allclose(longer / lengths, model.embed(TEXTS), atol=1e-6)


def test_what_comes_after_the_first_token_changes_mean_and_last_only(model):
    ids = model.tokenize(TEXTS[1])
    for pooling, is_same in (("cls", True), ("mean", False), ("last", False)):
        first, other = (model.embed(part, pooling=pooling) for part in (ids, ids[:-1]))
        assert np.array_equal(first, other) == is_same


@pytest.mark.parametrize(
    ("texts", "options", "error", "said"),
    [
        ([], {}, edgellm.InvalidArgumentError, "nothing to embed"),
        ("", {}, edgellm.InvalidArgumentError, "text 0 has no tokens"),
        (["a", ""], {}, edgellm.InvalidArgumentError, "text 1 has no tokens"),
        (["a", 1], {}, edgellm.InvalidArgumentError, "cannot be mixed"),
        ([1, 10**6], {}, edgellm.InvalidArgumentError, r"ids\[1\] is 1000000"),
        ([1.5], {}, edgellm.InvalidArgumentError, "token ids"),
        ("a", {"pooling": "max"}, edgellm.InvalidArgumentError, "mean, last, cls"),
        (["a", "b" * N_CTX], {}, edgellm.ContextOverflowError, "text 1 has 129 .* at most 128"),
        ([1] * (N_CTX + 1), {}, edgellm.ContextOverflowError, "ids has 129"),
    ],
)
def test_what_cannot_be_embedded_is_refused(model, texts, options, error, said):
    with pytest.raises(error, match=said):
        model.embed(texts, **options)


def test_truncation_cuts_the_end(model):
    whole = model.embed("b" * (N_CTX - 1))
    assert np.array_equal(model.embed("b" * (N_CTX + 9), truncate=True), whole)
    assert np.array_equal(model.embed([5] * (N_CTX + 9), truncate=True), model.embed([5] * N_CTX))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers directory: mean, as long as they are, at most 20 tokens, and a
    tokenizer that puts an id in front and one behind."""
    directory = write_tiny_checkpoint(tmp_path_factory.mktemp("described") / "st")
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    processor = tokenizer["post_processor"]
    processor["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    end = {"</s>": {"id": "</s>", "ids": [EOS], "tokens": ["</s>"]}}
    processor["special_tokens"] |= end
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    write_modules(directory, "Transformer", "Pooling")
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    return directory


def write_modules(directory: Path, *kinds: str) -> None:
    rows = [
        {"idx": at, "name": str(at), "path": f"{at}_{kind}" if at else "", "type": f"s.m.{kind}"}
        for at, kind in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")


def test_the_authors_pooling_length_and_normalisation_are_the_defaults(described, tmp_path):
    report = convert(described, tmp_path / "st.edge")
    assert {"modules.json", "1_Pooling/config.json"} <= set(report.source["files"])
    run = command_line.edgellm("inspect", tmp_path / "st.edge", cwd=tmp_path)
    assert "pooling mean, any length, at most 20 tokens" in run.stdout
    with edgellm.load(tmp_path / "st.edge") as model:
        text = TEXTS[0]
        wanted = model.embed(text, pooling="mean", normalize=False)
        assert np.array_equal(model.embed(text), wanted)
        assert not np.array_equal(model.embed(text, normalize=True), wanted)
        with pytest.raises(edgellm.ContextOverflowError, match=r"23 tokens.* at most 20"):
            model.embed("b" * 21)
        cut = model.embed("b" * 21, truncate=True)
        assert np.array_equal(cut, model.embed("b" * 18))
        ids = model.tokenize("b" * 21)
        assert ids[-1] == EOS
        assert np.array_equal(cut, model.embed([*ids[:19], EOS]))


def test_steps_that_are_not_done_ask_for_a_pooling_by_name(described, tmp_path):
    write_modules(described, "Transformer", "Pooling", "Dense", "Normalize")
    report = convert(described, tmp_path / "dense.edge")
    assert any("Dense" in warning for warning in report.warnings)
    with edgellm.load(tmp_path / "dense.edge") as model:
        with pytest.raises(edgellm.UnsupportedError, match="Dense"):
            model.embed("a")
        assert np.linalg.norm(model.embed("a", pooling="mean")) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"pooling": "max", "normalize": True},
        {"pooling": "mean"},
        {"pooling": "mean", "normalize": 1},
        {"pooling": "mean", "normalize": True, "max_tokens": 0},
        {"pooling": "mean", "normalize": True, "max_tokens": True},
        {"pooling": None, "normalize": True, "left_out": ""},
        {"pooling": "mean", "normalize": True, "prompt": "x"},
        {"pooling": "mean", "normalize": True, "left_out": "x" * 9000},
    ],
)
def test_defaults_that_make_no_sense_are_refused(value: Any) -> None:
    with pytest.raises(edgellm.FormatError, match=r"m\.edge: embedding"):
        parse_defaults(json.dumps(value).encode(), Path("m.edge"))


def test_defaults_of_a_file_without_any():
    assert parse_defaults(None, Path("m.edge")) == EmbeddingDefaults(None, True, None, None)
