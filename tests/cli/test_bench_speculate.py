"""`edgellm bench --speculate`: real texts are forced, and what guessing was worth is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import data_of, edgellm

REPEATED = "One two three four five six seven. " * 4


def lines(path: Path, *texts: object) -> Path:
    path.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    return path


def text(kind: str, prompt: str, continuation: str) -> dict[str, str]:
    return {"kind": kind, "prompt": prompt, "continuation": continuation}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prose = "Rain fell on the roof all night, and nobody in the old house could sleep at all."
    return lines(
        tmp_path_factory.mktemp("texts") / "texts.jsonl",
        text("again", REPEATED, REPEATED),
        text("new", "It was late.", prose),
        text("again", REPEATED * 2, REPEATED),
    )


def test_figures_are_by_kind_and_by_text(texts, tmp_path):
    done = edgellm(
        "bench",
        "demo",
        "--speculate",
        "--texts",
        texts,
        "--decode",
        64,
        "--threads",
        1,
        "--draft-layers",
        2,
        "--json",
        cwd=tmp_path,
    )
    data = data_of(done, "bench")
    assert list(data["kinds"]) == ["again", "new"]
    assert [row["kind"] for row in data["texts"]] == ["again", "new", "again"]
    again, new = data["kinds"]["again"], data["kinds"]["new"]
    of_again = [row for row in data["texts"] if row["kind"] == "again"]
    assert again["tokens"] == sum(row["tokens"] for row in of_again) <= 2 * 64
    # What a step takes decides how much is drafted, but no step takes more than its share.
    for row in (again, new, *data["texts"]):
        assert 1 <= row["tokens_per_step"] <= 16
        assert 0 <= row["acceptance"] <= 1
        assert row["speed"] > 0
        for counts in row["drafters"].values():
            assert 0 <= counts["accepted"] <= counts["drafted"]
    drafted = sum(n["drafted"] for n in again["drafters"].values())
    assert drafted == sum(n["drafted"] for row in of_again for n in row["drafters"].values())


def test_a_table_for_people_and_a_picture(texts, tmp_path):
    picture = tmp_path / "speed.png"
    done = edgellm(
        "bench",
        "demo",
        "--speculate",
        "--texts",
        texts,
        "--decode",
        32,
        "--plot",
        picture,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "again" in done.stdout
    assert "tokens per step" in done.stdout
    assert "acceptance: " in done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_line_says_how_to_get_it(texts, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError\n", encoding="utf-8")
    done = edgellm(
        "bench",
        "demo",
        "--speculate",
        "--texts",
        texts,
        "--plot",
        "x.png",
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode != 0
    assert "pip install 'edgellm[report]'" in done.stderr


@pytest.mark.slow
def test_texts_come_with_every_python(tmp_path):
    done = edgellm("bench", "demo", "--speculate", "--decode", 48, "--json", cwd=tmp_path)
    data = data_of(done, "bench")
    assert list(data["kinds"]) == ["editing", "code", "structured", "prose", "random"]
    assert len(data["texts"]) == 20
    assert data["kinds"]["editing"]["tokens"] == 4 * 48


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no texts"),
        ('{"kind": "a"}\n', "line 1: must be an object"),
        ('\n{"kind": "a", "prompt": "b", "continuation": 3}\n', "line 2: must be an object"),
        ("[" * 100_000, "line 1: "),
        ('{"kind": "a", "prompt": "b", "continuation": "short"}\n', "16 tokens"),
        (b"\xff\xfe".decode("latin-1"), "line 1: "),
    ],
    ids=["empty", "keys", "type", "depth", "short", "no json"],
)
def test_texts_that_are_none_are_refused(content, says, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(content, encoding="utf-8")
    done = edgellm("bench", "demo", "--speculate", "--texts", path, cwd=tmp_path)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--texts", "x"), "--texts: only with --speculate"),
        (("--draft-layers", 1), "--draft-layers: only with --speculate"),
        (("--speculate", "--plot", "x.txt"), "must name a .png"),
        (("--speculate", "--texts", "nothing.jsonl"), "nothing.jsonl"),
    ],
)
def test_flags_without_effect_are_refused(flags, says, tmp_path):
    done = edgellm("bench", "demo", *flags, cwd=tmp_path)
    assert done.returncode != 0
    assert says in " ".join(done.stderr.split())
