"""Vocabularies of GGUF files: llama.cpp's published vectors, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgellm.converters.gguf.pre_tokenizers import PRE_TOKENIZERS
from edgellm.converters.gguf.reader import read_gguf
from edgellm.converters.gguf.tokenizer import TokenType, Vocabulary
from edgellm.converters.tokenizer import build_blob, compile_description
from edgellm.converters.tokenizer.vocabulary import byte_characters
from tokenizers import Tokenizer

from edgellm import FormatError, UnsupportedError, _native

PATH = Path("model.gguf")
SLOW = pytest.mark.slow
VECTORS = (
    "gpt-2",
    "llama-spm",
    pytest.param("qwen2", marks=SLOW),
    pytest.param("llama-bpe", marks=SLOW),
)


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors(name: str, shared_data: Path) -> None:
    path = shared_data / "vocab_vectors" / f"ggml-vocab-{name}.gguf"
    source = Vocabulary(path, read_gguf(path).metadata).description()
    assert source is not None
    oracle = Tokenizer.from_str(json.dumps(source.data))
    native = _native.Tokenizer.from_blob(build_blob(path, source.data, oracle))
    texts = path.with_suffix(".gguf.inp").read_text(encoding="utf-8")
    lines = path.with_suffix(".gguf.out").read_text(encoding="utf-8").split("\n")
    pairs = list(zip(texts.split("\n__ggml_vocab_test__\n"), lines, strict=False))
    assert len(pairs) >= 46
    for text, line in pairs:
        assert native.encode(text, False, False) == [int(i) for i in line.split()], repr(text)


def keys(**values: Any) -> dict[str, Any]:
    if "token_type" in values:
        values["token_type"] = [int(kind) for kind in values["token_type"]]
    named = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
    return {"general.architecture": "llama", **named}


SHOWN = byte_characters()
LEFT, RIGHT = SHOWN[ord("h")], SHOWN[ord("i")]
BPE = keys(
    model="gpt2",
    pre="gpt-2",
    tokens=[*SHOWN, LEFT + RIGHT, "<|im_end|>", "<tool>", "[PAD1]"],
    token_type=[TokenType.NORMAL] * 257
    + [TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNUSED],
    merges=[f"{LEFT} {RIGHT}"],
    bos_token_id=257,
    eos_token_id=257,
)
SPM = keys(
    model="llama",
    tokens=[
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{b:02X}>" for b in range(256)),
        "\u2581",
        "h",
        "i",
        "hi",
    ],
    token_type=[TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    + [TokenType.BYTE] * 256
    + [TokenType.NORMAL] * 4,
    scores=[0.0] * 259 + [-1.0, -2.0, -3.0, -0.5],
    eos_token_id=2,
)


def compiled(metadata: dict[str, Any]) -> Any:
    source = Vocabulary(PATH, metadata).description()
    assert source is not None
    oracle = Tokenizer.from_str(json.dumps(source.data))
    return _native.Tokenizer.from_blob(build_blob(PATH, source.data, oracle))


def test_types_of_tokens_decide_what_is_special() -> None:
    native = compiled(BPE)
    assert native.encode("hi", True, True) == [256]  # gpt-2 puts no BOS in front by itself
    assert native.encode("hi<|im_end|>", True, False) == [256, 257]
    assert native.encode("<|im_end|>", False, False)[0] == SHOWN.index("<")  # text stays text
    assert native.encode("hi<tool>", False, False) == [256, 258]  # not special: found in any text
    assert native.decode([256, 257, 258], False) == "hi<tool>"


def test_bos_and_eos_where_the_file_says() -> None:
    assert compiled(BPE | keys(add_bos_token=True)).encode("hi", False, True) == [257, 256]
    both = compiled(SPM | keys(add_eos_token=True))
    assert both.encode("hi", False, True) == [1, 259, 262, 2]
    assert compiled(SPM | keys(add_bos_token=False)).encode("hi", False, True) == [259, 262]
    assert compiled(SPM | keys(add_space_prefix=False)).encode("hi", False, True) == [1, 262]


def test_special_ids_of_the_configuration() -> None:
    found = Vocabulary(PATH, SPM)
    assert found.token_ids() == {"bos_token_id": 1, "eos_token_id": [2]}
    assert found.special_tokens() == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    # A control token of a usual name ends a reply, too; an id beyond the vocabulary is none.
    other = Vocabulary(PATH, BPE | keys(eos_token_id=3, eot_token_id=999))
    assert other.token_ids()["eos_token_id"] == [3, 257]
    assert Vocabulary(PATH, {}).token_ids() == {"bos_token_id": None, "eos_token_id": []}


def test_a_control_token_can_be_the_unknown_one() -> None:
    types = [TokenType.CONTROL, *SPM["tokenizer.ggml.token_type"][1:]]
    assert compiled(SPM | keys(token_type=types)).encode("hi", False, False) == [259, 262]


@pytest.mark.slow
@pytest.mark.parametrize("name", {kind: name for name, kind in PRE_TOKENIZERS.items()}.values())
def test_every_pattern_compiles(name: str) -> None:
    source = Vocabulary(PATH, BPE | keys(pre=name)).description()
    assert source is not None
    assert len(compile_description(source, None).vectors) > 40  # proven against HF


REFUSED = {
    "T5": (BPE | keys(model="t5"), UnsupportedError, "Unigram"),
    "BERT": (BPE | keys(model="bert"), UnsupportedError, "WordPiece"),
    "other": (BPE | keys(model="novel"), UnsupportedError, "kind 'novel'"),
    "pattern": (BPE | keys(pre="novel"), UnsupportedError, "pre-tokenizer 'novel' is not known"),
    "merge": (BPE | keys(merges=["h q2"]), FormatError, "merge 0 .* not in the vocabulary"),
    "no merges": (BPE | keys(merges=[]), FormatError, "merges' is missing"),
    "twice": (
        BPE | keys(tokens=[*SHOWN, "a", "x", "y", "z"]),
        FormatError,
        "stands twice",
    ),
    "empty": (SPM | keys(tokens=["", *SPM["tokenizer.ggml.tokens"][1:]]), FormatError, "is empty"),
    "no scores": (SPM | keys(scores=[0.5]), FormatError, "1 scores for 263 tokens"),
    "no types": (SPM | keys(token_type=[1]), FormatError, "1 token types for 263 tokens"),
    "tokens": (SPM | keys(tokens="a"), FormatError, "must be an array of str"),
    "flag": (SPM | keys(add_bos_token=1), FormatError, "must be true or false"),
    "id": (SPM | keys(eos_token_id="a"), FormatError, "must be a token id"),
    "kind": (SPM | keys(model=3), FormatError, "must be a text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    metadata, kind, message = REFUSED[case]

    def read() -> None:
        found = Vocabulary(PATH, metadata)
        found.token_ids()
        found.description()

    with pytest.raises(kind, match=message) as caught:
        read()
    assert str(caught.value).startswith("model.gguf: ")


def test_a_template_must_be_a_text() -> None:
    assert Vocabulary(PATH, {"tokenizer.chat_template": "{{ x }}"}).chat_template() == "{{ x }}"
    with pytest.raises(FormatError, match="must be a text"):
        Vocabulary(PATH, {"tokenizer.chat_template": 3}).chat_template()
