"""convert(): whole files or none, the same bytes whatever the blocks and threads."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import ConvertProgress, convert, pipeline, plan_conversion, scores
from edgellm.converters.__main__ import main
from edgellm.converters.background import Ahead
from edgellm.converters.quant import decode_matrix

from edgellm import edgefile
from edgellm.errors import FormatError, InvalidArgumentError, NumericError, UnsupportedError
from golden.tiny import CASES, hf_config, named_weights, tiny_checkpoint

CASE = CASES[1]  # untied


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path, CASE, dtype="BF16", n_shards=2)


def blob(path: Path, name: str) -> bytes:
    return bytes(edgefile.read_tensor(path, name))


def test_a_converted_file_holds_every_tensor_in_execution_order(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.edge"
    report = convert(source, out)
    header = edgefile.verify(out)
    names = [name for name, info in header.tensors.items() if info.format != "U8"]
    roles = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_o"]
    roles += ["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
    layers = [f"layers.{i}.{role}" for i in range(CASE["num_hidden_layers"]) for role in roles]
    assert names == ["token_embd", "rope_inv_freq", *layers, "output_norm", "output"]
    assert all(header.tensors[name].role == name.rsplit(".", 1)[-1] for name in names)
    assert report.n_weights == sum(int(np.prod(header.tensors[name].shape)) for name in names)


def test_matrices_and_vectors_hold_the_weights_of_the_checkpoint(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.edge"
    convert(source, out, format="E8_32")
    header = edgefile.read_header(out)
    info = header.tensors["layers.1.ffn_down"]
    data = np.frombuffer(edgefile.read_tensor(header, info.name), np.uint8)
    wanted = named_weights("model.layers.1.mlp.down_proj.weight", (80, 100))
    np.testing.assert_allclose(decode_matrix("E8_32", data, *info.shape), wanted, atol=0.01)
    norm = np.frombuffer(edgefile.read_tensor(header, "output_norm"), "<f4")
    np.testing.assert_allclose(norm, named_weights("model.norm.weight", (80,)), rtol=2**-8)


def test_block_size_and_thread_count_do_not_change_a_byte(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, blocks, again = (tmp_path / f"{name}.edge" for name in ("whole", "blocks", "again"))
    convert(source, whole, n_threads=1)
    convert(source, again, n_threads=2)
    monkeypatch.setattr(pipeline, "BLOCK_WEIGHTS", 1)  # one strip at a time
    monkeypatch.setattr(scores, "MAX_OWN_BYTES", 0)  # scores by another process
    convert(source, blocks, n_threads=2)
    assert whole.read_bytes() == again.read_bytes()
    assert whole.read_bytes() == blocks.read_bytes()


def test_the_file_says_what_it_was_made_from_and_how_well(source: Path, tmp_path: Path) -> None:
    (source / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    out = tmp_path / "model.edge"
    report = convert(source, out, format="E4_32", head_format="E8_32")
    digests = edgefile.read_header(out).source
    assert digests is not None
    files: Any = digests["files"]
    for path in source.iterdir():
        data = path.read_bytes()
        assert files[path.name] == {
            "sha256": hashlib.sha256(data).hexdigest(),
            "n_bytes": len(data),
        }
    assert blob(out, "chat_template") == b"{{ messages }}"
    rules = json.loads(blob(out, "recipe"))["rules"]
    assert {"pattern": "output", "format": "E8_32", "act": "a8"} in rules
    quality = {item["name"]: item for item in json.loads(blob(out, "report"))["tensors"]}
    assert quality["output"]["rel_rms_error"] < 0.01 < quality["token_embd"]["rel_rms_error"] < 0.2
    assert {item.name for item in report.tensors} == set(quality)


def test_a_chat_template_may_be_one_of_several_in_tokenizer_config(
    source: Path, tmp_path: Path
) -> None:
    templates = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    (source / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    report = convert(source, tmp_path / "model.edge")
    assert blob(tmp_path / "model.edge", "chat_template") == b"A"
    assert any("tool_use" in warning for warning in report.warnings)


def test_without_a_tokenizer_the_file_has_none_and_the_report_says_so(
    source: Path, tmp_path: Path
) -> None:
    report = convert(source, tmp_path / "model.edge")
    assert "tokenizer" not in edgefile.read_header(tmp_path / "model.edge").tensors
    assert any("tokenizer" in warning for warning in report.warnings)


def test_progress_reaches_the_end_and_an_exception_in_it_leaves_nothing_behind(
    source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    seen: list[ConvertProgress] = []
    convert(source, folder / "a.edge", progress=seen.append)
    assert seen[-1].n_weights_done == seen[-1].n_weights_total
    assert [s.n_weights_done for s in seen] == sorted({s.n_weights_done for s in seen})

    def interrupt(state: ConvertProgress) -> None:
        if state.n_weights_done > 20_000:
            raise KeyboardInterrupt

    n_threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        convert(source, folder / "b.edge", progress=interrupt)
    assert [path.name for path in folder.iterdir()] == ["a.edge"]
    assert threading.active_count() == n_threads


@pytest.mark.parametrize("format", ["E4_16", "F16"])
def test_a_weight_that_is_not_finite_is_refused_by_tensor_and_leaves_no_file(
    format: str, tmp_path: Path
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    weights = named_weights(name, (100, 80))
    weights[50, 3] = np.nan
    source = tiny_checkpoint(tmp_path, CASE, extra={name: weights})
    with pytest.raises(NumericError, match=name):
        convert(source, tmp_path / "model.edge", format=format)
    assert not (tmp_path / "model.edge").exists()


def test_missing_and_extra_tensors_are_named(tmp_path: Path) -> None:
    bias = np.zeros(80, np.float32)
    extra = tiny_checkpoint(
        tmp_path / "extra", CASE, extra={"model.layers.0.self_attn.q_proj.bias": bias}
    )
    with pytest.raises(UnsupportedError, match=r"q_proj\.bias"):
        plan_conversion(extra)
    missing = tiny_checkpoint(tmp_path / "missing", {**CASE, "tie_word_embeddings": True})
    (missing / "config.json").write_text(json.dumps(hf_config(CASE)))
    with pytest.raises(FormatError, match=r"lm_head\.weight"):
        plan_conversion(missing)


def test_a_shape_that_config_does_not_ask_for_is_refused(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path, CASE)
    (source / "config.json").write_text(json.dumps({**hf_config(CASE), "vocab_size": 204}))
    with pytest.raises(FormatError, match=r"\[203, 80\].*\[204, 80\]"):
        plan_conversion(source)


def test_a_target_that_cannot_be_written_is_refused_before_any_work(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match="is a directory"):
        convert(source, tmp_path)
    with pytest.raises(FormatError, match="no such directory"):
        convert(source, tmp_path / "nowhere" / "model.edge")


def test_options_that_contradict_the_model_are_refused(tmp_path: Path) -> None:
    tied = tiny_checkpoint(tmp_path, CASES[0])
    with pytest.raises(InvalidArgumentError, match="set embed_format"):
        plan_conversion(tied, head_format="E8_32")
    with pytest.raises(InvalidArgumentError, match="act"):
        plan_conversion(tied, act="a4")
    with pytest.raises(UnsupportedError, match="E9_99"):
        plan_conversion(tied, format="E9_99")


def test_act_can_be_overridden_for_e_formats_only(source: Path) -> None:
    def acts(**options: Any) -> set[str | None]:
        return {t.act for t in plan_conversion(source, **options).tensors if t.act}

    assert acts() == {"a8"}
    assert acts(act="f32") == {"f32"}
    assert acts(format="F16") == acts(format="F16", act="a8") == {"f32"}


def test_dry_run_prints_the_plan_and_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.edge"
    assert main([str(source), str(out), "--dry-run", "--format", "E6_16"]) == 0
    printed = capsys.readouterr().out
    assert "E6_16" in printed
    assert "bits per weight" in printed
    assert not out.exists()
    assert main([str(source), str(out), "--embed-format", "F16"]) == 0
    assert edgefile.read_header(out).tensors["token_embd"].format == "F16"


def test_a_refused_checkpoint_is_one_line_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nothing"), str(tmp_path / "out.edge")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_benchmark_checkpoint_is_seeded_and_converts(tmp_path: Path) -> None:
    import importlib.util

    path = Path(__file__).resolve().parents[2] / "benchmarks" / "make_checkpoint.py"
    module_spec = importlib.util.spec_from_file_location("make_checkpoint", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    script = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(script)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(hf_config(CASE)))
    for name, n_shards, seed in (("a", 1, 0), ("b", 1, 0), ("c", 2, 0), ("d", 1, 1)):
        script.make_checkpoint(config, tmp_path / name, n_shards=n_shards, seed=seed)
    weights = {name: (tmp_path / name / "model.safetensors") for name in ("a", "b", "d")}
    assert weights["a"].read_bytes() == weights["b"].read_bytes()
    assert weights["a"].read_bytes() != weights["d"].read_bytes()
    one = convert(tmp_path / "a", tmp_path / "one.edge")
    two = convert(tmp_path / "c", tmp_path / "two.edge")
    assert one.tensors == two.tensors


def test_running_ahead_keeps_order_passes_errors_on_and_stops(tmp_path: Path) -> None:
    closed = threading.Event()

    def numbers() -> Any:
        try:
            yield from range(5)
            raise ValueError("after five")
        finally:
            closed.set()

    with Ahead(numbers()) as ahead:
        assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(ValueError, match="after five"):
            next(ahead)

    closed.clear()
    with Ahead(numbers()) as ahead:
        assert next(ahead) == 0
    assert closed.is_set()
