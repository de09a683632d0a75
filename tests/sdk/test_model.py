from __future__ import annotations

import numpy as np
import pytest

import edgellm


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("backend", "abacus", edgellm.UnsupportedError),
        ("kv", "Q8_0", edgellm.UnsupportedError),
        ("threads", 0, edgellm.InvalidArgumentError),
        ("max_memory", 0, edgellm.InvalidArgumentError),
        ("verify", "sometimes", edgellm.InvalidArgumentError),
        ("n_ctx", 0, edgellm.InvalidArgumentError),
    ],
)
def test_load_refuses_what_it_cannot_honour(fake, argument, value, error):
    with pytest.raises(error, match=str(value)):
        edgellm.load("scripted.edge", **{argument: value})


def test_logits_are_one_row_per_token_across_slices(fake, model):
    scores = model.logits(list(range(10)))
    assert scores.shape == (10, fake.N_VOCAB)
    assert scores.dtype == np.float32
    assert scores[:, 0].tolist() == list(range(10))
    assert fake.LIVE_SESSIONS == set()


def test_logits_accept_an_array_of_ids(model):
    assert model.logits(np.arange(3)).shape[0] == 3


def test_logits_of_nothing_are_refused(model):
    with pytest.raises(edgellm.InvalidArgumentError):
        model.logits([])


def test_tokenize_and_detokenize_are_inverse(model):
    ids = model.tokenize("caf\u00e9", bos=False)
    assert model.detokenize(ids) == "caf\u00e9"


def test_info_counts_parameters_and_formats_without_blobs(model):
    info = model.info()
    assert info.n_parameters == 258 * 4
    assert info.weight_formats == {"F16": 1}
    assert info.n_layers == 2
    assert info.kv_format == "K8V8"


def test_text_without_a_tokenizer_is_refused(model, monkeypatch):
    monkeypatch.setattr(model._native, "tokenizer", None)
    with pytest.raises(edgellm.UnsupportedError, match="token ids"):
        model.generate("text", max_tokens=1)


def test_leaving_the_block_closes_the_model(fake):
    with edgellm.load("scripted.edge") as model:
        native = model._native
    assert native.closed
