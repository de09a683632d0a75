"""A head's forward pass: what depth means, and the runtime against the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from edgellm.converters.draft_head import DraftHeadOptions
from edgellm.converters.draft_head.file import read_head
from edgellm.converters.draft_head.head import DraftHead, shifted
from edgellm.converters.draft_head.shape import fitted, head_bytes, layer_bytes, step_bytes
from edgellm.converters.draft_head.train import target_of
from edgellm.converters.layout import tensor_slots
from edgellm.converters.spec import LayerSpec, ModelSpec
from torch import Tensor

from edgellm import _native
from edgellm.edgefile import read_header, tensor_bytes
from edgellm.errors import EdgeError
from golden import draft_heads
from golden.draft_heads import N_ROWS, inputs, with_head
from golden.measures import nmse


@pytest.fixture(scope="module")
def drafting(tiny_edge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_head(tiny_edge, tmp_path_factory.mktemp("draft") / "drafting.edge")


def oracle(path: Path, n_rows: int, *, rounded: bool) -> tuple[DraftHead, Tensor, Tensor]:
    """A head as stored, the embedding's rows of inputs(), and their hidden states."""
    header = read_header(path)
    stored = read_head(header)
    spec = ModelSpec.from_json(header.metadata["edgellm.spec"])
    target = target_of(header, spec)
    tokens, hidden = inputs(spec.n_vocab, spec.d_model)
    weights = {**stored.weights, **target.tables}
    acts = stored.acts if rounded else {}
    head = DraftHead(stored.spec, weights, n_rows, acts, kv="F16")
    return head, target.embedded(torch.tensor([tokens])), torch.from_numpy(hidden)[None]


def test_row_r_of_depth_d_is_what_drafting_on_from_row_r_gives(drafting: Path) -> None:
    """Unrolled at once for all rows, or the rows of one chain one behind the other."""
    unrolled, embedded, hidden = oracle(drafting, N_ROWS, rounded=False)
    states = [unrolled.deepen(embedded, hidden)]
    for depth in (1, 2, 3):
        n = N_ROWS - depth
        states.append(unrolled.deepen(embedded[:, depth:], states[-1][:, :n]))
    for row in (0, 5, N_ROWS - 4):
        fed = hidden[:, : row + 1]
        for depth in (1, 2, 3):
            fed = torch.cat([fed, states[depth - 1][:, row : row + 1]], dim=1)
            chain, _, _ = oracle(drafting, fed.shape[1], rounded=False)
            wanted = chain.deepen(embedded[:, : fed.shape[1]], fed)[:, -1]
            torch.testing.assert_close(states[depth][:, row], wanted, rtol=1e-4, atol=1e-5)


def test_shifted_gives_each_row_the_state_that_chose_its_token() -> None:
    hidden = torch.arange(6.0).reshape(1, 3, 2) + 1
    assert shifted(hidden).tolist() == [[[0, 0], [1, 2], [3, 4]]]


@pytest.mark.parametrize(("format", "most"), [("F16", 1e-6), ("E4_16", 1e-4)])
def test_the_runtime_equals_the_oracle(
    tiny_edge: Path, tmp_path: Path, format: str, most: float
) -> None:
    """Rows of the model's hidden states, then three drafted on from the head's own."""
    path = with_head(tiny_edge, tmp_path / "drafting.edge", format=format)
    head, embedded, hidden = oracle(path, N_ROWS, rounded=True)
    wanted = head.deepen(embedded, hidden)
    model = _native.Model.load(path)
    tokens, values = inputs(model.n_vocab, model.d_model)
    native = _native.DraftHead(model, N_ROWS + 3)
    assert native.ids == read_head(read_header(path)).ids.tolist()
    logits, following = native.add(tokens, values)
    assert nmse(wanted[0].numpy(), following) <= most
    assert nmse(head.draft_logits(wanted)[0].numpy(), logits) <= most
    native.rewind(6)
    state = wanted[:, 5:6]
    own = following[5:6]
    unrolled, _, _ = oracle(path, N_ROWS, rounded=True)
    states = unrolled.deepen(embedded, hidden)
    for depth in (1, 2, 3):
        states = unrolled.deepen(embedded[:, depth:], states[:, : N_ROWS - depth])
        state = states[:, 5]
        logits, own = native.add([tokens[5 + depth]], own)
        assert nmse(state.numpy(), own) <= most
        assert nmse(unrolled.draft_logits(state).numpy(), logits) <= most
    model.close()


