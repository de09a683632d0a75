"""Adapters through the SDK: any number of them beside one model, none disturbing another."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters.adapter import convert_adapter

import edgellm
import tiny_model as tiny
from command_line import data_of
from command_line import edgellm as run_edgellm
from edgellm.edgefile import read_header
from edgellm.planner import adapter_scratch_bytes
from golden.adapters import write_peft

PROMPT = "Hello, world"
SHORT = "{% for message in messages %}{{ message.content }}|{% endfor %}"  # a template
_Q, _KV = tiny.N_HEADS * tiny.HEAD_DIM, tiny.N_KV_HEADS * tiny.HEAD_DIM
MODULES = {
    f"model.layers.{layer}.{name}": shape
    for layer in range(tiny.N_LAYERS)
    for name, shape in {
        "self_attn.q_proj": (_Q, tiny.D_MODEL),
        "self_attn.k_proj": (_KV, tiny.D_MODEL),
        "self_attn.v_proj": (_KV, tiny.D_MODEL),
        "self_attn.o_proj": (tiny.D_MODEL, _Q),
        "mlp.gate_proj": (tiny.D_FFN, tiny.D_MODEL),
        "mlp.up_proj": (tiny.D_FFN, tiny.D_MODEL),
        "mlp.down_proj": (tiny.D_MODEL, tiny.D_FFN),
    }.items()
}


@pytest.fixture(scope="module")
def peft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters of the tiny model, "one" of everything and "two" of attention alone."""
    folder = tmp_path_factory.mktemp("peft")
    write_peft(folder / "one", MODULES, lora_alpha=32.0)
    attention = {name: shape for name, shape in MODULES.items() if "self_attn" in name}
    write_peft(folder / "two", attention, seed=1, lora_alpha=32.0)
    return folder


