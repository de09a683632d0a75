"""The command line as a user meets it: a process, its two streams and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import data_of, edgellm
from edgellm.cli import VERBS
from edgellm.cli.exits import Exit, exit_for
from edgellm.errors import EdgeError


def start(script: str, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """A Python process that has just printed "started"."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def test_version_prints_one_line(tmp_path):
    run = edgellm("--version", cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "edgellm 0.1.0\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_json_and_exit_codes(verb, tmp_path):
    run = edgellm(verb, "--help", cwd=tmp_path)
    assert run.returncode == 0
    assert "--json" in run.stdout
    assert "Exit codes" in run.stdout
    assert "\x1b" not in run.stdout


@pytest.mark.parametrize(
    "arguments",
    [(), ("fly",), ("run", "demo"), ("run", "m", "p", "--wings"), ("run", "m", "p", "-n", "x")],
)
def test_wrong_usage_is_exit_code_2(arguments, tmp_path):
    run = edgellm(*arguments, cwd=tmp_path)
    assert run.returncode == Exit.USAGE
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "verb", [("run", "x.edge", "hi"), ("inspect", "x.edge"), ("verify", "x.edge")]
)
def test_a_missing_file_is_one_line_and_exit_code_3(verb, tmp_path):
    run = edgellm(*verb, cwd=tmp_path)
    assert run.returncode == Exit.BAD_INPUT
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert "x.edge" in run.stderr


def test_an_error_with_json_is_one_document_on_stdout(tmp_path):
    run = edgellm("inspect", "x.edge", "--json", cwd=tmp_path)
    document = json.loads(run.stdout)
    assert document["error"]["type"] == "FormatError"
    assert document["error"]["code"] == "file_not_found"


def test_a_traceback_comes_only_on_request(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGELLM_DEBUG", "1")
    assert "Traceback" in edgellm("inspect", "x.edge", cwd=tmp_path).stderr


def test_a_hostile_file_name_cannot_steer_the_terminal(tmp_path):
    run = edgellm("inspect", "a\x1b[31m\nb", cwd=tmp_path)
    assert "\x1b" not in run.stderr
    assert run.stderr.count("\n") == 1


def test_every_error_class_has_an_exit_code_of_its_own_kind():
    codes = {kind.__name__: exit_for(kind("x")) for kind in EdgeError.__subclasses__()}
    assert codes["IntegrityError"] == Exit.INTEGRITY
    assert codes["FormatError"] == Exit.BAD_INPUT
    assert codes["UnsupportedError"] == Exit.UNSUPPORTED
    assert codes["MemoryBudgetError"] == Exit.MEMORY
    assert codes["Cancelled"] == Exit.CANCELLED
    assert codes["ContextOverflowError"] == Exit.CONTEXT
    assert codes["InvalidArgumentError"] == Exit.USAGE


def test_inspect_lists_tensors_and_spec(tiny_edge, tmp_path):
    data = data_of(edgellm("inspect", tiny_edge, "--json", cwd=tmp_path), "inspect")
    tensors = {t["name"]: t for t in data["tensors"]}
    assert tensors["token_embd"]["shape"] == [258, 40]
    assert tensors["token_embd"]["format"] == "E6_16"
    assert data["file_bytes"] == tiny_edge.stat().st_size
    human = edgellm("inspect", tiny_edge, cwd=tmp_path)
    assert "token_embd" in human.stdout
    assert human.returncode == 0


def test_verify_accepts_a_whole_file_and_refuses_a_flipped_bit(tiny_edge, tmp_path):
    assert data_of(edgellm("verify", tiny_edge, "--json", cwd=tmp_path), "verify")["ok"] is True
    damaged = tmp_path / "damaged.edge"
    content = bytearray(tiny_edge.read_bytes())
    content[20000] ^= 1
    damaged.write_bytes(content)
    assert edgellm("verify", damaged, cwd=tmp_path).returncode == Exit.INTEGRITY


def test_embed_prints_a_json_line_for_each_text(tiny_edge, tmp_path):
    run = edgellm("embed", tiny_edge, "--pooling", "mean", stdin="Hello\nyou there\n", cwd=tmp_path)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["index"] for row in rows] == [0, 1]
    assert len(rows[0]["embedding"]) == 40
    asked = ("Hello", "you there", "--pooling", "mean", "--json")
    data = data_of(edgellm("embed", tiny_edge, *asked, cwd=tmp_path), "embed")
    assert data["embeddings"] == rows


