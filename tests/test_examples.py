"""Every program of examples/ runs, as its own docstring says (the C one: tests/test_c_api.py)."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.serving import Running, serving

EXAMPLES = Path(__file__).parent.parent / "examples"
TEXTS = {
    "river.txt": "The river is wide. Boats cross it in the morning.\n\nNobody swims there.",
    "list.txt": "Use `ls -a` to list all files, hidden ones too.",
}
# Those that a test below runs, and those that other tests do.
RUN_HERE = {
    "app_integration.py",
    "rag.py",
    "extract.py",
    "tool_use.py",
    "summarise_batch.py",
    "openai_client.py",
    "langchain_client.py",
    "llm_client.py",
    "stream.py",
    "perplexity.py",
}
RUN_ELSEWHERE = {"train_demo.py"}  # tests/converters/test_train_demo.py


def run(name: str, *arguments: str | Path, stdin: str = "", warn: str = "error") -> str:
    command = [sys.executable, "-W", warn, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return [tmp_path / name for name in TEXTS]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(models=("demo",)) as running:
        yield running


def test_every_example_is_run_by_a_test():
    assert {path.name for path in EXAMPLES.glob("*.py")} == RUN_HERE | RUN_ELSEWHERE


def test_app_integration():
    said = run("app_integration.py", "demo", "How do I list files?", "What is curl? " * 400)
    assert "How do I list files?\n  " in said
    assert "too long for this model" in said


def test_rag(files):
    said = run("rag.py", "demo", "list all files, hidden ones too", *files)
    assert "[1] " in said
    assert "list.txt:1: Use `ls -a`" in said
    assert len(said.splitlines()) >= 3


def test_extraction():
    found = json.loads(run("extract.py", stdin="Tom was glad to see the river."))
    assert set(found) == {"title", "people", "mood", "year"}
    assert found["mood"] in ("happy", "sad", "neutral")


def test_tool_use():
    call = run("tool_use.py").splitlines()[0]
    name, _, rest = call.partition("(")
    text, _, result = rest.rpartition(") = ")
    arguments = json.loads(text)
    if name == "add":
        assert int(result) == arguments["a"] + arguments["b"]
    else:
        assert (name, result) == ("spell", "-".join(arguments["word"]))


def test_batches_of_files(files, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text("The river is wide. " * 400, encoding="utf-8")
    lines = run("summarise_batch.py", "demo", *files, long).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        *map(str, files),
        f"{long} (its beginning)",
    ]


def test_streams_and_perplexity(files):
    assert "tokens/s" in run("stream.py", "demo")
    assert " over " in run("perplexity.py", "demo", files[0])


def test_the_openai_package(server):
    pytest.importorskip("openai", reason="openai is not installed: run `make test`")
    lines = run("openai_client.py", f"{server.url}/v1").splitlines()
    assert lines[-1].startswith("2 vectors of ")
    assert "'kind'" in lines[-2]


@pytest.mark.slow
def test_langchain(server):
    if importlib.util.find_spec("langchain_openai") is None:
        pytest.skip("NOT TESTED: langchain-openai is not installed")
    lines = run("langchain_client.py", f"{server.url}/v1", warn="default").splitlines()
    assert len(lines) >= 3


@pytest.mark.slow
def test_llm(server, tmp_path):
    if importlib.util.find_spec("llm") is None:
        pytest.skip("NOT TESTED: llm is not installed")
    (tmp_path / "extra-openai-models.yaml").write_text("- model_id: other\n  model_name: x\n")
    for _ in range(2):
        assert run("llm_client.py", tmp_path, f"{server.url}/v1", warn="default").strip()
    assert (tmp_path / "extra-openai-models.yaml").read_text().count("model_id") == 2