def test_bits_do_not_depend_on_the_instruction_set_threads_or_cuts(drafting: Path) -> None:
    found = set()
    for isa, n_threads in ((_native.active_isa(), "2"), ("scalar", "1")):
        run = subprocess.run(
            [sys.executable, draft_heads.__file__, str(drafting), n_threads],
            env=os.environ | {"EDGELLM_ISA": isa},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(run.stdout)
    model = _native.Model.load(drafting)
    tokens, hidden = inputs(model.n_vocab, model.d_model)
    whole = _native.DraftHead(model, N_ROWS).add(tokens, hidden)
    parts = _native.DraftHead(model, N_ROWS)
    rows = [parts.add(tokens[at : at + 7], hidden[at : at + 7]) for at in range(0, N_ROWS, 7)]
    for place in (0, 1):
        np.testing.assert_array_equal(whole[place], np.concatenate([row[place] for row in rows]))
    assert len(found) == 1
    model.close()


def test_the_model_is_what_it_was(tiny_edge: Path, drafting: Path) -> None:
    before, after = read_header(tiny_edge), read_header(drafting)
    assert set(after.tensors) - set(before.tensors) == {"draft_head"}
    plain, other = _native.Model.load(tiny_edge), _native.Model.load(drafting)
    ids = list(range(3, 30))
    rows = []
    for model in (plain, other):
        session = _native.Session(model, 64)
        session.append(ids)
        rows.append(session.run_with_logits(1e9))
        model.close()
    np.testing.assert_array_equal(*rows)


def test_wrong_use_has_its_code(tiny_edge: Path, drafting: Path) -> None:
    def code(call: object, *arguments: object) -> str:
        with pytest.raises(EdgeError) as raised:
            call(*arguments)  # type: ignore[operator]
        return raised.value.code

    plain = _native.Model.load(tiny_edge)
    assert code(_native.DraftHead, plain) == "feature_unsupported"
    model = _native.Model.load(drafting)
    assert code(_native.DraftHead, model, 1 << 20) == "invalid_argument"
    head = _native.DraftHead(model, 2)
    row = np.zeros((1, model.d_model), dtype=np.float32)
    assert code(head.add, [model.n_vocab], row) == "token_out_of_range"
    assert code(head.add, [0], row[:, 1:]) == "invalid_argument"
    assert code(head.rewind, 1) == "invalid_argument"
    assert code(head.add, [0, 0, 0], np.zeros((3, model.d_model), np.float32)) == "context_overflow"
    model.close()
    assert code(head.add, [0], row) == "cancelled"
    plain.close()


def test_a_head_for_a_1b_model_is_8_percent_of_a_step() -> None:
    """The shape of Llama-3.2-1B in the formats that convert() chooses."""
    layer = LayerSpec(n_heads=32, n_kv_heads=8, head_dim=64, d_ffn=8192)
    spec = ModelSpec(
        "llama", 128256, 2048, 131072, 1e-5, True, 64, 1.0, 128000, (128009,), (layer,) * 16
    )
    formats = {"token_embd": "E6_16"}
    tensors = {
        slot.name: tensor_bytes(
            "F32" if len(slot.shape) == 1 else formats.get(slot.role, "E4_16"),
            *((1, *slot.shape) if len(slot.shape) == 1 else slot.shape),
        )
        for slot in tensor_slots(spec)
    }
    head = fitted(spec, tensors, DraftHeadOptions())
    n_bytes = head_bytes(head, "E4_16")
    assert 0.07 < n_bytes / step_bytes(spec, tensors) <= 0.08
    assert head.n_vocab >= 8192
    assert head.layers[0].d_ffn >= 4096
    with pytest.raises(EdgeError, match="choose a smaller vocab"):
        fitted(spec, tensors, DraftHeadOptions(vocab=128256))


def test_a_head_for_a_small_model_may_have_one_and_a_half_layers(demo_path: Path) -> None:
    header = read_header(demo_path)
    spec = ModelSpec.from_json(header.metadata["edgellm.spec"])
    tensors = {t.name: t.n_bytes for t in header.tensors.values() if t.format != "U8"}
    n_bytes = head_bytes(fitted(spec, tensors, DraftHeadOptions()), "E4_16")
    assert 0.08 * step_bytes(spec, tensors) < n_bytes
    assert 1.4 < n_bytes / layer_bytes(spec, tensors) <= 1.5