def test_embed_names_the_line_that_it_cannot_take(tiny_edge, tmp_path):
    run = edgellm("embed", tiny_edge, "--no-normalize", stdin=f"ok\n{'x' * 200}\n", cwd=tmp_path)
    assert run.returncode == Exit.CONTEXT
    assert "line 2 of stdin" in run.stderr
    assert run.stdout.count("\n") == 1


def test_run_streams_text_to_stdout_and_timings_to_stderr(tiny_edge, tmp_path):
    run = edgellm("run", tiny_edge, "Hello", "-n", 8, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "tokens/s" in run.stderr
    assert "tokens/s" not in run.stdout
    assert run.stdout.endswith("\n")


def test_run_reads_the_prompt_from_stdin(tiny_edge, tmp_path):
    given = ("run", tiny_edge, "-n", 6, "--json")
    piped = data_of(edgellm(*given, "-", cwd=tmp_path, stdin="Hello"), "run")
    direct = data_of(edgellm(*given, "Hello", cwd=tmp_path), "run")
    assert piped["token_ids"] == direct["token_ids"]
    assert piped["text"] == direct["text"]


def test_run_repeats_itself_for_the_same_seed_and_any_threads(tiny_edge, tmp_path):
    given = ("run", tiny_edge, "Hi", "-n", 12, "--temperature", 1, "--json", "--seed")
    one = data_of(edgellm(*given, 1, "-t", 1, cwd=tmp_path), "run")
    two = data_of(edgellm(*given, 1, "-t", 2, cwd=tmp_path), "run")
    other = data_of(edgellm(*given, 2, cwd=tmp_path), "run")
    assert one["token_ids"] == two["token_ids"]
    assert one["logprobs"] == two["logprobs"]
    assert one["token_ids"] != other["token_ids"]


def test_special_tokens_in_a_prompt_need_the_flag(tiny_edge, tmp_path):
    given = ("run", tiny_edge, "</s>", "-n", 1, "--json")
    plain = data_of(edgellm(*given, cwd=tmp_path), "run")
    special = data_of(edgellm(*given, "--special", cwd=tmp_path), "run")
    assert plain["stats"]["prompt_tokens"] == 5
    assert special["stats"]["prompt_tokens"] == 2


def test_a_context_overflow_is_exit_code_8_and_names_the_numbers(tiny_edge, tmp_path):
    run = edgellm("run", tiny_edge, "x" * 200, cwd=tmp_path)
    assert run.returncode == Exit.CONTEXT
    assert "201" in run.stderr
    assert "128" in run.stderr


def test_bench_reports_every_documented_key(tiny_edge, tmp_path):
    given = ("bench", tiny_edge, "--prefill", 32, "--decode", 8, "--rounds", 1, "--threads", 1)
    data = data_of(edgellm(*given, "--json", cwd=tmp_path), "bench")
    for key in (
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "decode_gb_per_s",
        "read_bandwidth_gb_per_s",
        "read_bandwidth_share",
        "int8_peak_share",
        "load_ms",
        "peak_rss_bytes",
    ):
        assert data[key] > 0, key
    assert list(data["k_rows_ms"]) == ["1", "2", "3", "4", "6", "8", "12", "16"]


def test_convert_writes_a_file_that_runs(tiny_checkpoint, tmp_path):
    data = data_of(edgellm("convert", tiny_checkpoint, "t.edge", "--json", cwd=tmp_path), "convert")
    assert data["path"] == "t.edge"
    assert edgellm("run", "t.edge", "a", "-n", 1, cwd=tmp_path).returncode == 0


def test_convert_dry_run_writes_nothing(tiny_checkpoint, tmp_path):
    run = edgellm("convert", tiny_checkpoint, "--dry-run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "token_embd" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_convert_refuses_an_unknown_format_by_name(tiny_checkpoint, tmp_path):
    run = edgellm("convert", tiny_checkpoint, "t.edge", "--format", "Q9", cwd=tmp_path)
    assert run.returncode in (Exit.USAGE, Exit.UNSUPPORTED)
    assert "Q9" in run.stderr
    assert list(tmp_path.iterdir()) == []


_SLOW_CONVERT = """
import sys, time
import edgellm.converters.pipeline as pipeline
meter = pipeline._Meter.advance
def slow(self, tensor, n_weights):
    print("started", flush=True)
    time.sleep(0.2)
    meter(self, tensor, n_weights)
pipeline._Meter.advance = slow
from edgellm.cli import run_command_line
sys.exit(run_command_line(["convert", sys.argv[1], sys.argv[2]]))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent as on POSIX")
def test_ctrl_c_in_convert_leaves_nothing_behind(tiny_checkpoint, tmp_path):
    process = start(_SLOW_CONVERT, tiny_checkpoint, tmp_path / "t.edge", cwd=tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED, errors
    assert errors == "error: interrupted\n"
    assert list(tmp_path.iterdir()) == []


_WAITING_RUN = """
import sys, time
class Waiting:
    def read(self):
        print("started", flush=True)
        time.sleep(60)
sys.stdin = Waiting()
from edgellm.cli import run_command_line
sys.exit(run_command_line(["run", sys.argv[1], "-"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent as on POSIX")
def test_ctrl_c_in_run_is_exit_code_130(tiny_edge, tmp_path):
    process = start(_WAITING_RUN, tiny_edge, cwd=tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED
    assert errors == "error: interrupted\n"


def test_output_into_a_closed_pipe_ends_quietly(tiny_edge, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edgellm", "inspect", str(tiny_edge), "--json"]
    run = subprocess.run(
        command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (run.returncode, run.stderr) == (Exit.BROKEN_PIPE, "")


def test_run_takes_penalties_bans_and_several_samples(tmp_path):
    run = edgellm(
        *("run", "demo", "Once", "--json", "-n", "4", "--temperature", "1", "--seed", "3"),
        *("--samples", "2", "--logprobs", "2", "--logit-bias", "9=-inf", "--min-tokens", "2"),
        *("--repetition-penalty", "1.2", "--dry-multiplier", "0.8", "--dry-breaker", "."),
        cwd=tmp_path,
    )
    samples = data_of(run, "run")["samples"]
    assert isinstance(samples, list)
    assert [len(one["top_logprobs"][0]) for one in samples] == [2, 2]
    assert samples[0]["token_ids"] != samples[1]["token_ids"]


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        ("--logit-bias", "x", "--logit-bias"),
        ("--xtc-threshold", "0.9", "xtc_threshold"),
        ("--samples", "0", "n must be in 1"),
        ("--logprobs", "3", "--logprobs needs --json"),
    ],
)
def test_a_sampling_flag_out_of_range_is_one_line_that_names_it(flag, value, named, tmp_path):
    run = edgellm("run", "demo", "Once", "-n", "2", flag, value, cwd=tmp_path)
    assert run.returncode == Exit.USAGE, run.stderr
    assert run.stderr.count("\n") == 1
    assert named in run.stderr


def test_run_chat_applies_the_template_and_raw_run_does_not(demo_path, tmp_path):
    command = ("run", demo_path, "How do I show the current date?", "--json", "-n", "9")
    asked = data_of(edgellm(*command, "--chat", cwd=tmp_path), "run")
    raw = data_of(edgellm(*command, cwd=tmp_path), "run")
    assert asked["stats"]["prompt_tokens"] > raw["stats"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--template", "chatml"], Exit.USAGE),
        (["--chat", "--special"], Exit.USAGE),
        (["--chat", "--template", "absent.jinja"], Exit.BAD_INPUT),
    ],
)
def test_run_refuses_template_flags_that_it_could_not_honour(demo_path, tmp_path, flags, code):
    run = edgellm("run", demo_path, "x", *flags, cwd=tmp_path)
    assert run.returncode == code
    assert "template" in run.stderr
