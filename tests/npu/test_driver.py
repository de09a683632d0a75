"""`load(backend="npu")`: the native driver runs a bundle in onnxruntime, and whole models say what
the CPU runtime says, however a text was cut, reused, saved or guessed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu
from edgellm.converters.npu.compare import cpu_logits, difference

import command_line
import edgellm
from edgellm.errors import (
    ContextOverflowError,
    DeviceError,
    EdgeError,
    FormatError,
    IntegrityError,
    InvalidArgumentError,
    MemoryBudgetError,
    UnsupportedError,
)
from edgellm.npu import DESCRIPTION
from edgellm.npu.driver import bundle_of, onnxruntime_library, placements
from golden.tiny import SHARED_MODELS, shared_model

pytest.importorskip("onnx", reason="graphs are written with onnx (extra npu)")
pytest.importorskip("onnxruntime", reason="graphs are run by it (extra npu)")

SMALL = NpuOptions(rows=(1, 4, 16), context=64, buckets=(16,))
TEXT = [1, 5, 9, 3, 7, 5, 9, 3, 7, 11, 2, 5, 9, 3, 7, 20, 21, 22, 5, 9]
GREEDY = {"max_tokens": 40, "stop_ids": ()}


@pytest.fixture(scope="module")
def edge(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with graphs beside it."""
    out = tmp_path_factory.mktemp("driver") / "tiny.edge"
    convert(tiny, out, format="L4_32", act="f32")
    export_npu(out, out.with_suffix(".npu-ort"), "npu:ort", SMALL)
    return out


@pytest.fixture(scope="module")
def wanted(edge: Path) -> list[int]:
    with edgellm.load(edge, kv="F16", threads=1) as cpu:
        return list(cpu.generate(TEXT, **GREEDY).token_ids)


