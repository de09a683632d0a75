"""Tokenizers that are trained here, and the verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgellm.converters.distill.bpe import SPECIALS, train_bpe
from edgellm.converters.tokenizer import compile_description
from edgellm.converters.tokenizer.source import describe

from command_line import data_of, edgellm
from edgellm._native import Tokenizer
from edgellm.errors import EdgeError

TEXT = "the cat sat on the mat, and the cat ate 12 rats.\n\tthere's a café там 你好 🙂\n"


def test_a_trained_tokenizer_is_read_by_the_converter_and_loses_nothing(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 20, encoding="utf-8")
    chat = tmp_path / "chat.jsonl"
    messages = [{"role": "user", "content": "the theatre"}]
    chat.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    n = train_bpe([text, chat], tmp_path / "one", 300)
    assert n == 300
    train_bpe([text, chat], tmp_path / "two", 300)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two
    # Proves equality with `tokenizers` on its own texts, too.
    compiled = compile_description(describe(tmp_path / "one"), None)
    tokenizer = Tokenizer.from_blob(compiled.blob)
    assert tokenizer.n_vocab == 300
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert len(tokenizer.encode(TEXT)) < len(TEXT.encode())
    assert [tokenizer.encode(name, special=True) for name in SPECIALS] == [[0], [1], [2], [3]]
    assert len(tokenizer.encode(" 123")) == 4  # digits one by one


def test_what_makes_no_tokenizer_says_why(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", encoding="utf-8")
    with pytest.raises(EdgeError, match="no text in it"):
        train_bpe([empty], tmp_path / "out", 300)
    with pytest.raises(EdgeError, match="n_vocab is 260 to"):
        train_bpe([empty], tmp_path / "out", 200)
    with pytest.raises(EdgeError, match="exists"):
        train_bpe([empty], tmp_path, 300)


def test_the_verb_trains_and_draws(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 20, encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""
student = {json.dumps(str(tiny_checkpoint))}
out = "out"
[data]
files = ["text.txt"]
valid = ["text.txt"]
window_tokens = 32
valid_windows = 2
[schedule]
steps = 2
[batch]
windows = 2
threads = 1
""",
        encoding="utf-8",
    )
    plot = tmp_path / "plot.svg"
    report = data_of(edgellm("train", recipe, "--plot", plot, "--json", cwd=tmp_path), "train")
    assert report["steps"] == 2
    assert report["after"]["loss_after"] < report["before"]["loss_after"]
    assert "<svg" in plot.read_text(encoding="utf-8")
    assert (tmp_path / "out" / "model.safetensors").exists()
