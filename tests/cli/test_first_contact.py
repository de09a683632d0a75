"""What a newcomer gets wrong in the first ten minutes: each mistake has a message and a code."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from command_line import data_of, edgellm, edgellm_after, failure_of
from edgellm.cli.exits import Exit
from edgellm.edgefile import read_header
from edgellm.planner import plan_of


def test_without_arguments_the_demo_speaks_and_says_that_it_does(tmp_path):
    run = edgellm("run", "-n", 3, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "no model and no prompt given: the built-in demo" in run.stderr
    assert len(run.stdout.strip()) > 0


def test_with_only_a_prompt_the_demo_continues_it_and_says_so(tmp_path):
    run = edgellm("run", "The sun was", "-n", 3, "--json", cwd=tmp_path)
    assert "no model given: the built-in demo" in run.stderr
    data = data_of(run, "run")
    assert data["model"] == "demo"
    named = data_of(edgellm("run", "demo", "The sun was", "-n", 3, "--json", cwd=tmp_path), "run")
    assert named["token_ids"] == data["token_ids"]


@pytest.mark.parametrize("model", ["demo", "mine.edge", "here"])
def test_a_model_without_a_prompt_is_not_taken_for_a_prompt(model, tmp_path):
    (tmp_path / "here").write_text("a file", encoding="utf-8")
    message = failure_of(edgellm("run", model, cwd=tmp_path), Exit.USAGE)
    assert f'PROMPT is missing: edgellm run {model} "TEXT"' in message


@pytest.fixture
def folder(tmp_path: Path, tiny_edge: Path) -> Path:
    """A folder as a newcomer has it: one model, and files that are none."""
    shutil.copy(tiny_edge, tmp_path / "story.edge")
    (tmp_path / "raw.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    (tmp_path / "old.bin").write_bytes(b"PK\x03\x04" + bytes(64))
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("storry.edge", "did you mean story.edge?"),
        ("dmeo", "did you mean demo?"),
        ("quite-different", "has story.edge; the built-in model is: demo"),
        ("models/story.edge", "there is no models (the nearest folder that exists is .)"),
        (".", "it is a directory; did you mean story.edge?"),
        ("empty", "it is a directory; give the .edge file itself"),
        ("old.bin", "convert the safetensors version of this model"),
    ],
)
def test_a_path_that_is_no_model_says_what_to_do(name, advice, folder):
    assert advice in failure_of(edgellm("run", name, "hi", cwd=folder), Exit.BAD_INPUT)


@pytest.mark.parametrize("verb", ["inspect", "verify", "bench"])
def test_every_verb_that_takes_a_model_gives_that_advice(verb, folder):
    message = failure_of(edgellm(verb, "storry.edge", cwd=folder), Exit.BAD_INPUT)
    assert "did you mean story.edge?" in message


def test_weights_and_checkpoints_where_a_file_is_wanted_are_sent_to_convert(
    tiny_checkpoint, tmp_path
):
    weights = tiny_checkpoint / "model.safetensors"
    for command in (("verify", tiny_checkpoint), ("run", weights, "hi")):
        message = failure_of(edgellm(*command, cwd=tmp_path), Exit.BAD_INPUT)
        assert f"edgellm convert {tiny_checkpoint} OUT.edge" in message


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("story.edge", "it is converted already: edgellm run FILE PROMPT"),
        ("raw.gguf", "holds a vocabulary and no tensors: there is nothing to convert"),
        ("old.bin", "give its directory, ."),
        ("emty", "did you mean empty?"),
        ("empty", "config.json: no such file"),
    ],
)
def test_what_convert_cannot_read_says_what_to_give(name, advice, folder):
    run = edgellm("convert", name, "out.edge", cwd=folder)
    assert advice in failure_of(run, Exit.BAD_INPUT)
    assert not (folder / "out.edge").exists()


def changed_checkpoint(source: Path, target: Path, **config: object) -> Path:
    """A copy of a checkpoint with other values in its config.json."""
    shutil.copytree(source, target)
    path = target / "config.json"
    values = json.loads(path.read_text(encoding="utf-8")) | config
    path.write_text(json.dumps(values), encoding="utf-8")
    return target


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_with_the_fix(name, tiny_checkpoint, tmp_path):
    source = changed_checkpoint(tiny_checkpoint, tmp_path / "source")
    (source / "model.safetensors").rename(source / name)
    run = edgellm("convert", "source", "out.edge", cwd=tmp_path)
    message = failure_of(run, Exit.UNSUPPORTED)
    assert name in message
    assert "can run code" in message
    assert "save_pretrained" in message
    assert not (tmp_path / "out.edge").exists()


def test_an_unknown_architecture_names_the_keys_not_understood(tiny_checkpoint, tmp_path):
    changed_checkpoint(
        tiny_checkpoint,
        tmp_path / "source",
        architectures=["PagurusForCausalLM"],
        shell_size=7,
        claw_count=2,
    )
    run = edgellm("convert", "source", "out.edge", cwd=tmp_path)
    message = failure_of(run, Exit.UNSUPPORTED)
    for part in ("PagurusForCausalLM", "LlamaForCausalLM", "shell_size", "claw_count"):
        assert part in message
    assert "hidden_size" not in message


def test_a_file_without_a_tokenizer_says_so_when_made_and_when_used(tiny_checkpoint, tmp_path):
    source = changed_checkpoint(tiny_checkpoint, tmp_path / "source")
    (source / "tokenizer.json").unlink()
    made = edgellm("convert", "source", "bare.edge", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "no tokenizer files" in made.stderr
    message = failure_of(edgellm("run", "bare.edge", "hi", cwd=tmp_path), Exit.UNSUPPORTED)
    assert "bare.edge holds no tokenizer" in message


def test_a_model_larger_than_the_memory_names_formats_that_then_do_fit(tiny_checkpoint, tmp_path):
    from edgellm import _native

    made = edgellm("convert", tiny_checkpoint, "big.edge", "--format", "E8_32", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    native = _native.Model.load(tmp_path / "big.edge")
    need = native.file_bytes + native.scratch_bytes + native.session_bytes
    need += 16 * native.kv_bytes_per_token
    native.close()

    fits = edgellm("run", "big.edge", "hi", "-n", 1, "--max-memory", need, cwd=tmp_path)
    assert fits.returncode == 0, fits.stderr
    given = ("hi", "-n", 1, "--max-memory", need - 1)
    message = failure_of(edgellm("run", "big.edge", *given, cwd=tmp_path), Exit.MEMORY)
    assert "no context fits" in message
    advised = re.search(r"would fit: (.*); edgellm convert", message)
    assert advised, message
    formats = re.findall(r"(\w+) \(", advised.group(1))
    assert formats == ["E6_16", "E4_16", "E4_32", "E3_32", "E2_16"]
    for format in formats:
        edgellm("convert", tiny_checkpoint, "less.edge", "--format", format, cwd=tmp_path)
        assert edgellm("run", "less.edge", *given, cwd=tmp_path).returncode == 0


def test_a_context_larger_than_the_memory_names_the_largest_that_fits(demo_path, tmp_path):
    most = plan_of(read_header(demo_path), limit_bytes=0).bytes_at(200)
    given = ("run", "demo", "hi", "--max-memory", f"{most}B", "-n")
    message = failure_of(edgellm(*given, 500, cwd=tmp_path), Exit.MEMORY)
    fitting = re.search(r"n_ctx of at most (\d+) \(prompt and new tokens together\)", message)
    assert fitting, message
    data = data_of(edgellm("run", "demo", "hi", "-n", 1, "--json", cwd=tmp_path), "run")
    n_new = int(fitting.group(1)) - data["stats"]["prompt_tokens"]
    assert n_new > 0
    assert edgellm(*given, n_new, cwd=tmp_path).returncode == 0
    failure_of(edgellm(*given, n_new + 1, cwd=tmp_path), Exit.MEMORY)


@pytest.mark.parametrize("size", ["much", "-1", "12 parsecs", "1.5.2GB"])
def test_a_size_that_is_none_is_refused(size, tmp_path):
    run = edgellm("run", "demo", "hi", f"--max-memory={size}", cwd=tmp_path)
    assert "--max-memory" in failure_of(run, Exit.USAGE)


def test_a_disk_too_small_is_said_before_anything_is_written(tiny_checkpoint, tmp_path):
    setup = """
import shutil, edgellm.edgefile
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 20)
def written(*args, **options): raise AssertionError("the writer was opened")
edgellm.edgefile.EdgeWriter.__enter__ = written
"""
    run = edgellm_after(setup, "convert", tiny_checkpoint, tmp_path / "out.edge", cwd=tmp_path)
    message = failure_of(run, Exit.BAD_INPUT)
    assert "1.0 MiB are free" in message
    assert "nothing was written" in message
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing_half_written(tiny_checkpoint, tmp_path):
    resource = pytest.importorskip("resource", reason="file size limits are a POSIX matter")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    setup = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, {most}))"
    run = edgellm_after(setup, "convert", tiny_checkpoint, tmp_path / "out.edge", cwd=tmp_path)
    assert "write failed" in failure_of(run, Exit.BAD_INPUT)
    assert list(tmp_path.iterdir()) == []
