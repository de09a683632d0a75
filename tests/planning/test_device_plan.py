"""`edgellm plan`: the parts of the memory, what fits, what would, and the verb."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

import edgellm
from command_line import edgellm as run_edgellm
from edgellm.cli.exits import Exit
from edgellm.device_plan import PROGRAM_BYTES, DevicePlan, plan_on
from edgellm.edgefile import read_header
from edgellm.errors import (
    ContextOverflowError,
    FormatError,
    InvalidArgumentError,
    MemoryBudgetError,
    UnsupportedError,
)
from edgellm.layer_split import STEP_BYTES
from edgellm.planner import file_bytes_as, plan_of
from edgellm.profiles import Figure, find_profile

N_CTX = 512  # all that the demo has


@pytest.fixture(scope="module")
def header(demo_path):
    return read_header(demo_path)


def test_the_parts_are_those_of_the_runtime(header, demo_path):
    plan = plan_on(header, None, n_ctx=N_CTX, kv="K8V4", parallel=3)
    with edgellm.load(demo_path, kv="K8V4", speculate=False) as model:
        native = model._native
        own = {
            "file": native.file_bytes,
            "scratch": native.scratch_bytes,
            "logits": 3 * native.session_bytes,
            "kv": 3 * native.kv_bytes(N_CTX),
            "program": PROGRAM_BYTES,
        }
        assert plan.parts == {**own, "kernel": sum(own.values()) * 17 // 4096}
    assert plan.fits is True
    assert plan.total_bytes == sum(plan.parts.values())


def test_loading_keeps_to_the_plan(header, demo_path):
    """The bytes that it names are enough for its texts, and not for one page more."""
    plan = plan_on(header, None, n_ctx=N_CTX, parallel=2)
    ids = [3] * (N_CTX - 1)
    with edgellm.load(demo_path, **plan.load_arguments, speculate=False) as model:
        streams = [model.stream(ids, max_tokens=1) for _ in range(2)]
        with pytest.raises(MemoryBudgetError):
            model.stream([3], max_tokens=1)
        assert all(len(stream.result().token_ids) == 1 for stream in streams)
    one = plan_on(header, None, n_ctx=N_CTX)
    with pytest.raises(MemoryBudgetError, match="largest n_ctx that fits is 496"):
        edgellm.load(demo_path, max_memory=one.max_memory_bytes - 1, n_ctx=N_CTX)


def test_what_does_not_fit_names_what_would(header):
    wish = {"n_ctx": N_CTX, "kv": "F16", "parallel": 4}
    whole = plan_on(header, None, **wish).total_bytes
    plan = plan_on(header, None, **wish, limit_bytes=whole - 1)
    assert plan.fits is False
    assert [way.change for way in plan.ways] == [
        "--kv K8V8",
        "--context 496",
        "--parallel 3",
        f"edgellm convert --format {plan.ways[3].wish.format}",
    ]
    for way in plan.ways:
        assert way.total_bytes < whole
        if way.wish.format is None:
            again = plan_on(
                header, None, n_ctx=way.wish.n_ctx, kv=way.wish.kv, parallel=way.wish.parallel
            )
            assert again.total_bytes == way.total_bytes
    assert file_bytes_as(header, plan.ways[3].wish.format) < header.file_bytes


def test_the_context_that_would_fit_is_the_longest(header):
    limit = plan_on(header, None, n_ctx=N_CTX, kv="K6V4").total_bytes - 100_000
    plan = plan_on(header, None, n_ctx=N_CTX, kv="K6V4", limit_bytes=limit)
    way = next(one for one in plan.ways if one.change.startswith("--context"))
    assert way.total_bytes <= limit
    assert plan_on(header, None, n_ctx=way.wish.n_ctx + 16, kv="K6V4").total_bytes > limit


def test_where_no_change_is_enough_two_are_told(header):
    smaller = [file_bytes_as(header, name) for name in ("E2_16", "E3_32")]
    limit = PROGRAM_BYTES + min(smaller) + plan_of(header, 0, "K6V4").bytes_at(16)
    limit = (limit - header.file_bytes) * 4113 // 4096 + 1
    plan = plan_on(header, None, n_ctx=N_CTX, kv="F16", parallel=8, limit_bytes=limit)
    (way,) = plan.ways
    assert way.total_bytes <= limit
    assert way.change == "edgellm convert --format E2_16, --kv K6V4, --parallel 1, --context 16"
    assert plan_on(header, None, n_ctx=N_CTX, limit_bytes=PROGRAM_BYTES).ways == ()
    saved = header.file_bytes - file_bytes_as(header, "E2_16")
    limit = plan_on(header, None, n_ctx=N_CTX, kv="K6V4").total_bytes - saved + 4096
    (pair,) = plan_on(header, None, n_ctx=N_CTX, kv="F16", limit_bytes=limit).ways
    assert pair.change == "edgellm convert --format E2_16, --kv K6V4, --parallel 1, --context 512"
    assert pair.total_bytes <= limit


def test_long_texts_may_be_streamed(header):
    spec = {**header.spec, "n_ctx_train": 16384}
    long = replace(header, spec=spec)
    whole = plan_on(long, None, n_ctx=16384).total_bytes
    plan = plan_on(long, None, n_ctx=16384, limit_bytes=whole // 2)
    way = next(one for one in plan.ways if one.wish.window)
    assert way.change.startswith("generate(window=1024)")
    assert way.wish.n_ctx < 2048


def test_a_gpu_has_its_own_memory_or_a_copy(header):
    h100 = plan_on(header, find_profile("server-h100"))
    assert (h100.backend, h100.limit_bytes) == ("cuda", 80 * 10**9)
    assert "gpu copy" not in h100.parts
    jetson = plan_on(header, find_profile("jetson-orin-nano"))
    assert jetson.parts["gpu copy"] == header.file_bytes
    assert jetson.max_memory_bytes == h100.max_memory_bytes
    on_cpu = plan_on(header, find_profile("jetson-orin-nano"), backend="cpu")
    assert set(jetson.parts) - set(on_cpu.parts) == {"gpu copy"}


def test_layers_that_a_gpu_has_no_room_for_stay_on_the_cpu(header):
    h100 = find_profile("server-h100")
    assert plan_on(header, h100).host_layers == 0
    kv = plan_on(header, h100).parts["kv"]
    n_layers = len(header.spec["layers"])

    def plan(n_weights: int) -> DevicePlan:
        memory = Figure(STEP_BYTES + kv + n_weights, "estimated", "small")
        cuda = replace(h100.accelerator("cuda"), memory_bytes=memory)
        return plan_on(header, replace(h100, accelerators=(cuda,)))

    some = plan(header.file_bytes // 2)
    assert 0 < some.host_layers < n_layers
    assert some.decode is None
    assert plan(header.file_bytes // 3).host_layers > some.host_layers
    assert plan(1000).host_layers is None
    assert plan(header.file_bytes).host_layers == 0


def test_a_device_whose_memory_nobody_knows_is_not_judged(header):
    pi = find_profile("raspberry-pi-5")
    unknown = replace(pi, memory=replace(pi.memory, ram_bytes=None))
    plan = plan_on(header, unknown)
    assert plan.fits is None
    assert plan.ways == ()
    share = Figure(0.001, "estimated", "tiny")
    tiny = replace(pi, memory=replace(pi.memory, app_share=share))
    assert plan_on(header, tiny).fits is False


@pytest.mark.parametrize("spec", [{}, {"kind": "lora"}, {"layers": 3}, {"layers": [1, "a"]}])
def test_what_is_no_model_is_refused(header, spec):
    with pytest.raises(FormatError, match="no model"):
        plan_on(replace(header, spec=spec), None)


@pytest.mark.parametrize("layer", [{}, {"n_heads": -1}, {"n_heads": "x", "window": True}])
def test_a_spec_with_nothing_in_it_makes_no_trouble(header, layer):
    """The header of a stranger: what is missing counts as nothing."""
    bare = replace(header, spec={"layers": [layer]}, tensors={})
    plan = plan_on(bare, find_profile("raspberry-pi-5"))
    assert plan.parts["kv"] == 0
    assert plan.fits is True


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"n_ctx": 0}, InvalidArgumentError),
        ({"n_ctx": N_CTX + 1}, ContextOverflowError),
        ({"parallel": 0}, InvalidArgumentError),
        ({"kv": "Q4"}, UnsupportedError),
        ({"backend": "metal"}, UnsupportedError),
        ({"backend": "cuda"}, UnsupportedError),
    ],
)
def test_wishes_that_make_no_sense_are_refused(header, wish, error):
    with pytest.raises(error):
        plan_on(header, find_profile("raspberry-pi-5"), **wish)


def test_the_verb_plans_without_reading_weights(tmp_path, demo_path, header):
    """Of a file whose weights are no longer those that it was written with."""
    hollow = tmp_path / "hollow.edge"
    data = bytearray(demo_path.read_bytes())
    for tensor in header.tensors.values():
        if len(tensor.shape) == 2:
            start = header.data_start + tensor.offset
            data[start : start + tensor.n_bytes] = bytes(tensor.n_bytes)
    hollow.write_bytes(data)
    run = run_edgellm("plan", hollow, "--device", "raspberry-pi-5", "--json", cwd=tmp_path)
    assert run.returncode == Exit.OK, run.stderr
    data = json.loads(run.stdout)["data"]
    assert data["fits"] is True
    assert data["device"] == "raspberry-pi-5"
    assert data["decode"]["low"] < data["decode"]["tokens_per_s"] < data["decode"]["high"]
    assert data["total_bytes"] == sum(data["parts"].values())


def test_the_verb_says_what_would_fit(tmp_path):
    run = run_edgellm(
        "plan", "demo", "--max-memory", "23MiB", "--kv", "F16", "--parallel", "4", cwd=tmp_path
    )
    assert run.returncode == Exit.MEMORY
    assert "would fit" in run.stdout
    assert "--parallel 1" in run.stdout
    assert "fits " in run.stdout


def test_the_verb_lists_devices_and_asks_for_a_model(tmp_path):
    listed = run_edgellm("plan", "--devices", cwd=tmp_path).stdout
    assert re.search(r"^raspberry-pi-5 +Raspberry Pi 5", listed, re.MULTILINE)
    run = run_edgellm("plan", cwd=tmp_path)
    assert run.returncode == Exit.USAGE
    assert "MODEL is missing" in run.stderr
