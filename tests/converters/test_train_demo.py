"""The script that makes a demo model: what it prepares can be trained, and what its card says."""

from __future__ import annotations

import importlib.util
import json
import lzma
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from edgellm.converters.compress import read_compress_recipe
from edgellm.converters.distill import read_train_recipe
from edgellm.converters.plan import Job, Options
from edgellm.converters.recipe_file import read_recipe
from edgellm.converters.sources import open_checkpoint

SCRIPT = Path(__file__).parents[2] / "examples" / "train_demo.py"
DIALOGUE = "User: How do I list files?\nAssistant: `ls`\nUser: All?\nAssistant: Say:\n`ls -a`"
SOURCES = """| repository | commit | licence as stated | train docs |
|---|---|---|---|
| tldr-pages/tldr | 08e345f42639f67d99282813247ac670dc6e87cb | CC BY 4.0 | 6725 |
| some/books | a0b16d35a9851168ce9ac649851c17b7ab08d48e | public domain in the USA | 4300 |
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_demo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_is_prepared_can_be_trained_and_compressed(
    script: ModuleType, data: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    script.prepare(data, work, "small", 40, 1)
    recipe = read_train_recipe(work / "train.toml")
    assert recipe.schedule.steps == 40
    assert recipe.student == work / "student"
    then = read_compress_recipe(work / "compress.toml")
    assert then.source == recipe.out
    formats = then.steps[0].options.recipe
    assert read_recipe(formats).choose("token_embd").format == "E6_16"
    with open_checkpoint(recipe.student, without_weights=True) as student:
        spec = Job(student, Options("F16", None, None, None)).spec
    assert spec.d_model % 256 == spec.n_vocab % 256 == 0

    learnt = lines(work / "train.jsonl")
    assert len(learnt) == 10 + 10 * script.TIMES["tldr-pages/tldr"]
    assert [message["role"] for message in learnt[1]["messages"]] == ["user", "assistant"] * 2
    assert learnt[1]["messages"][3]["content"] == "Say:\n`ls -a`"
    assert learnt[0]["kind"] == "books"


@pytest.mark.parametrize("size", ["small", "large"])
def test_widths_are_multiples_of_256(script: ModuleType, size: str) -> None:
    config = script.config(size, 8192)
    assert config["hidden_size"] % 256 == config["intermediate_size"] % 256 == 0
    assert config["num_attention_heads"] * config["head_dim"] == config["hidden_size"]


def test_the_card_names_every_source_and_stops_at_an_unknown_one(
    script: ModuleType, data: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    script.prepare(data, work, "small", 40, 1)
    first = {"perplexity": 20.0, "kl": 0.0, "n_bytes": 27_000_000}
    last = {"perplexity": 20.5, "kl": 0.0123, "n_bytes": 4_567_890}
    report = {"steps": [first, last], "n_tokens_measured": 16_384}
    (work / "demo.report.json").write_text(json.dumps(report), encoding="utf-8")
    (work / "trained.work").mkdir()
    curve = [{"step": 40, "n_tokens": 327_680, "loss": 3.5}, {"step": 40, "valid": {}}]
    text = "\n".join(map(json.dumps, curve))
    (work / "trained.work" / "curve.jsonl").write_text(text, encoding="utf-8")
    card = script.card(data, work)
    for found in ("327,680 tokens, loss 3.500", "20.50 after", "0.01230", "4,567,890 bytes"):
        assert found in card
    assert "| some/books | 10 | a0b16d35a985 | public domain in the USA |" in card
    (data / "corpus" / "SOURCES.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(SystemExit, match="says nothing of"):
        script.card(data, work)
