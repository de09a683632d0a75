"""`edgellm doctor`: every line has a verdict and what to do; the worst one is the exit code."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from command_line import data_of, edgellm, edgellm_after
from edgellm import doctor, planner
from edgellm.cli.exits import Exit
from edgellm.doctor_model import check_model
from edgellm.edgefile import EdgeWriter, read_header, read_tensor
from edgellm.options import KV_FORMATS

VERDICTS = ("ok", "warning", "failure")


def checks_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in document["checks"]}


def findings(path: Path | str, max_memory: int | None = None) -> dict[str, doctor.Check]:
    return {check.name: check for check in check_model(str(path), max_memory)}


def rewritten(source: Path, out: Path, changes: dict[str, bytes]) -> Path:
    """A copy of a file, valid and hashed, with other bytes in the tensors named."""
    header = read_header(source)
    with EdgeWriter(out, spec=header.spec) as writer:
        for tensor in header.tensors.values():
            if tensor.name == "edgellm.hashes":
                continue
            data = changes.get(tensor.name, bytes(read_tensor(header, tensor.name)))
            shape = (len(data),) if tensor.format == "U8" else tensor.shape
            writer.append(
                tensor.name, tensor.role, data, format=tensor.format, shape=shape, act=tensor.act
            )
    return out


def test_a_sound_machine_and_model_are_all_ok(tmp_path):
    run = edgellm("doctor", "demo", cwd=tmp_path)
    assert run.returncode == 0, run.stdout
    lines = run.stdout.splitlines()
    verdicts = [line.split()[0] for line in lines[:-2] if not line.startswith(" ")]
    assert set(verdicts) <= set(VERDICTS)
    assert "failure" not in verdicts
    n_ok = verdicts.count("ok")
    assert lines[-1].startswith(f"{n_ok} ok, ")
    warned = [line for line in lines if line.startswith("warning")]
    assert sum(line.startswith("         -> ") for line in lines) == len(warned)


def test_json_has_every_check_with_its_verdict(tiny_edge, tmp_path):
    data = data_of(edgellm("doctor", tiny_edge, "--json", cwd=tmp_path), "doctor")
    checks = checks_of(data)
    for name in ("python", "numpy", "processor", "native module", "instruction set", "threads"):
        assert checks[name]["verdict"] == "ok", name
    for name in ("memory", "cgroup", "cache directory", "config directory", "backends"):
        assert checks[name]["found"], name
    for name in ("structure", "hashes", "memory plan", "tokenizer", "smoke run"):
        assert checks[name]["verdict"] == "ok", name
    assert data["verdict"] == max((c["verdict"] for c in checks.values()), key=VERDICTS.index)
    assert all(c["fix"] for c in checks.values() if c["verdict"] != "ok")


def test_a_missing_model_fails_with_the_nearest_name(tmp_path):
    run = edgellm("doctor", "dmeo", cwd=tmp_path)
    assert run.returncode == Exit.BAD_INPUT
    assert "did you mean demo?" in run.stdout


def test_a_flipped_bit_fails_the_hashes_and_ends_there(tiny_edge, tmp_path):
    damaged = tmp_path / "damaged.edge"
    content = bytearray(tiny_edge.read_bytes())
    content[20000] ^= 1
    damaged.write_bytes(content)
    run = edgellm("doctor", damaged, "--json", cwd=tmp_path)
    assert run.returncode == Exit.INTEGRITY
    checks = checks_of(json.loads(run.stdout)["data"])
    assert checks["hashes"]["code"] == "leaf_hash"
    assert "get the file again" in checks["hashes"]["fix"]
    assert "smoke run" not in checks


def test_a_truncated_file_fails_its_structure(tiny_edge, tmp_path):
    (tmp_path / "cut.edge").write_bytes(tiny_edge.read_bytes()[:-100])
    run = edgellm("doctor", "cut.edge", cwd=tmp_path)
    assert run.returncode == Exit.BAD_INPUT
    assert "failure  structure: " in run.stdout


def test_the_examples_of_the_tokenizer_are_replayed(tiny_edge, tmp_path):
    assert "65 examples all equal" in findings(tiny_edge)["tokenizer"].found
    vectors = json.loads(bytes(read_tensor(tiny_edge, "vectors")))
    index = next(i for i, row in enumerate(vectors) if row["ids"])
    vectors[index]["ids"][0] += 1
    changed = {"vectors": json.dumps(vectors).encode()}
    found = findings(rewritten(tiny_edge, tmp_path / "t.edge", changed))["tokenizer"]
    assert found.verdict == "failure"
    assert "the original tokenizer gave" in found.found
    assert found.error is not None
    assert found.error.code == "tokenizer_invalid"


@pytest.mark.parametrize("blob", [b"{}", b"[1]", b'[{"text":"a","ids":["1"]}]', b"[", b"\xff"])
def test_examples_that_are_no_examples_are_a_failure(blob, tiny_edge, tmp_path):
    path = rewritten(tiny_edge, tmp_path / "t.edge", {"vectors": blob})
    assert findings(path)["tokenizer"].verdict == "failure"


def test_scores_that_are_not_finite_fail_the_smoke_run(tiny_edge, tmp_path):
    norm = struct.pack("<40f", *[math.inf] * 40)
    found = findings(rewritten(tiny_edge, tmp_path / "t.edge", {"output_norm": norm}))["smoke run"]
    assert found.verdict == "failure"
    assert found.error is not None
    assert found.error.code == "numeric"


def test_the_scores_of_the_converter_are_replayed_to_the_bit(tiny_edge, tmp_path):
    assert findings(tiny_edge)["scores"].found.startswith("the same bits")
    stored = json.loads(bytes(read_tensor(tiny_edge, "scores")))

    def checked(**changes: object) -> doctor.Check:
        blob = {"scores": json.dumps({**stored, **changes}).encode()}
        return findings(rewritten(tiny_edge, tmp_path / "t.edge", blob))["scores"]

    near = checked(sha256="0" * 64)
    assert near.verdict == "warning"
    assert "not the same bits: 0 from" in near.found
    far = checked(sha256="0" * 64, best=[[at, score + 1] for at, score in stored["best"]])
    assert far.verdict == "failure"
    assert far.error is not None
    assert far.error.code == "numeric"
    assert checked(sha256="0" * 64, best=[[10**9, 1.0]]).verdict == "failure"


@pytest.mark.parametrize(
    "blob",
    [
        b"[]",
        b"{}",
        b'{"ids":[],"sha256":"","best":[[1,1]],"version":""}',
        b'{"ids":["1"],"sha256":"","best":[[1,1]],"version":""}',
        b'{"ids":[1],"sha256":"","best":[[1]],"version":""}',
        b'{"ids":[99999],"sha256":"","best":[[1,1.0]],"version":""}',
        b" " * 70_000,
    ],
)
def test_scores_that_are_no_scores_are_a_failure(blob, tiny_edge, tmp_path):
    path = rewritten(tiny_edge, tmp_path / "t.edge", {"scores": blob})
    assert findings(path)["smoke run"].verdict == "failure"


def test_memory_for_part_of_the_context_is_a_warning_and_for_none_a_failure(demo_path):
    plan = planner.plan_of(read_header(demo_path), limit_bytes=0)
    demo = findings("demo", plan.bytes_at(144))
    assert demo["memory plan"].verdict == "warning"
    assert "hold 144 of 512 tokens" in demo["memory plan"].found
    assert demo["smoke run"].verdict == "ok"
    none = findings("demo", 2_000_000)["memory plan"]
    assert none.verdict == "failure"
    assert none.error is not None
    assert none.error.code == "memory_budget"


@pytest.mark.parametrize("kv", KV_FORMATS)
@pytest.mark.parametrize("name", ["demo_path", "tiny_edge"])
def test_the_plan_from_the_header_is_that_of_the_runtime(name, kv, request):
    from edgellm import _native

    path = request.getfixturevalue(name)
    native = _native.Model.load(path, kv_format=kv)
    plan = planner.plan_of(read_header(path), 1 << 30, kv)
    assert plan.scratch_bytes == native.scratch_bytes
    assert plan.kv_bytes_per_token == native.kv_bytes_per_token
    assert plan.kv_groups == tuple(planner.KvGroup(*group) for group in native.kv_groups)
    assert all(plan.kv_bytes_at(n) == native.kv_bytes(n) for n in (1, 16, 17, 32, 33, 128))
    assert plan.file_bytes == native.file_bytes
    assert plan.n_ctx_train == native.n_ctx_train
    native.close()


def test_the_size_in_another_format_is_the_size_that_convert_makes(tiny_checkpoint, tmp_path):
    from edgellm.converters import convert

    for format in ("E8_32", "E4_32"):
        convert(tiny_checkpoint, tmp_path / f"{format}.edge", format=format)
    header = read_header(tmp_path / "E8_32.edge")
    made = (tmp_path / "E4_32.edge").stat().st_size
    assert abs(planner.file_bytes_as(header, "E4_32") - made) < 1024


def test_a_slower_instruction_set_is_a_warning_and_an_unknown_one_a_failure(tmp_path):
    slow = edgellm("doctor", "--json", cwd=tmp_path, env={"EDGELLM_ISA": "scalar"})
    check = checks_of(data_of(slow, "doctor"))["instruction set"]
    assert check["verdict"] == "warning"
    assert "unset EDGELLM_ISA" in check["fix"]
    unknown = edgellm("doctor", cwd=tmp_path, env={"EDGELLM_ISA": "abacus"})
    assert unknown.returncode == Exit.UNSUPPORTED
    assert "abacus" in unknown.stdout


def test_a_missing_package_is_a_failure_with_its_pip_line(tmp_path):
    run = edgellm_after("sys.modules['jinja2'] = None", "doctor", cwd=tmp_path)
    assert run.returncode == Exit.INTERNAL
    assert "failure  jinja2: " in run.stdout
    assert "-> pip install jinja2" in run.stdout


def test_a_check_that_breaks_is_a_finding_not_a_crash(tmp_path):
    setup = (
        "import os\ndef broken(*_): raise OSError('no such call')\nos.sched_getaffinity = broken"
    )
    run = edgellm_after(setup, "doctor", cwd=tmp_path)
    assert run.returncode == Exit.INTERNAL
    assert "failure  processor: OSError: no such call" in run.stdout
    assert "cache directory" in run.stdout


def test_directories_that_cannot_be_used_are_warnings(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    check = doctor.directory_check("cache directory", tmp_path / "file" / "edgellm")
    assert (check.verdict, check.fix) == ("warning", f"move {tmp_path / 'file'}")
    assert doctor.directory_check("cache directory", tmp_path / "a" / "b").verdict == "ok"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_extras_come_from_the_metadata_of_the_package(monkeypatch):
    requirements = [
        "numpy>=1.26",
        "textual>=6; extra == 'tui'",
        'coremltools>=8; sys_platform == "darwin" and extra == "coreml"',
        "pip>=1 ; extra == 'npu-intel'",
        "pip; extra == 'npu'",
    ]
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    assert doctor.packages_of("tui", requirements) == ["textual"]
    assert doctor.packages_of("npu", requirements) == ["pip"]
    assert doctor.packages_of("coreml", requirements) is None
    absent = doctor.extra_check("tui", ["no-such-package"])
    assert absent.verdict == "ok"
    assert "pip install 'edgellm[tui]'" in absent.found
    assert doctor.extra_check("npu", ["pytest"]).found.startswith("pytest ")