@pytest.fixture
def model(tiny_edge: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(tiny_edge, threads=2) as loaded:
        yield loaded


def test_generations_with_two_adapters_and_none_do_not_disturb_each_other(model, peft):
    adapters = (None, model.load_adapter(peft / "one"), model.load_adapter(peft / "two"))
    alone = [
        model.generate(PROMPT, max_tokens=10, stop_ids=[], adapter=adapter).token_ids
        for adapter in adapters
    ]
    assert alone[0] != alone[1] != alone[2] != alone[0]
    assert alone[0] == model.generate(PROMPT, max_tokens=10, stop_ids=[]).token_ids
    streams = [
        model.stream(PROMPT, max_tokens=10, stop_ids=[], adapter=adapter) for adapter in adapters
    ]
    for tokens in zip(*streams, strict=True):
        assert [token.id for token in tokens] == [ids.pop(0) for ids in alone]
    two = model.generate_n(PROMPT, 2, max_tokens=4, stop_ids=[], adapter=adapters[1])
    single = model.generate(PROMPT, max_tokens=4, stop_ids=[], adapter=adapters[1])
    assert [one.token_ids for one in two] == [single.token_ids] * 2


def test_a_model_that_has_adapters_gives_the_bits_it_gave_before(tiny_edge, peft):
    ids = list(range(2, 90))
    with edgellm.load(tiny_edge) as plain, edgellm.load(tiny_edge) as other:
        adapter = other.load_adapter(peft / "one")
        changed = other.logits(ids, adapter=adapter)
        assert np.array_equal(plain.logits(ids), other.logits(ids))
        assert not np.array_equal(plain.logits(ids), changed)
        assert np.array_equal(changed, other.logits(ids, adapter=adapter))
        assert np.array_equal(plain.embed(ids), other.embed(ids))
        assert not np.array_equal(plain.embed(ids), other.embed(ids, adapter=adapter))


def test_a_file_and_its_directory_are_the_same_adapter(model, peft, tiny_edge, tmp_path):
    out = tmp_path / "one.edge"
    report = data_of(
        run_edgellm("convert", peft / "one", out, "--base", tiny_edge, "--json", cwd=tmp_path),
        "convert",
    )
    from_file, from_directory = model.load_adapter(out), model.load_adapter(peft / "one")
    info = from_file.info()
    assert info.root == from_directory.root == read_header(out).root
    assert (info.rank, info.n_parameters) == (36, report["n_parameters"])
    assert info.file_bytes == out.stat().st_size == report["n_bytes"]
    assert info.source["kind"] == "peft"
    assert set(info.source["files"]) == {"adapter_config.json", "adapter_model.safetensors"}
    assert dataclasses.replace(from_directory.info(), path=info.path) == info
    shown = run_edgellm("inspect", out, cwd=tmp_path).stdout
    assert re.search(r"^kind +adapter for llama$", shown, re.MULTILINE)
    assert re.search(r"^layers +2 of width 40$", shown, re.MULTILINE)


def test_the_keys_and_values_of_a_chat_are_never_used_with_another_adapter(model, peft):
    one, again, two = (model.load_adapter(peft / name) for name in ("one", "one", "two"))
    options = {"max_tokens": 4, "stop_ids": []}
    with model.chat(template=SHORT, adapter=one) as chat:
        chat.send("a", **options)
        chat.adapter = again  # the same content
        assert chat.send("b", **options).stats.reused_tokens > 0
        for adapter in (two, None, one):
            chat.adapter = adapter
            assert chat.adapter is adapter
            assert chat.context_tokens[0] == 0
            reply = chat.send("c " * 5, **options)
            assert reply.stats.reused_tokens == 0
            prompt = chat.turns[-1].prompt_ids
            alone = model.generate(prompt, adapter=adapter, **options)
            assert reply.token_ids == alone.token_ids
            assert chat.regenerate(**options).stats.reused_tokens > 0


def test_the_memory_of_adapters_is_counted_and_given_back(tiny_edge, peft, tmp_path):
    convert_adapter(peft / "one", tmp_path / "a.edge", base=tiny_edge)
    header = read_header(tiny_edge)
    with edgellm.load(tiny_edge) as loose:
        native = loose._native
        fixed = native.file_bytes + native.scratch_bytes
        cache = native.kv_bytes() + native.session_bytes
        info = loose.load_adapter(tmp_path / "a.edge").info()
    assert info.scratch_bytes == adapter_scratch_bytes(header, info.rank)
    most = fixed + cache + info.file_bytes + info.scratch_bytes
    with edgellm.load(tiny_edge, max_memory=most - 1) as model:
        adapter = model.load_adapter(tmp_path / "a.edge")
        with pytest.raises(edgellm.MemoryBudgetError):
            model.load_adapter(tmp_path / "a.edge")
        with pytest.raises(edgellm.MemoryBudgetError):
            model.chat(template="chatml", adapter=adapter)
        del adapter
    with edgellm.load(tiny_edge, max_memory=most) as model:
        for _ in range(3):
            adapter = model.load_adapter(tmp_path / "a.edge")
            model.chat(template="chatml", adapter=adapter).close()
            del adapter


def test_files_that_are_no_adapter_of_the_model_are_refused(model, peft, tiny_edge, tmp_path):
    adapter = tmp_path / "a.edge"
    convert_adapter(peft / "one", adapter, base=tiny_edge)
    with pytest.raises(edgellm.FormatError, match="not an adapter") as refused:
        model.load_adapter(tiny_edge)
    assert refused.value.code == "spec_invalid"
    with pytest.raises(edgellm.FormatError, match="adapter, not a model"):
        edgellm.load(adapter)
    with edgellm.load("demo") as demo, pytest.raises(edgellm.FormatError) as mismatch:
        demo.load_adapter(adapter)
    assert mismatch.value.code == "adapter_mismatch"
    damaged = tmp_path / "damaged.edge"
    shutil.copyfile(adapter, damaged)
    with damaged.open("r+b") as file:
        file.seek(read_header(adapter).data_start + 100)
        file.write(b"\xff")
    with pytest.raises(edgellm.IntegrityError) as broken:
        model.load_adapter(damaged)
    assert broken.value.code == "leaf_hash"
    with pytest.raises(edgellm.FormatError) as missing:
        model.load_adapter(tmp_path / "nothing.edge")
    assert missing.value.code == "file_not_found"


def test_an_adapter_stays_with_the_model_it_was_loaded_with(model, tiny_edge, peft):
    with edgellm.load(tiny_edge) as other:
        strange = other.load_adapter(peft / "one")
    with pytest.raises(edgellm.InvalidArgumentError, match="another model"):
        model.generate(PROMPT, max_tokens=1, adapter=strange)
    with pytest.raises(edgellm.InvalidArgumentError, match="load_adapter"):
        model.generate(PROMPT, max_tokens=1, adapter="one")
    assert strange.info().rank == 36  # the model is closed, the file is still mapped


def test_run_and_chat_take_an_adapter(tiny_edge, peft, tmp_path):
    arguments = ("-n", "6", "--ignore-eos", "--json")
    run = run_edgellm("run", tiny_edge, PROMPT, "--adapter", peft / "one", *arguments, cwd=tmp_path)
    with edgellm.load(tiny_edge) as model:
        adapter = model.load_adapter(peft / "one")
        wanted = model.generate(PROMPT, max_tokens=6, ignore_eos=True, adapter=adapter)
        with model.chat(template="chatml", adapter=adapter) as chat:
            reply = chat.send("hello", max_tokens=6, ignore_eos=True)
    assert data_of(run, "run")["token_ids"] == wanted.token_ids
    talk = run_edgellm(
        *("chat", tiny_edge, "--adapter", peft / "one", "--template", "chatml"),
        *("--temperature", "0", "--min-p", "0", *arguments),
        cwd=tmp_path,
        stdin="hello\n",
    )
    assert data_of(talk, "chat")["turns"][0]["text"] == reply.text


def test_convert_says_what_an_adapter_needs(peft, tiny_edge, tmp_path):
    run = run_edgellm("convert", peft / "one", tmp_path / "a.edge", cwd=tmp_path)
    assert run.returncode == 2
    assert "--base" in run.stderr
    run = run_edgellm(
        *("convert", peft / "one", tmp_path / "a.edge", "--base", tiny_edge, "--format", "E4_16"),
        cwd=tmp_path,
    )
    assert run.returncode == 2
    assert "--format" in run.stderr
    assert not (tmp_path / "a.edge").exists()
