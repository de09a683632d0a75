"""Static graphs, run in numpy, are the model: the reference's logits for any chunk, bucket, part
and way of speculating; and what has no graph is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.npu.decoder import StepShape, check_spec, decoder_graph, whole_span
from edgellm.converters.npu.interpret import Interpreter
from edgellm.converters.npu.ir import KINDS, Int4
from edgellm.converters.npu.split import check_ops, plan_steps, split_spans, stage_sizes
from edgellm.converters.npu.weights import open_weights
from edgellm.converters.reference import Reference

from edgellm.errors import ContextOverflowError, InvalidArgumentError, UnsupportedError
from edgellm.npu.ngrams import guess
from edgellm.npu.session import generate
from golden.families import FAMILIES, family_ids, save_family
from golden.tiny import CASE_NAMES, case_ids, case_named, tiny_checkpoint
from npu.running import interpreted, session_of

CHUNKS = [(1, 16), (4, 16), (8, 160)]  # the small bucket first, then the large one
DYNAMIC = ("mixtral_window", "qwen2_moe_", "qwen3_moe_", "olmoe_", "lfm2_")
FIRST = ("gemma2_", "phi3_", "gpt2_learned")  # the rest runs nightly
STATIC = [
    pytest.param(name, marks=() if name.startswith(FIRST) else pytest.mark.slow)
    for name in FAMILIES
    if not name.startswith(DYNAMIC)
]


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("name", CASE_NAMES)
def test_llamas_of_every_shape(name: str, tmp_path: Path):
    source, ids = tiny_checkpoint(tmp_path, case_named(name)), case_ids(case_named(name))
    wanted = Reference.from_checkpoint(source).logits(ids).numpy()
    session = session_of(source, CHUNKS)
    got = np.concatenate([session.append(ids[:3]), session.append(ids[3:])])
    assert relative_error(got, wanted) < 2e-5


@pytest.mark.parametrize("name", STATIC)
def test_every_family_that_has_a_graph(name: str, tmp_path: Path):
    source, wanted = save_family(name, tmp_path)
    ids = family_ids(name)
    n_slots = len(ids) + 8
    session = session_of(source, [(8, n_slots), (1, n_slots)])
    assert relative_error(session.append(ids), wanted) < 1e-4


def test_layers_without_a_graph_are_named(tmp_path: Path):
    source, _ = save_family("mixtral_window", tmp_path)
    with (
        open_weights(source) as weights,
        pytest.raises(UnsupportedError, match=r"s.0.*expert"),
    ):
        check_spec(weights.spec)


def test_parts_are_the_whole(tiny: Path):
    ids = list(range(2, 30))
    wanted = session_of(tiny, CHUNKS).append(ids)
    with open_weights(tiny, 32) as weights:
        sizes = stage_sizes(weights)
        limit = max(size.n_bytes for size in sizes)
        spans = split_spans(sizes, len(weights.spec.layers), limit)
        assert len(spans) > 2
        stages = [stage for span in spans for stage in span.stages()]
        assert stages == whole_span(weights.spec).stages()
        plan = plan_steps(weights, [StepShape(4, 32)], spans=spans, kv_dtype="f32")
        np.testing.assert_allclose(interpreted(weights, plan).append(ids), wanted, atol=1e-5)
        with pytest.raises(UnsupportedError, match="by itself"):
            split_spans(sizes, len(weights.spec.layers), limit - 1)


def test_sizes_are_those_of_the_constants(tiny: Path):
    with open_weights(tiny, 4) as weights:
        whole = decoder_graph(weights, StepShape(1, 8))
        # What two stages read is in both: the tied table, and the factor of all queries.
        shared = ("token_embd", "number.0.25")
        twice = sum(whole.constants[name].n_bytes for name in shared)
        assert sum(size.n_bytes for size in stage_sizes(weights)) == whole.n_bytes + twice
        assert {op.kind for op in whole.ops} <= KINDS
        with pytest.raises(UnsupportedError, match=r"'toy' has no softmax \(first in layers.0\)"):
            check_ops(whole, KINDS - {"softmax"}, "toy")


def test_guesses_change_no_token(tiny: Path):
    prompt = [2, 3, 4, 5, 2, 3, 4, 5, 2, 3]
    plain = session_of(tiny, [(1, 64), (4, 64)])
    text = list(generate(plain, prompt, 40))
    guessing = session_of(tiny, [(1, 64), (4, 64)])
    # What the model says is played back, so that guesses are right often and wrong now and then.
    assert list(generate(guessing, prompt, 40, speculate=True)) == text
    assert len(text) == 40
    again = list(generate(guessing, [*prompt, *text[:20]], 20, speculate=True))
    assert again == text[20:]
    assert guessing.reused_tokens >= len(prompt) + 18


def test_a_stop_ends_the_text_and_is_its_last_token(tiny: Path):
    session = session_of(tiny, [(1, 64), (4, 64)])
    text = list(generate(session, [2, 3, 4], 12))
    stop = text[5]
    cut = text[: text.index(stop) + 1]
    for speculate in (False, True):
        assert list(generate(session, [2, 3, 4], 12, stop_ids=[stop], speculate=speculate)) == cut


def test_guesses_are_what_followed():
    assert guess([1, 2, 3, 4, 1, 2], 3) == [3, 4, 1]
    assert guess([1, 2, 3, 9, 2, 3, 7, 1, 2, 3], 1) == [9]
    assert guess([1, 2, 3, 4], 3) == []
    assert guess([1, 2, 1, 2], 0) == []


def test_what_does_not_fit_is_refused_before_any_work(tiny: Path):
    session = session_of(tiny, [(4, 16)])
    with pytest.raises(ContextOverflowError, match=r"17 tokens.*made for 16"):
        session.append(list(range(17)))
    with pytest.raises(ContextOverflowError, match="prompt of 10 tokens and 8 more"):
        next(generate(session, list(range(10)), 8))
    with pytest.raises(InvalidArgumentError, match="id 258 is not in the vocabulary"):
        session.append([1, 258])
    with pytest.raises(InvalidArgumentError):
        session.append([])
    assert session.ids == []
    assert session.n_steps == 0
    assert len(list(generate(session, list(range(10)), 7))) == 7


def test_weights_of_4_bits_are_those_of_l4(tiny: Path, tmp_path: Path):
    out = tmp_path / "tiny.edge"
    convert(tiny, out, format="L4_32", act="f32")
    ids = list(range(2, 40))
    wanted = Reference.from_edge(out).logits(ids).numpy()
    for source, bits in ((tiny, 4), (out, None)):
        with open_weights(source, bits) as weights:
            assert isinstance(weights.matrix("layers.0.attn_q"), Int4)
        assert relative_error(session_of(source, CHUNKS, bits=bits).append(ids), wanted) < 2e-5


def test_weights_are_the_same_read_in_blocks(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "tiny.edge"
    convert(tiny, out, format="L4_32", act="f32")
    for source, bits in ((tiny, 4), (tiny, 16), (tiny, 32), (out, None)):
        with open_weights(source, bits) as weights, monkeypatch.context() as patch:
            whole = weights.matrix("token_embd").values()
            patch.setattr("edgellm.converters.npu.weights._BLOCK_WEIGHTS", 1)
            np.testing.assert_array_equal(weights.matrix("token_embd").values(), whole)
            assert len(whole) > 16


def test_weights_that_are_rounded_already_are_refused(tiny: Path, tmp_path: Path):
    out = tmp_path / "tiny.edge"
    convert(tiny, out, format="E4_16")
    with (
        pytest.raises(UnsupportedError, match=r"'token_embd' is E4_16.*source checkpoint"),
        open_weights(out),
    ):
        pass
    with pytest.raises(InvalidArgumentError, match="3 bits"), open_weights(tiny, 3):
        pass


def test_kept_rows_in_half_precision(tiny: Path):
    ids = list(range(2, 40))
    wanted = Reference.from_checkpoint(tiny).logits(ids).numpy()
    got = session_of(tiny, CHUNKS, kv_dtype="f16").append(ids)
    assert 0 < relative_error(got, wanted) < 2e-3


def test_the_host_in_swift_feeds_what_the_packages_take(tiny: Path):
    swift = (Path(__file__).parents[2] / "examples/ios/NpuDecoder.swift").read_text("utf-8")
    fed = set(re.findall(r'^      "(\w+)": ', swift, re.MULTILINE))
    with open_weights(tiny, 16) as weights:
        plan = plan_steps(weights, [StepShape(1, 16), StepShape(8, 16)], stateful=True)
    for graph in plan.graph_facts:
        assert set(graph.inputs) == fed
        assert graph.outputs == ("logits",)
        assert f'"{graph.outputs[0]}"' in swift
    assert f"-1e{int(np.log10(-plan.facts.masked))}" in swift


def test_inputs_are_checked(tiny: Path):
    with open_weights(tiny, 32) as weights:
        interpreter = Interpreter(decoder_graph(weights, StepShape(1, 8)))
    with pytest.raises(InvalidArgumentError, match="'ids' is missing, it must be i32"):
        interpreter.run({})
