"""Fewer tokens: what text is made of stays the same, and so does the model on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.distill.bpe import train_bpe
from edgellm.converters.plan import Job, Options
from edgellm.converters.prune import PredictOptions, PruneOptions, PruneReport, prune
from edgellm.converters.reference import Reference
from edgellm.converters.tokenizer.trim import kept_tokens, trimmed
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from edgellm import load
from edgellm.errors import InvalidArgumentError
from golden.tiny import shared_model, write_checkpoint

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": [2, 0],
    "pad_token_id": 3,
}
FIXED = PredictOptions("F16", bandwidth_gb_per_s=1.0)
DOMAIN = "turn the red valve left and wait until the needle stands still\n" * 40
OTHER = "An elephant never forgets; 42 giraffes sometimes do, while whistling quietly.\n" * 12
N_VOCAB, N_KEPT = 340, 320


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a tokenizer of 340 tokens, 80 of them merged."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "text.txt").write_text(DOMAIN + OTHER, encoding="utf-8")
    (folder / "domain.txt").write_text(DOMAIN, encoding="utf-8")
    n_vocab = train_bpe([folder / "text.txt"], folder / "tokenizer", N_VOCAB)
    assert n_vocab == N_VOCAB
    # Rows beyond the tokenizer, as padded embeddings have them.
    model = write_checkpoint(folder / "model", {**CONFIG, "vocab_size": N_VOCAB + 8})
    for path in (folder / "tokenizer").iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    generation = {"eos_token_id": [2, 0], "suppress_tokens": [3], "temperature": 0.7}
    (model / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return model


@pytest.fixture(scope="module")
def small(source: Path) -> tuple[Path, PruneReport]:
    out = source.parent / "small"
    options = PruneOptions(vocab=N_KEPT, window_tokens=16)
    texts = [source.parent / "domain.txt"]
    return out, prune(source, out, options, texts=texts, predict_options=FIXED)


def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def test_text_of_the_domain_keeps_its_tokens_and_the_model_its_answers(
    source: Path, small: tuple[Path, PruneReport]
) -> None:
    out, report = small
    kept = report.cut.tokens
    assert kept is not None
    assert len(kept) == N_KEPT
    assert report.coverage == 1
    before, after = tokenizer(source).encode(DOMAIN).ids, tokenizer(out).encode(DOMAIN).ids
    assert [kept[id] for id in after] == before
    assert tokenizer(out).decode(after) == DOMAIN
    wanted = Reference.from_checkpoint(source).logits(before[:48])
    got = Reference.from_checkpoint(out).logits(after[:48])
    assert np.array_equal(wanted[:, list(kept)].numpy(), got.numpy())
    whole, cut = (load_file(folder / "model.safetensors") for folder in (source, out))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert np.array_equal(cut[name], whole[name][list(kept)])


def test_any_other_text_is_still_spelt(small: tuple[Path, PruneReport]) -> None:
    out, _ = small
    text = OTHER + "\u00e9\u4e2d\U0001f600\x00"
    ids = tokenizer(out).encode(text).ids
    assert tokenizer(out).decode(ids) == text
    file = out.with_suffix(".edge")
    convert(out, file, format="F16")  # proves the compiled tokenizer equal to the files
    with load(file, verify="never") as model:
        assert model.tokenize(text, bos=False) == ids
        assert model.detokenize(ids) == text


def test_ids_in_the_configs_follow(small: tuple[Path, PruneReport]) -> None:
    out, report = small
    kept = report.cut.tokens
    assert kept is not None
    with Checkpoint(out) as checkpoint:
        spec = Job(checkpoint, Options("F16", None, None, None)).spec
    assert spec.n_vocab == N_KEPT
    assert [kept[id] for id in (spec.bos_id, *spec.eos_ids)] == [0, 2, 0]
    generation = json.loads((out / "generation_config.json").read_text())
    assert [kept[id] for id in generation["suppress_tokens"]] == [3]
    assert generation["temperature"] == 0.7
    names = tokenizer(out)
    for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"):
        assert names.token_to_id(name) in range(N_KEPT)


def test_fewer_tokens_than_text_needs_are_refused(source: Path, tmp_path: Path) -> None:
    texts = [source.parent / "domain.txt"]
    options = PruneOptions(vocab=259, window_tokens=16)
    with pytest.raises(InvalidArgumentError, match="259 tokens: 260 must stay"):
        prune(source, tmp_path / "out", options, texts=texts, predict_options=FIXED)
    assert not (tmp_path / "out").exists()


@given(text=st.text(st.sampled_from("aneldrtsihwf .;42gv"), max_size=60), n=st.integers(262, 335))
def test_text_whose_tokens_all_stay_is_cut_the_same(source: Path, text: str, n: int) -> None:
    data = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    counts = np.random.default_rng(n).integers(0, 9, N_VOCAB)
    kept = kept_tokens(data, counts, n, ())
    assert len(kept) <= n
    less = Tokenizer.from_str(json.dumps(trimmed(data, kept)))
    before = tokenizer(source).encode(text).ids
    after = less.encode(text).ids
    assert less.decode(after) == text
    if set(before) <= set(kept):
        assert [kept[id] for id in after] == before


def test_unigram_pieces_go_one_by_one() -> None:
    pieces = [["<unk>", 0.0], ["<s>", 0.0], ["\u2581", -3.0], ["a", -3.0], ["b", -4.0]]
    pieces += [["ab", -2.0], ["\u2581ab", -1.5], ["ba", -5.0]]
    data = {
        "added_tokens": [{"id": 1, "content": "<s>", "special": True}],
        "pre_tokenizer": None,
        "post_processor": {"type": "RobertaProcessing", "sep": ["<s>", 1], "cls": ["<s>", 1]},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
    }
    counts = np.array([0, 0, 0, 0, 0, 5, 0, 9])
    kept = kept_tokens(data, counts, 6, ())
    assert kept == (0, 1, 2, 3, 4, 7)
    assert kept_tokens(data, counts, 7, ()) == (0, 1, 2, 3, 4, 5, 7)
    assert kept_tokens(data, counts, 6, (6,)) == (0, 1, 2, 3, 4, 6)
    less = trimmed(data, (0, 1, 2, 3, 4, 7))
    assert less["model"]["vocab"][-1] == ["ba", -5.0]
    assert less["post_processor"]["sep"] == ["<s>", 1]
    assert data["model"]["vocab"] == pieces  # the source is left as it is


def test_the_vocabulary_of_a_real_model_halves(tmp_path: Path) -> None:
    source = shared_model("seed6m")
    text = tmp_path / "text.txt"
    text.write_text("The pump stops when the tank is full. " * 50, encoding="utf-8")
    out = tmp_path / "out"
    report = prune(source, out, PruneOptions(vocab=2048), texts=[text], predict_options=FIXED)
    before = tokenizer(source).encode(text.read_text()).ids
    after = tokenizer(out).encode(text.read_text()).ids
    kept = report.cut.tokens
    assert kept is not None
    assert [kept[id] for id in after] == before
    wanted = Reference.from_checkpoint(source).logits(before[:32])[:, list(kept)]
    assert np.array_equal(wanted.numpy(), Reference.from_checkpoint(out).logits(after[:32]).numpy())
    n_less = (4096 - 2048) * 256
    assert report.predicted.before.n_weights - report.predicted.after.n_weights == n_less
