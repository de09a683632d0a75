"""A text longer than its graphs: the CPU runtime goes on from their keys and values, where the
caller asked for such a context, and says what it alone would have said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu
from edgellm.converters.npu.compare import cpu_logits, difference

import command_line
import edgellm
from edgellm.errors import ContextOverflowError
from edgellm.npu.driver import placements
from golden.families import save_family

pytest.importorskip("onnx", reason="graphs are written with onnx (extra npu)")
pytest.importorskip("onnxruntime", reason="graphs are run by it (extra npu)")

N_GRAPH, N_CTX = 32, 120
TEXT = [1, 5, 9, 3, 7, 5, 9, 3, 7, 11, 2, 5, 9, 3, 7, 20, 21, 22, 5, 9]
GREEDY = {"max_tokens": 90, "stop_ids": ()}


@pytest.fixture(scope="module", params=["npu", "host"])
def edge(
    request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model with graphs beside it, with and without its head in them."""
    out = tmp_path_factory.mktemp("behind") / "tiny.edge"
    convert(tiny, out, format="L4_32", act="f32")
    options = NpuOptions(rows=(1, 4, 16), context=N_GRAPH, head=request.param)
    export_npu(out, out.with_suffix(".npu-ort"), "npu:ort", options)
    return out


@pytest.fixture(scope="module")
def wanted(edge: Path) -> list[int]:
    with edgellm.load(edge, kv="F16", threads=1) as cpu:
        return list(cpu.generate(TEXT, **GREEDY).token_ids)


@pytest.mark.parametrize("speculate", [False, "always"])
def test_a_text_goes_on_in_its_middle(edge: Path, wanted: list[int], speculate: str | bool):
    with edgellm.load(edge, backend="npu", threads=1, n_ctx=N_CTX, speculate=speculate) as model:
        info = model.info()
        assert (info.graph_tokens, info.n_ctx) == (N_GRAPH, N_CTX)
        assert [token.id for token in model.stream(TEXT, **GREEDY)] == wanted
        again = model.generate([*TEXT, *wanted[:60]], max_tokens=30, stop_ids=())
        assert list(again.token_ids) == wanted[60:]
        assert again.stats.reused_tokens >= 2 * N_GRAPH
        ids = [*TEXT, *wanted]
        assert difference(model.logits(ids), cpu_logits(edge, ids)).relative <= 1e-3


def test_texts_on_both_sides_share_steps(edge: Path, wanted: list[int]):
    with edgellm.load(edge, backend="npu", threads=1, n_ctx=N_CTX, speculate=False) as model:
        prompts = [TEXT, TEXT[:3], [*TEXT, *wanted[:40]]]
        alone = [list(model.generate(one, max_tokens=30).token_ids) for one in prompts]
        together = model.generate_batch(prompts, max_tokens=30)
        assert [list(result.token_ids) for result in together] == alone


def test_nobody_goes_on_unasked(edge: Path):
    for n_ctx in (None, N_GRAPH, 8):
        with edgellm.load(edge, backend="npu", threads=1, n_ctx=n_ctx) as model:
            assert (model.info().graph_tokens, model.info().n_ctx) == (0, N_GRAPH)
            with pytest.raises(ContextOverflowError, match=f"{N_GRAPH} tokens"):
                model.generate(TEXT, max_tokens=N_GRAPH)
    with (
        edgellm.load(edge, backend="npu", threads=1, n_ctx=N_CTX) as model,
        pytest.raises(ContextOverflowError, match=f"{N_CTX} tokens"),
    ):
        model.generate(TEXT, max_tokens=N_CTX)


def test_positions_turn_as_they_do_in_the_graphs(tmp_path: Path):
    """LongRoPE: the table of graphs for short texts is the CPU's, so no text gets longer than it
    is meant for; where graphs have the other table the CPU goes on to the end."""
    source, _ = save_family("phi3_longrope", tmp_path / "source")
    edge = tmp_path / "model.edge"
    convert(source, edge, format="F16", act="f32")
    for context, n_most in ((16, 32), (40, 64)):
        graphs = edge.with_suffix(".npu-ort")
        export_npu(edge, graphs, "npu:ort", NpuOptions(rows=(1, 4), context=context))
        with edgellm.load(edge, backend="npu", threads=1, n_ctx=64) as model:
            assert (model.info().graph_tokens, model.info().n_ctx) == (context, n_most)
            got = model.logits(list(range(2, 2 + n_most)))
        with edgellm.load(edge, kv="F16", threads=1, n_ctx=context) as cpu:
            wanted = cpu.logits(list(range(2, 2 + n_most)))
        assert difference(got, wanted).relative <= 1e-3
        shutil.rmtree(graphs)


def test_who_computes_what_is_said(edge: Path):
    assert f"behind {N_GRAPH} tokens the CPU" in placements(edge)[0].text()
    asked = ["run", edge, "Once upon", "--backend", "npu", "--max-tokens", 60, "--ignore-eos"]
    ran = command_line.edgellm(*asked, "--context", N_CTX, "--json", cwd=edge.parent)
    assert f"tokens behind the first {N_GRAPH} run on the CPU" in ran.stderr
    with edgellm.load(edge, kv="F16", threads=1) as cpu:
        wanted = cpu.generate("Once upon", max_tokens=60, stop_ids=())
    assert command_line.data_of(ran, "run")["text"] == wanted.text