@pytest.fixture
def npu(edge: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(edge, backend="npu", kv="F16", threads=1, speculate=False) as model:
        yield model


def test_greedy_text_is_the_cpu_runtimes(npu: edgellm.Model, wanted: list[int]):
    assert npu.info().backend == "npu"
    assert [token.id for token in npu.stream(TEXT, **GREEDY)] == wanted


def test_logits_are_the_cpu_runtimes(npu: edgellm.Model, edge: Path):
    ids = (TEXT * 3)[:60]
    assert difference(npu.logits(ids), cpu_logits(edge, ids)).relative <= 1e-3


def test_guesses_change_no_token(edge: Path):
    texts = []
    for speculate in (False, "always"):
        with edgellm.load(edge, backend="npu", threads=1, speculate=speculate) as model:
            assert model.info().kv_format == "F16"
            result = model.generate(TEXT, **GREEDY)
            texts.append(list(result.token_ids))
    assert texts[0] == texts[1]
    assert result.stats.drafted_tokens > 0


def test_a_seed_is_a_text(npu: edgellm.Model):
    settings = {"max_tokens": 24, "temperature": 0.8, "top_k": 8, "stop_ids": ()}
    plain = npu.generate(TEXT, seed=5, **settings).token_ids
    assert npu.generate(TEXT, seed=5, **settings).token_ids == plain
    assert npu.generate(TEXT, seed=6, **settings).token_ids != plain


def test_a_beginning_that_is_known_is_reused(npu: edgellm.Model, wanted: list[int]):
    npu.generate(TEXT, **GREEDY)
    for _ in range(3):  # so that the buffers hold other texts, and pages are read
        npu.generate([4, 4, 4], max_tokens=4)
    again = npu.generate(TEXT, **GREEDY)
    assert list(again.token_ids) == wanted
    assert again.stats.reused_tokens >= 16


def test_sequences_that_take_turns_are_as_alone(npu: edgellm.Model):
    prompts = [TEXT, TEXT[3:], TEXT[:7], [8, 8, 9]]
    alone = [list(npu.generate(prompt, **GREEDY).token_ids) for prompt in prompts]
    together = npu.generate_batch(prompts, **GREEDY)
    assert [list(result.token_ids) for result in together] == alone


def test_a_chat_goes_on_and_is_saved(edge: Path, tmp_path: Path):
    path, template = (
        tmp_path / "chat.session",
        "{% for m in messages %}{{ m.content }} {% endfor %}",
    )
    settings = {"max_tokens": 6, "stop_ids": ()}
    with (
        edgellm.load(edge, backend="npu", kv="F16", threads=1) as model,
        model.chat(template=template) as chat,
    ):
        chat.send("Once", **settings)
        assert chat.send("upon", **settings).stats.reused_tokens > 0
        chat.save(path)
        wanted = chat.send("a time", **settings).text
    for backend in ("npu", "cpu"):
        with (
            edgellm.load(edge, backend=backend, kv="F16", threads=1) as model,
            model.restore(path, template=template) as chat,
        ):
            assert chat.send("a time", **settings).text == wanted


def test_what_does_not_fit_is_refused_before_any_work(npu: edgellm.Model):
    with pytest.raises(ContextOverflowError, match="64"):
        npu.generate(list(range(2, 70)), max_tokens=1)
    with pytest.raises(ContextOverflowError):
        npu.generate(TEXT, max_tokens=64)
    n_left = 64 - len(TEXT)
    assert len(npu.generate(TEXT, max_tokens=n_left, stop_ids=()).token_ids) == n_left


def test_what_graphs_do_not_give_is_named(npu: edgellm.Model):
    with pytest.raises(UnsupportedError, match="hidden states"):
        npu.embed(TEXT)
    with pytest.raises(UnsupportedError, match="KV format F16"):
        edgellm.load(npu.info().path, backend="npu", kv="K8V4")


def test_memory_is_asked_for_before_graphs_are_opened(edge: Path):
    with pytest.raises(MemoryBudgetError, match="scratch"):
        edgellm.load(edge, backend="npu", max_memory=300_000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_a_child_of_a_fork_is_told_to_load_again(npu: edgellm.Model):
    npu.generate(TEXT, max_tokens=1)
    child = os.fork()
    if child == 0:
        try:
            npu.generate(TEXT, max_tokens=2)
            os._exit(1)
        except DeviceError as error:
            os._exit(0 if "fork" in str(error) else 2)
        except BaseException:
            os._exit(3)
    assert os.waitpid(child, 0)[1] == 0


def copied(edge: Path, folder: Path) -> Path:
    copy = folder / edge.name
    shutil.copy(edge, copy)
    shutil.copytree(edge.with_suffix(".npu-ort"), copy.with_suffix(".npu-ort"))
    return copy


def change(path: Path, keys: list[str | int], value: object) -> None:
    root = at = json.loads((path / DESCRIPTION).read_text())
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    (path / DESCRIPTION).write_text(json.dumps(root))


HOSTILE: list[tuple[list[str | int], object, type[EdgeError]]] = [
    (["version"], 2, EdgeError),
    (["target"], "abacus", UnsupportedError),
    (["target"], "intel", UnsupportedError),
    (["graphs"], [], FormatError),
    (["graphs", 0, "entry"], "../../etc/passwd", FormatError),
    (["graphs", 0, "entry"], "bundle.json", FormatError),
    (["graphs", 0, "n_rows"], 3, FormatError),
    (["graphs", 0, "n_rows"], 0, FormatError),
    (["graphs", 0, "n_past"], 1 << 23, FormatError),
    (["graphs", 0, "part"], 1, FormatError),
    (["graphs", 0, "inputs", 0], "past_k.99", FormatError),
    (["graphs", 0, "inputs", 0], "past_k.0", FormatError),
    (["graphs", 0, "inputs"], [], FormatError),
    (["graphs", 0, "outputs"], ["logits"], FormatError),
    (["files", 0, "name"], "/etc/passwd", FormatError),
    (["files", 0, "sha256"], "0" * 64, IntegrityError),
    (["files"], [], FormatError),
    (["model", "layers"], {}, FormatError),
    (["model", "layers", 0, "head_dim"], 3, FormatError),
    (["model", "kv_dtype"], "f8", FormatError),
    (["model", "kv_dtype"], "f32", FormatError),
    (["model", "n_vocab"], 7, FormatError),
    (["model", "masked"], 1.0, FormatError),
    (["model", "stateful"], 1, UnsupportedError),
    (["model", "rotations", "full", "inv_freq"], ["x"], FormatError),
    (["model", "rotations", "full", "inv_freq"], [1.0], FormatError),
    (["settings"], {"a": 1}, FormatError),
]


@pytest.mark.parametrize(("keys", "value", "error"), HOSTILE)
def test_a_bundle_that_lies_is_refused(
    edge: Path, tmp_path: Path, keys: list[str | int], value: object, error: type[EdgeError]
):
    copy = copied(edge, tmp_path)
    change(copy.with_suffix(".npu-ort"), keys, value)
    with pytest.raises(error):
        edgellm.load(copy, backend="npu", threads=1)


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_file_is_refused_before_a_session_is_made(
    edge: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGELLM_ONNXRUNTIME_LIBRARY", "/nowhere/libonnxruntime.so")
    copy = copied(edge, tmp_path)
    victim = next(copy.with_suffix(".npu-ort").glob("*.data"))
    data = bytearray(victim.read_bytes())
    data[0] ^= 1
    victim.write_bytes(data[:-1] if damage == "cut" else data)
    if damage == "gone":
        victim.unlink()
    with pytest.raises(FormatError if damage == "gone" else IntegrityError, match=victim.name):
        edgellm.load(copy, backend="npu")


def test_graphs_of_another_model_are_refused(edge: Path, tmp_path: Path):
    other = tmp_path / "other.edge"
    convert(shared_model("stories260K"), other, format="L4_32", act="f32")
    shutil.copytree(edge.with_suffix(".npu-ort"), other.with_suffix(".npu-ort"))
    with pytest.raises(FormatError, match="another model"):
        edgellm.load(other, backend="npu")


def test_a_missing_library_or_bundle_is_named(
    edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lone = tmp_path / "lone.edge"
    shutil.copy(edge, lone)
    with pytest.raises(FormatError, match="--target npu:ort"):
        edgellm.load(lone, backend="npu")
    with pytest.raises(FormatError, match="found: ort"):
        edgellm.load(edge, backend="npu:intel")
    shutil.copytree(edge.with_suffix(".npu-ort"), lone.with_suffix(".npu-ort"))
    shutil.copytree(edge.with_suffix(".npu-ort"), lone.with_suffix(".npu-qualcomm-v75"))
    with pytest.raises(InvalidArgumentError, match="backend='npu:ort'"):
        edgellm.load(lone, backend="npu")
    assert bundle_of(lone, "npu:ort") == lone.with_suffix(".npu-ort")
    monkeypatch.setenv("EDGELLM_ONNXRUNTIME_LIBRARY", "/nowhere/libonnxruntime.so")
    with pytest.raises(DeviceError, match="pip install"):
        edgellm.load(edge, backend="npu")
    monkeypatch.delenv("EDGELLM_ONNXRUNTIME_LIBRARY")
    assert "onnxruntime" in onnxruntime_library().name
    monkeypatch.setenv("EDGELLM_NPU_LIBRARY", "/nowhere/libedgellm_npu.so")
    with pytest.raises(DeviceError, match="/nowhere"):
        edgellm.load(edge, backend="npu")


def test_a_provider_that_is_not_there_is_no_fallback(edge: Path, tmp_path: Path):
    from edgellm import _native

    folder, library = edge.with_suffix(".npu-ort"), onnxruntime_library()
    provider = {"provider": "NoneSuch", "provider_library": "/nowhere/libnone.so"}
    npu = [("bundle", str(folder)), ("library", str(library)), *provider.items()]
    with pytest.raises(DeviceError, match="onnxruntime: "):
        _native.Model.load(edge, backend="npu", kv_format="F16", npu=npu)


def test_where_the_parts_of_a_model_are_is_printed(edge: Path):
    found = placements(edge)
    assert found[0].parts == {"embedding": "npu", "layers": "npu", "head": "npu"}
    ran = command_line.edgellm("inspect", edge, cwd=edge.parent)
    assert "embedding, layers, head in graphs; 1, 4, 16 rows beside 16, 64 slots" in ran.stdout


@pytest.mark.parametrize(("embed", "head"), [("host", "npu"), ("npu", "host"), ("host", "host")])
def test_embedding_and_head_may_be_on_the_cpu(
    edge: Path, wanted: list[int], tmp_path: Path, embed: str, head: str
):
    copy = tmp_path / edge.name
    shutil.copy(edge, copy)
    options = NpuOptions(rows=(1, 4, 16), context=64, embed=embed, head=head)
    export_npu(copy, copy.with_suffix(".npu-ort"), "npu:ort", options)
    places = placements(copy)[0]
    assert places.parts == {
        "embedding": embed.replace("host", "cpu"),
        "layers": "npu",
        "head": head.replace("host", "cpu"),
    }
    assert "on the CPU" in places.text()
    with edgellm.load(copy, backend="npu", threads=1, speculate="always") as model:
        assert list(model.generate(TEXT, **GREEDY).token_ids) == wanted
        ids = (TEXT * 3)[:60]
        assert difference(model.logits(ids), cpu_logits(copy, ids)).relative <= 1e-3


@pytest.mark.slow
def test_qualcomms_simulator_is_driven_without_a_fallback(tiny: Path, tmp_path: Path):
    pytest.importorskip(
        "onnxruntime_qnn", reason="NOT TESTED: Qualcomm's HTP; pip install onnxruntime-qnn"
    )
    edge = tmp_path / "tiny.edge"
    convert(tiny, edge, format="F16", act="f32")
    options = NpuOptions(rows=(1, 4), context=32, bits=16)
    export_npu(tiny, edge.with_suffix(".npu-qualcomm-v75"), "npu:qualcomm-v75", options)
    with edgellm.load(edge, kv="F16", threads=1) as cpu:
        wanted = cpu.generate([1, 5, 9], max_tokens=12, stop_ids=()).token_ids
    with edgellm.load(edge, backend="npu", speculate="always") as npu:
        assert npu.generate([1, 5, 9], max_tokens=12, stop_ids=()).token_ids == wanted


@pytest.mark.parametrize(
    ("name", "format"),
    [
        pytest.param(name, format, marks=() if name == "stories260K" else pytest.mark.slow)
        for name in SHARED_MODELS
        for format in ("F16", "L4_32")
    ],
)
def test_whole_models_say_what_the_cpu_runtime_says(name: str, format: str, tmp_path: Path):
    edge = tmp_path / "model.edge"
    convert(shared_model(name), edge, format=format, act="f32")
    options = NpuOptions(rows=(1, 4, 64), context=128)
    export_npu(edge, edge.with_suffix(".npu-ort"), "npu:ort", options)
    prompt = [1, 5, 9]
    with edgellm.load(edge, kv="F16", threads=1) as cpu:
        wanted = list(cpu.generate(prompt, max_tokens=60, stop_ids=()).token_ids)
    with edgellm.load(edge, backend="npu", kv="F16", threads=1, speculate="always") as npu:
        assert list(npu.generate(prompt, max_tokens=60, stop_ids=()).token_ids) == wanted
        ids = [*prompt, *wanted]
        assert difference(npu.logits(ids), cpu_logits(edge, ids)).relative <= 1e-3
        assert np.isfinite(npu.logits(ids)).all()
