"""`edgellm eval` as a user meets it: figures, files, the gate's exit code, errors of one line."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from command_line import data_of, edgellm, failure_of
from edgellm.cli.exits import Exit

BABY = "babyllama-tok105"
QUESTIONS = [
    {"prompt": "lily went to the ", "choices": ["park", "zzzz"], "expected": 0, "tags": ["words"]},
    {"prompt": "once upon a ", "expected": "time", "rule": "contains", "max_tokens": 8},
]


@pytest.fixture(scope="module")
def golden_set(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "golden.jsonl"
    path.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS), encoding="utf-8")
    return path


def test_figures_of_a_model_alone_and_next_to_another(make_edge, stories, tmp_path):
    e4, f16 = make_edge(BABY, "E4_16"), make_edge(BABY, "F16")
    alone = edgellm("eval", e4, "--text", stories, "--n-ctx", 256, cwd=tmp_path)
    assert alone.returncode == Exit.OK, alone.stderr
    assert "perplexity" in alone.stdout
    assert "KL" not in alone.stdout
    both = ("eval", e4, "--text", stories, "--n-ctx", 256, "--against", f16)
    shown = edgellm(*both, cwd=tmp_path)
    data = data_of(edgellm(*both, "--json", cwd=tmp_path), "eval")
    (text,) = data["text"]["texts"]
    kl = text["against"]["kl"]["mean"]
    assert kl["low"] < kl["value"] < kl["high"]
    assert f"{kl['value']:.6f} ({kl['low']:.6f} .. {kl['high']:.6f})" in shown.stdout
    assert f"{text['perplexity']['value']:.3f}" in alone.stdout
    assert (data["model"], data["reference"]) == (e4.name, f16.name)
    assert data["verdict"] is None


def test_saved_logits_take_the_place_of_a_model(make_edge, stories, tmp_path):
    e4, f16 = make_edge(BABY, "E4_16"), make_edge(BABY, "F16")
    limit = ("--n-ctx", 128, "--max-tokens-scored", 400)
    saved = edgellm(
        "eval", f16, "--text", stories, *limit, "--save-logits", "f16.logits", cwd=tmp_path
    )
    assert saved.returncode == Exit.OK, saved.stderr
    command = ("eval", e4, "--json", "--against")
    from_file = data_of(edgellm(*command, "f16.logits", cwd=tmp_path), "eval")
    live = data_of(edgellm(*command, f16, "--text", stories, *limit, cwd=tmp_path), "eval")
    a, b = from_file["text"]["texts"][0], live["text"]["texts"][0]
    assert a["n_scored_tokens"] == b["n_scored_tokens"] == 441
    assert a["against"]["kl"]["mean"]["value"] == pytest.approx(
        b["against"]["kl"]["mean"]["value"], abs=1e-5
    )
    assert a["against"]["perplexity_ratio"] == b["against"]["perplexity_ratio"]
    gate = ("eval", "--compare", "f16.logits", e4, "--max-kl", "0.5")
    assert edgellm(*gate, cwd=tmp_path).returncode == Exit.OK
    failure_of(edgellm(*gate, "--n-ctx", 128, cwd=tmp_path), Exit.USAGE)
    failure_of(edgellm(*gate, "--max-flips", "1%", cwd=tmp_path), Exit.USAGE)


def test_the_gate_passes_fails_and_says_why(make_edge, stories, tmp_path):
    f16, e8, e4 = (make_edge(BABY, format) for format in ("F16", "E8_32", "E4_16"))
    gate = ("--text", stories, "--n-ctx", 256, "--compare")
    passed = edgellm("eval", *gate, f16, e8, "--report", "r.html", cwd=tmp_path)
    assert passed.returncode == Exit.OK, passed.stderr
    assert passed.stdout.endswith(f"PASS: {e8.name}\n")
    assert "at most 1.000 % is asked" in passed.stdout
    assert "Verdict: pass" in (tmp_path / "r.html").read_text(encoding="utf-8")
    failed = edgellm("eval", *gate, f16, e4, "--max-kl", "0.5", "--min-top1", "99%", cwd=tmp_path)
    assert failed.returncode == Exit.GATE_FAILED
    assert failed.stdout.endswith(f"FAIL: {e4.name}\n")
    assert [line[:4] for line in failed.stdout.splitlines() if "is asked" in line] == [
        "PASS",
        "FAIL",
    ]
    as_json = edgellm("eval", *gate, f16, e4, "--json", "--report", "r.md", cwd=tmp_path)
    assert as_json.returncode == Exit.GATE_FAILED
    verdict = json.loads(as_json.stdout)["data"]["verdict"]
    assert verdict["passed"] is False
    assert [check["name"] for check in verdict["checks"]] == ["perplexity increase"]
    assert "Verdict: fail" in (tmp_path / "r.md").read_text(encoding="utf-8")


def test_golden_sets_and_flips_in_the_gate(make_edge, golden_set, tmp_path):
    e4 = make_edge(BABY, "E4_16")
    gate = ("eval", "--compare", e4, e4, "--questions", golden_set, "--max-flips", "0%")
    data = data_of(edgellm(*gate, "--json", cwd=tmp_path), "eval")
    assert data["text"] is None
    assert data["questions"] == data["reference_questions"]
    assert data["flips"]["n_questions"] == 2
    assert data["flips"]["rate"]["value"] == 0
    unsure = edgellm(*gate, "--certain", cwd=tmp_path)
    assert unsure.returncode == Exit.GATE_FAILED  # two questions prove little
    alone = edgellm("eval", e4, "--questions", golden_set, cwd=tmp_path)
    assert alone.returncode == Exit.OK, alone.stderr
    assert "of 2 right" in alone.stdout
    assert "words, per byte" in alone.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo",),
        ("demo", "demo", "--text", "t.txt"),
        ("demo", "--text", "t.txt", "--max-kl", "1"),
        ("demo", "--text", "t.txt", "--report", "r.pdf"),
        ("--compare", "demo", "--text", "t.txt"),
        ("--compare", "demo", "demo"),
        ("--compare", "demo", "demo", "--questions", "q.jsonl"),
        ("--compare", "demo", "demo", "--text", "t.txt", "--max-flips", "1%"),
        ("--compare", "demo", "demo", "--questions", "q.jsonl", "--max-kl", "1"),
        ("--compare", "demo", "demo", "--text", "t.txt", "--max-ppl-increase", "few"),
        ("--compare", "demo", "demo", "--text", "t.txt", "--max-kl", "-1"),
        ("--compare", "demo", "demo", "--text", "t.txt", "--save-logits", "x.logits"),
        ("demo", "--text", "t.txt", "--text", "t.txt"),
        ("demo", "--questions", "q.jsonl", "--save-logits", "x.logits"),
        ("demo", "--questions", "q.jsonl", "--n-ctx", "64"),
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_is_usage(arguments, tmp_path):
    (tmp_path / "t.txt").write_text("once upon a time " * 200, encoding="utf-8")
    (tmp_path / "q.jsonl").write_text(json.dumps(QUESTIONS[1]), encoding="utf-8")
    failure_of(edgellm("eval", *arguments, cwd=tmp_path), Exit.USAGE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.jsonl", "t.txt"]


def test_bad_inputs_are_one_line_and_their_code(make_edge, stories, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"prompt": "a", "expected": "b"}\n{}\n', encoding="utf-8")
    (tmp_path / "x.logits").write_bytes(b"\x10" * 100)
    run = edgellm("eval", "demo", "--questions", "q.jsonl", cwd=tmp_path)
    assert "q.jsonl:2: " in failure_of(run, Exit.BAD_INPUT)
    run = edgellm("eval", "demo", "--against", "x.logits", cwd=tmp_path)
    failure_of(run, Exit.BAD_INPUT)
    run = edgellm("eval", "demo", "--text", "missing.txt", cwd=tmp_path)
    assert "missing.txt" in failure_of(run, Exit.BAD_INPUT)
    e4 = make_edge(BABY, "E4_16")
    run = edgellm("eval", "demo", "--text", stories, "--against", e4, cwd=tmp_path)
    message = failure_of(run, Exit.UNSUPPORTED)
    assert re.search(r"differ in logits per token: \d{4} and 105", message), message
    run = edgellm("eval", e4, "--text", stories, cwd=tmp_path)
    assert "lower --n-ctx" in failure_of(run, Exit.CONTEXT)
    run = edgellm("eval", e4, "--text", stories, "--report", "no/r.md", cwd=tmp_path)
    assert "there is no folder" in failure_of(run, Exit.BAD_INPUT)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path):
    (tmp_path / "long.txt").write_text("once upon a time there was a cat. " * 30_000)
    command = [sys.executable, "-m", "edgellm", "eval", "demo", "--text", "long.txt"]
    process = subprocess.Popen(
        [*command, "--save-logits", "x.logits"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    give_up = monotonic() + 60
    while not list(tmp_path.glob(".x.logits.*")) and monotonic() < give_up:
        sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED
    assert out == ""
    assert err.splitlines()[-1] == "error: interrupted"
    assert [path.name for path in tmp_path.iterdir()] == ["long.txt"]


def test_keys_and_values_of_8_bits_are_close_to_f16(make_edge, stories, tmp_path):
    docs = Path(__file__).parents[2] / "docs" / "KERNELS.md"
    for model, text, n_ctx in (("demo", docs, 512), (make_edge(BABY, "E8_32"), stories, 256)):
        options = ("--text", text, "--n-ctx", n_ctx, "--max-tokens-scored", 600, "--json")
        command = ("eval", model, "--kv", "K8V8", "--against", model, *options)
        data = data_of(edgellm(*command, cwd=tmp_path), "eval")
        assert data["kv_format"] == "K8V8"
        (figures,) = data["text"]["texts"]
        assert 0 < figures["against"]["kl"]["mean"]["value"] <= 0.001
    failure = failure_of(
        edgellm("eval", "demo", "--kv", "Q8_0", "--text", docs, cwd=tmp_path), Exit.UNSUPPORTED
    )
    assert "F16, K8V8" in failure
