"""The script that makes a demo model: what it prepares can be trained, and what its card says."""

from __future__ import annotations

import argparse
import importlib.util
import json
import lzma
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.compress import read_compress_recipe
from edgellm.converters.distill import read_train_recipe
from edgellm.converters.distill.bpe import SPECIALS, train_bpe
from edgellm.converters.distill.save import save_checkpoint
from edgellm.converters.distill.student import random_weights
from edgellm.converters.plan import Job, Options
from edgellm.converters.recipe_file import read_recipe
from edgellm.converters.sources import open_checkpoint
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from edgellm import load

SCRIPT = Path(__file__).parents[2] / "examples" / "train_demo.py"
BENCHMARKS = SCRIPT.parents[1] / "benchmarks"
DIALOGUE = "User: How do I list files?\nAssistant: `ls`\nUser: All?\nAssistant: Say:\n`ls -a`"
SOURCES = """| repository | commit | licence as stated | train docs |
|---|---|---|---|
| tldr-pages/tldr | 08e345f42639f67d99282813247ac670dc6e87cb | CC BY 4.0 | 6725 |
| some/books | a0b16d35a9851168ce9ac649851c17b7ab08d48e | public domain in the USA | 4300 |
"""


def loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("train_demo", SCRIPT)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    corpus = tmp_path / "data" / "corpus"
    corpus.mkdir(parents=True)
    book = {"text": "Once upon a time. " * 200, "source": "some/books:a#1", "kind": "books"}
    asked = {"text": DIALOGUE, "source": "tldr-pages/tldr:ls.md", "kind": "dialogue"}
    for split, documents in (("train", [book, asked] * 10), ("valid", [book, asked])):
        with lzma.open(corpus / f"{split}.jsonl.xz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(document) + "\n" for document in documents)
    (corpus / "SOURCES.md").write_text(SOURCES, encoding="utf-8")
    return tmp_path / "data"


def options(**changes: Any) -> argparse.Namespace:
    """Of the command line."""
    defaults = {"size": "small", "steps": 40, "stride": 1, "begin": None, "threads": 1}
    return argparse.Namespace(**{**defaults, **changes})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_is_prepared_can_be_trained_and_compressed(
    script: ModuleType, data: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    script.prepare(data, work, options())
    recipe = read_train_recipe(work / "train.toml")
    assert recipe.schedule.steps == 40
    assert recipe.student == work / "student"
    then = read_compress_recipe(work / "compress.toml")
    assert then.source == recipe.out
    formats = then.steps[0].options.recipe
    assert [chosen.name for chosen in then.steps] == ["quantize", "refine", "draft_head"]
    assert read_recipe(formats).choose("token_embd").format == "E6_16"
    with open_checkpoint(recipe.student, without_weights=True) as student:
        spec = Job(student, Options("F16", None, None, None)).spec
    assert spec.d_model % 256 == spec.n_vocab % 256 == 0

    learnt = lines(work / "train.jsonl")
    assert len(learnt) == 10 + 10 * script.TIMES["tldr-pages/tldr"]
    assert [message["role"] for message in learnt[1]["messages"]] == ["user", "assistant"] * 2
    assert learnt[1]["messages"][3]["content"] == "Say:\n`ls -a`"
    assert learnt[0]["kind"] == "books"


@pytest.fixture
def begun(script: ModuleType, data: Path, tmp_path: Path) -> Path:
    """A checkpoint of the small shape with another tokenizer, its weights random."""
    begin = tmp_path / "begin"
    text = tmp_path / "text.jsonl"
    text.write_text(json.dumps({"text": "How do I list files? Once. " * 9}), encoding="utf-8")
    n_vocab = train_bpe([text], begin, 272)
    shape = {**script.config("small", n_vocab), "num_hidden_layers": 1}
    (begin / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    with open_checkpoint(begin, without_weights=True) as opened:
        job = Job(opened, Options("F16", None, None, None))
        random = random_weights(job, 5)
        save_checkpoint(opened, job, random, tmp_path / "whole")
    return tmp_path / "whole"


def test_a_model_goes_on_with_another_tokenizer(
    script: ModuleType, data: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token is the mean of those that spelt it, and all else is what it was."""
    work = tmp_path / "work"
    monkeypatch.setitem(script.SIZES["small"], "num_hidden_layers", 1)
    monkeypatch.setattr(script, "THINNED", {"books": 5})
    script.prepare(data, work, options(begin=begun))
    n_asked = script.TIMES["tldr-pages/tldr"] * 10
    assert [line["kind"] for line in lines(work / "train.jsonl")].count("books") == 2
    assert len(lines(work / "train.jsonl")) == 2 + n_asked

    folders = (begun, work / "student")
    old, new = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in folders)
    before, after = (load_file(folder / "model.safetensors") for folder in folders)
    assert before.keys() == after.keys()
    was, rows = before.pop(script.EMBEDDING), after.pop(script.EMBEDDING)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    config = json.loads((work / "student" / "config.json").read_bytes())
    assert len(was) < len(rows) == config["vocab_size"]
    longest = 0
    for index in range(len(SPECIALS), new.get_vocab_size()):
        text = new.decode([index])
        if text.isascii():
            spelt = old.encode(text).ids
            longest = max(longest, len(spelt))
            np.testing.assert_array_equal(rows[index], was[spelt].mean(0), text)
    assert longest > 2
    np.testing.assert_array_equal(rows[: len(SPECIALS)], was[: len(SPECIALS)])
    assert not rows[new.get_vocab_size() :].any()
    assert read_train_recipe(work / "train.toml").optimizer.rate == script.RATE_ON

    with pytest.raises(SystemExit, match="another shape: hidden_size 256, not 512"):
        script.begin_from(begun, work / "student", script.config("large", 512))


@pytest.mark.parametrize("size", ["small", "large"])
def test_widths_are_multiples_of_256(script: ModuleType, size: str) -> None:
    config = script.config(size, 8192)
    assert config["hidden_size"] % 256 == config["intermediate_size"] % 256 == 0
    assert config["num_attention_heads"] * config["head_dim"] == config["hidden_size"]


def test_the_card_names_every_source_and_stops_at_an_unknown_one(
    script: ModuleType, data: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    script.prepare(data, work, options())
    first = {"perplexity": 20.0, "kl": 0.0, "n_bytes": 27_000_000}
    last: dict[str, Any] = {"perplexity": 20.5, "kl": 0.0123, "n_bytes": 4_567_890}
    last["figures"] = {"layers": 1.49, "text": [{"greedy": 0.614}, {"greedy": 0.6}]}
    report = {"steps": [first, last], "n_tokens_measured": 16_384}
    (work / "demo.report.json").write_text(json.dumps(report), encoding="utf-8")
    (work / "trained.work").mkdir()
    curve = [{"step": 40, "n_tokens": 327_680, "loss": 3.5}, {"step": 40, "valid": {}}]
    text = "\n".join(map(json.dumps, curve))
    (work / "trained.work" / "curve.jsonl").write_text(text, encoding="utf-8")
    card = script.card(data, work)
    for found in (
        "327,680 tokens, loss 3.500",
        "20.50 after",
        "0.01230",
        "4,567,890 bytes",
        "61.4%",
    ):
        assert found in card
    assert "trained from scratch" in card
    assert "| some/books | 10 | a0b16d35a985 | public domain in the USA |" in card
    (data / "corpus" / "SOURCES.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(SystemExit, match="says nothing of"):
        script.card(data, work)


def test_answers_stand_side_by_side_and_unedited(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own file a checkpoint says the same; one with all logits negated nothing of it."""
    benchmark = loaded("demo_answers", BENCHMARKS / "demo_answers.py")
    monkeypatch.setattr(benchmark, "SHELL", ("How do I list files?",))
    monkeypatch.setattr(benchmark, "STORIES", ("Once",))
    edge, out, other = tmp_path / "model.edge", tmp_path / "answers.md", tmp_path / "other"
    convert(begun, edge, format="F16")
    shutil.copytree(begun, other)
    weights = load_file(begun / "model.safetensors")
    weights["model.norm.weight"] *= -1
    save_file(weights, other / "model.safetensors")
    with load(edge) as model:
        said = model.generate("Once", max_tokens=8).text
    for checkpoint, same in ((begun, "8 of 8"), (other, "0 of 8")):
        arguments = ["--model", edge, "--checkpoint", checkpoint, "--out", out, "--max-tokens", 8]
        assert benchmark.main(list(map(str, arguments))) == 0
        rows = [line for line in out.read_text(encoding="utf-8").splitlines() if " of " in line]
        cells = [row.strip("| ").split(" | ") for row in rows]
        assert [(row[0], row[-1]) for row in cells] == [
            ("How do I list files?", same),
            ("Once", same),
        ]
        assert cells[1][2] == benchmark._cell(said)
