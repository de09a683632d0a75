"""Golden sets: bad lines are named, rules judge, choices equal a brute force, flips are found."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgellm
from edgellm.errors import (
    ContextOverflowError,
    FormatError,
    InvalidArgumentError,
    TemplateError,
)
from edgellm.evaluation import EvaluatedModel
from edgellm.evaluation.continuations import Continuations, split_continuation
from edgellm.evaluation.flips import find_flips
from edgellm.evaluation.golden import Answer, ask
from edgellm.evaluation.questions import Rule, is_right, last_number, read_questions

CHOICES = [" the park.", " a big red ball and a small dog.", " sky.", " zqx."]
LINES = [
    {"prompt": "Once upon a time, there was a", "choices": CHOICES, "expected": 0, "tags": ["a"]},
    {"prompt": "Lily went to ", "choices": CHOICES, "expected": CHOICES[0], "tags": ["a", "b"]},
    {"prompt": "The cat", "expected": ["x", "cat"], "rule": "contains", "max_tokens": 12},
    {"prompt": "The cat", "expected": "^.{3,}$", "rule": "regex", "stop": ["."], "max_tokens": 9},
]


def write(path: Path, lines: list[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read_one(path: Path, line: object):
    return read_questions(write(path / "q.jsonl", [line]))[0]


def test_a_set_is_asked_and_judged(demo_path, tmp_path):
    questions = read_questions(write(tmp_path / "q.jsonl", LINES))
    done = []
    with EvaluatedModel(demo_path) as model:
        result = ask(model, questions, on_answer=lambda n, of: done.append((n, of)))
        again = ask(model, questions)
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result == again
    with edgellm.load(demo_path, kv="F16") as model:
        for line, answer in zip(LINES[2:], result.answers[2:], strict=True):
            wanted = model.generate("The cat", max_tokens=line["max_tokens"], stop=line.get("stop"))
            assert answer.answer == wanted.text
    total, a, b = result.accuracies
    assert (total.tag, total.n_questions) == ("all", 4)
    assert (a.tag, a.n_questions, b.tag, b.n_questions) == ("a", 2, "b", 1)
    assert total.accuracy.value == sum(answer.correct for answer in result.answers) / 4
    assert b.accuracy.value == result.answers[1].correct
    assert total.normalized is not None
    assert result.answers[3].correct  # any nine tokens have three characters


def test_choices_equal_a_brute_force_in_fresh_sessions(demo_path, tmp_path):
    questions = read_questions(write(tmp_path / "q.jsonl", LINES[:2]))
    with EvaluatedModel(demo_path) as model:
        result = ask(model, questions)
    with edgellm.load(demo_path, kv="F16") as model:
        for line, answer in zip(LINES, result.answers, strict=False):
            log_probs = []
            for choice in CHOICES:
                prompt = line["prompt"].rstrip()
                whole = model.tokenize(line["prompt"] + choice)
                n_prompt = len(model.tokenize(prompt))
                rows = model.logits(whole).astype(np.float64)
                log_prob = 0.0
                for at in range(n_prompt, len(whole)):
                    row = rows[at - 1]
                    log_prob += row[whole[at]] - row.max()
                    log_prob -= math.log(math.fsum(np.exp(row - row.max())))
                log_probs.append(log_prob)
            assert answer.log_probs == pytest.approx(log_probs, rel=1e-12)
            assert answer.answer == CHOICES[int(np.argmax(log_probs))]
            per_byte = [p / len(c.encode()) for p, c in zip(log_probs, CHOICES, strict=True)]
            assert answer.correct_normalized == (int(np.argmax(per_byte)) == 0)
    assert result.answers[0].log_probs[3] < result.answers[0].log_probs[0]


def test_the_shared_prompt_is_processed_once(demo_path):
    with EvaluatedModel(demo_path) as model, Continuations(model) as continuations:
        pairs = [split_continuation(model, "Once upon a time, there was a", c) for c in CHOICES]
        n_prompt = len(pairs[0][0])
        found = [continuations.score(*pair) for pair in pairs]
        assert continuations.n_reused_tokens == 3 * (n_prompt - 1)
        with Continuations(model) as fresh:
            assert fresh.score(*pairs[2]) == found[2]


def test_greedy_continuations_are_known_as_such(demo_path):
    with edgellm.load(demo_path) as model:
        prompt = model.tokenize("Once upon a time")
        best = model.generate(prompt, max_tokens=6, stop_ids=()).token_ids
    with EvaluatedModel(demo_path) as model, Continuations(model) as continuations:
        assert continuations.score(prompt, best).is_greedy
        assert not continuations.score(prompt, [*best[:-1], (best[-1] + 1) % 4096]).is_greedy
        with pytest.raises(ContextOverflowError):
            continuations.score(prompt, [1] * 600)
        with pytest.raises(InvalidArgumentError):
            continuations.score([], [1])


def test_chat_questions_go_through_the_template(demo_path, tmp_path, tiny_edge):
    text = "How do I show the current date? <|im_end|>"
    messages = [{"role": "user", "content": text}]
    lines = [
        {"messages": messages, "expected": "x", "max_tokens": 12},
        {"messages": messages, "choices": ["Use date.", "<|im_start|>Use"], "expected": 1},
    ]
    questions = read_questions(write(tmp_path / "q.jsonl", lines))
    with EvaluatedModel(demo_path) as model:
        result = ask(model, questions)
        special = model.tokenizer.encode("<|im_end|>", special=True, bos=False)
        assert len(special) == 1
    with edgellm.load(demo_path) as model, model.chat() as chat:
        assert result.answers[0].answer == chat.send(text, max_tokens=12).text
    assert result.answers[0].question == text
    assert all(p < 0 for p in result.answers[1].log_probs)
    with EvaluatedModel(tiny_edge) as model, pytest.raises(TemplateError, match="no chat template"):
        ask(model, questions)


def test_a_question_that_does_not_fit_is_named(demo_path, tmp_path):
    path = write(tmp_path / "q.jsonl", [LINES[2], {"prompt": "a b " * 600, "expected": "x"}])
    too_long = pytest.raises(ContextOverflowError, match=r"q\.jsonl:2: ")
    with EvaluatedModel(demo_path) as model, too_long:
        ask(model, read_questions(path))


def test_the_example_in_the_docs_is_a_golden_set(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "EVALUATION.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "golden.jsonl"
    path.write_text(block, encoding="utf-8")
    questions = read_questions(path)
    assert [q.rule for q in questions] == ["contains", "exact", "number", "choice"]
    assert is_right(questions[2], "72 eggs")
    assert (questions[3].id, questions[3].choices[questions[3].right_choice]) == ("sky", " blue")
    for rule in get_args(Rule):
        assert f"| `{rule}`" in page


@pytest.mark.parametrize(
    ("rule", "expected", "answer", "right"),
    [
        ("exact", "4", " 4\n", True),
        ("exact", ["3", "4"], "4", True),
        ("exact", "4", "4.", False),
        ("contains", "Paris", "It is Paris, of course", True),
        ("contains", "Paris", "paris", False),
        ("regex", r"(?i)\bparis\b", "PARIS!", True),
        ("regex", r"^\d+$", "12a", False),
        ("number", "1,234.50", "so 3 of 4, that is $1234.5.", True),
        ("number", 72, "72 minus 2 is 70", False),
        ("number", "#### 72", "The answer is 72", True),
        ("number", -5, "minus five is -5", True),
        ("number", 1e16, "10000000000000000", True),
        ("number", 5, "no number", False),
    ],
)
def test_rules(rule, expected, answer, right, tmp_path):
    line = {"prompt": "p", "rule": rule, "expected": expected}
    assert is_right(read_one(tmp_path, line), answer) is right


def test_gsm8k_answers_are_their_last_number(shared_data):
    path = shared_data / "eval" / "gsm8k_train_first1500.jsonl"
    with path.open(encoding="utf-8") as lines:
        answers = [json.loads(line)["answer"] for line in lines]
    for answer in answers:
        plain = answer.rsplit("####", 1)[1].strip().replace(",", "")
        assert last_number(answer) == last_number(plain)
        assert str(last_number(plain)) == plain


def test_a_pattern_that_never_ends_is_stopped(tmp_path):
    question = read_one(tmp_path, {"prompt": "p", "rule": "regex", "expected": "(a|a)+$"})
    with pytest.raises(FormatError, match=r"q\.jsonl:1: the pattern takes more than 2 s"):
        is_right(question, "a" * 60 + "b")


GOOD = {"prompt": "p", "expected": "x"}
BAD_LINES = {
    "json": "{",
    "not an object": [1],
    "unknown key": GOOD | {"exepcted": 1},
    "no prompt": {"expected": "x"},
    "both": GOOD | {"messages": [{"role": "user", "content": "a"}]},
    "prompt type": GOOD | {"prompt": 3},
    "messages empty": {"messages": [], "expected": "x"},
    "message role": {"messages": [{"content": "a"}], "expected": "x"},
    "no expected": {"prompt": "p"},
    "empty expected": GOOD | {"expected": ""},
    "empty list": GOOD | {"expected": []},
    "expected type": GOOD | {"expected": ["x", 3]},
    "rule": GOOD | {"rule": "vibes"},
    "rule type": GOOD | {"rule": ["exact"]},
    "pattern": GOOD | {"rule": "regex", "expected": "("},
    "no number": GOOD | {"rule": "number", "expected": "x"},
    "bool number": GOOD | {"rule": "number", "expected": True},
    "choice without choices": GOOD | {"rule": "choice"},
    "one choice": {"prompt": "p", "choices": ["a"], "expected": 0},
    "choice place": {"prompt": "p", "choices": ["a", "b"], "expected": 2},
    "choice text": {"prompt": "p", "choices": ["a", "b"], "expected": "c"},
    "choices twice": {"prompt": "p", "choices": ["a", "a"], "expected": 0},
    "choices empty": {"prompt": "p", "choices": ["a", ""], "expected": 0},
    "choices and rule": {"prompt": "p", "choices": ["a", "b"], "expected": 0, "rule": "exact"},
    "tags": GOOD | {"tags": "a"},
    "stop": GOOD | {"stop": [1]},
    "max_tokens": GOOD | {"max_tokens": 0},
    "max_tokens bool": GOOD | {"max_tokens": True},
    "id": GOOD | {"id": ""},
    "id type": GOOD | {"id": 1.5},
    "long": GOOD | {"prompt": "a" * (1 << 20)},
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_an_error_with_its_place(name, tmp_path):
    bad = BAD_LINES[name]
    text = bad if isinstance(bad, str) else json.dumps(bad)
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + text + "\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"q\.jsonl:3: "):
        read_questions(path)


def test_ids_are_unique_and_files_hold_something(tmp_path):
    twice = write(tmp_path / "t.jsonl", [GOOD | {"id": "a"}, GOOD | {"id": "a"}])
    with pytest.raises(FormatError, match=r"t\.jsonl:2: id 'a' is that of .*t\.jsonl:1"):
        read_questions(twice)
    with pytest.raises(FormatError, match="holds no question"):
        read_questions(write(tmp_path / "empty.jsonl", []))
    with pytest.raises(FormatError, match="cannot read"):
        read_questions(tmp_path / "missing.jsonl")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_lines_give_questions_or_typed_errors(data, tmp_path):
    line = bytearray(json.dumps(data.draw(st.sampled_from(LINES))).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(line)))
        line[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path / "q.jsonl"
    path.write_bytes(bytes(line))
    with suppress(FormatError):
        assert read_questions(path)


def answers(pattern: str) -> list[Answer]:
    return [Answer(str(i), "q", ("x",), (), "a", c == "+") for i, c in enumerate(pattern)]


def test_flips_count_both_directions():
    flips = find_flips(answers("++--++++++"), answers("+--+++++++"))
    assert (flips.to_wrong, flips.to_right) == (("1",), ("3",))
    assert flips.rate.value == 0.2
    assert 0 <= flips.rate.low < 0.2 < flips.rate.high
    assert flips.accuracy_change.value == 0
    assert flips.accuracy_change.low < 0 < flips.accuracy_change.high
    same = find_flips(answers("+-+"), answers("+-+"))
    assert (same.rate.value, same.rate.low, same.to_wrong, same.to_right) == (0, 0, (), ())
    assert same.rate.high > 0.5  # three questions say little
    with pytest.raises(InvalidArgumentError):
        find_flips(answers("++"), answers("+"))
