"""Unigram models equal HF, except that text never becomes a special, unknown or byte token."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from edgellm.converters.tokenizer import Description, build_blob, compile_description
from edgellm.converters.tokenizer.blob import Section, pack_sections
from edgellm.converters.tokenizer.executor import BlobTokenizer, read_sections
from edgellm.converters.tokenizer.oracle import Oracle
from edgellm.converters.tokenizer.proof import HARD_STRINGS, random_strings
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edgellm import _native
from edgellm.errors import EdgeError, FormatError, UnsupportedError
from tokenizer.pairs import SPECIALS, TRAINING_TEXT
from tokenizer.sources import write_charsmap
from tokenizer.test_equal_to_hf import random_unicode

CLOSED = ("<unk>", "<s>", "</s>", "<0x")
MARK = "\u2581"


@cache
def _trained(byte_fallback: bool) -> str:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    names = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    trainer = trainers.UnigramTrainer(
        vocab_size=len(names) + 220,
        special_tokens=[*SPECIALS, *names],
        unk_token="<unk>",
        show_progress=False,
    )
    rng = random.Random(3)
    words = " ".join(TRAINING_TEXT[:3]).split()
    lines = [" ".join(rng.choices(words, k=9)) for _ in range(300)]
    tokenizer.train_from_iterator(lines, trainer)
    return str(tokenizer.to_str())


def trained(byte_fallback: bool = False) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(_trained(byte_fallback))
    data["added_tokens"] = data["added_tokens"][: len(SPECIALS)]
    data["model"]["byte_fallback"] = byte_fallback
    return data


def compiled(data: dict[str, Any]) -> _native.Tokenizer:
    """Compiling compares with HF on thousands of strings, in every mode."""
    return _native.Tokenizer.from_blob(proven(data))


def proven(data: dict[str, Any]) -> bytes:
    source = Description(Path("test/tokenizer.json"), data)
    return compile_description(source, Path("no/such/directory")).blob


def blob_of(data: dict[str, Any]) -> bytes:
    oracle = Tokenizer.from_str(json.dumps(data))
    return build_blob(Path("test/tokenizer.json"), data, oracle)


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_ids_equal_plain_hf_where_no_text_spells_a_closed_token(byte_fallback: bool) -> None:
    data = trained(byte_fallback)
    native = compiled(data)
    oracle = Tokenizer.from_str(json.dumps(data))
    n_compared = 0
    for text in [*HARD_STRINGS, *random_unicode(4, 2000), *TRAINING_TEXT[:3]]:
        if any(name in oracle.normalizer.normalize_str(text) for name in CLOSED):
            continue
        ids = oracle.encode(text, add_special_tokens=False).ids
        assert native.encode(text, False, False) == ids, repr(text)
        assert native.decode(ids, True) == oracle.decode(ids, skip_special_tokens=False)
        n_compared += 1
    assert n_compared > 2000


@pytest.mark.slow
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_random_unicode_equals_hf(byte_fallback: bool) -> None:
    data = trained(byte_fallback)
    native = compiled(data)
    texts = random_unicode(20, 100_000)
    encodings = Oracle(data).encode_batch(texts, special=False, bos=True)
    for text, ids in zip(texts, encodings, strict=True):
        assert native.encode(text) == ids, ascii(text)


@pytest.mark.slow
def test_shared_texts_equal_plain_hf(shared_data: Path) -> None:
    data = trained(byte_fallback=True)
    native, oracle = compiled(data), Tokenizer.from_str(json.dumps(data))
    texts = json.loads((shared_data / "text" / "blns.json").read_text(encoding="utf-8"))
    for name in ("tinyshakespeare.txt", "wikitext-2/valid.txt", "tinystories_hw_train.txt"):
        text = (shared_data / "text" / name).read_text(encoding="utf-8").replace("<unk>", "")
        texts += [text[i : i + 4096] for i in range(0, len(text), 4096)]
    for text in texts:
        if not any(name in oracle.normalizer.normalize_str(text) for name in CLOSED):
            ids = oracle.encode(text, add_special_tokens=False).ids
            assert native.encode(text, False, False) == ids, ascii(text)


def test_text_never_becomes_a_special_unknown_or_byte_token() -> None:
    native = compiled(trained(byte_fallback=True))
    # The last one becomes "</s>" only by the normalizer.
    for text in ("</s>", "a</s>b", "<0x41>", "\uff1c/s\uff1e"):
        ids = native.encode(text, False, False)
        assert not set(ids) & {0, 1, 2}, text
        assert 3 + 0x41 not in ids, text
    assert native.encode("</s>", True, False) == [2]
    assert not native.encode("\uff1c/s\uff1e", True, False).count(2)


PIPELINES: dict[str, tuple[Any, Any]] = {
    "no split": (None, pre_tokenizers.Metaspace(split=False)),
    "first, no split": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "never": (normalizers.NFKC(), pre_tokenizers.Metaspace(prepend_scheme="never")),
    "as transformers has SentencePiece": (
        normalizers.Sequence([normalizers.Strip(left=False), normalizers.Replace(" ", MARK)]),
        pre_tokenizers.Metaspace(),
    ),
    "words first": (
        normalizers.NFKC(),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    ),
    "first, after what may drop the first character": (
        normalizers.Precompiled(write_charsmap({"A": "a", "\x01": "", "\u3000": "  "})),
        pre_tokenizers.Metaspace(prepend_scheme="first"),
    ),
    "nothing": (None, None),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_equal_hf(name: str) -> None:
    data = trained()
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.normalizer, tokenizer.pre_tokenizer = PIPELINES[name]
    compiled(json.loads(tokenizer.to_str()))


def _made(vocab: list[tuple[str, float]], **options: Any) -> dict[str, Any]:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *vocab], 0, False))
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    data["model"].update(options)
    return data


def test_ties_and_unknown_runs_equal_hf() -> None:
    vocab = [("a", -1.0), ("b", -1.0), ("ab", -2.0), ("ba", -2.0), ("aba", -3.0), ("c", -0.1)]
    data = _made([*vocab, ("\u00e9", -4.0), ("xy", -60.0), ("abab", -4.0)])
    native = compiled(data)
    oracle = Tokenizer.from_str(json.dumps(data))
    rng = random.Random(6)
    for _ in range(4000):
        text = "".join(rng.choices("aabbcx\u00e9y\u4e16", k=rng.randint(1, 14)))
        assert native.encode(text, False, False) == oracle.encode(text).ids, text


def test_equal_pieces_take_the_last_id_and_scores_may_need_64_bits() -> None:
    data = _made([("a", -1.1), ("b", -2.0), ("a", -1.3)])
    native = compiled(data)
    assert native.encode("ab", False, False) == [3, 2]
    (score_bytes,) = struct.unpack_from("<I", read_sections(blob_of(data))[Section.UNIGRAM])
    assert score_bytes == 8


def _no_unk(data: dict[str, Any]) -> None:
    data["model"]["unk_id"] = None


def _long_piece(data: dict[str, Any]) -> None:
    data["model"]["vocab"].append(["x" * 513, -9.0])


def _byte_level(data: dict[str, Any]) -> None:
    step = {"add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    data["pre_tokenizer"] = {"type": "ByteLevel", **step}
    data["decoder"] = {"type": "ByteLevel", **step}


def _first_after_strip(data: dict[str, Any]) -> None:
    data["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": False}
    data["pre_tokenizer"]["prepend_scheme"] = "first"


def _giant_score(data: dict[str, Any]) -> None:
    data["model"]["vocab"][4][1] = -1e300


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (_no_unk, UnsupportedError, "'unk_id'"),
        (_long_piece, UnsupportedError, "of 513 bytes"),
        (_byte_level, UnsupportedError, "byte-level"),
        (_first_after_strip, UnsupportedError, "'Metaspace'"),
        (_giant_score, FormatError, "not a usable number"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    edit: Callable[[dict[str, Any]], None], error: type[EdgeError], message: str
) -> None:
    data = trained()
    edit(data)
    with pytest.raises(error, match=message):
        blob_of(data)


def test_the_python_executor_agrees() -> None:
    for byte_fallback in (False, True):
        blob = blob_of(trained(byte_fallback))
        native, executor = _native.Tokenizer.from_blob(blob), BlobTokenizer(blob)
        for text in random_strings(4, 200):
            assert executor.encode(text) == native.encode(text), repr(text)


def test_long_runs_of_one_thing_stay_linear() -> None:
    native = compiled(_made([("a" * n, -1.0 - n) for n in (1, 2, 255, 511, 512)]))
    for unit in ("a", "\u4e16", "a\u4e16"):
        n = 200_000
        ids = native.encode(unit * n, False, False)
        assert 0 < len(ids) <= 2 * n


def _sections() -> dict[Section, bytes]:
    return {Section(k): v for k, v in read_sections(blob_of(trained())).items()}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e16])
def test_scores_that_are_no_numbers_are_refused_at_load(value: float) -> None:
    sections = _sections()
    data = bytearray(sections[Section.UNIGRAM])
    for at, name in ((8, "unknown characters"), (16 + 8 * 5, "token 5")):
        broken = bytearray(data)
        broken[at : at + 8] = struct.pack("<d", value)
        with pytest.raises(EdgeError, match=f"score of {name}"):
            _native.Tokenizer.from_blob(pack_sections({**sections, Section.UNIGRAM: bytes(broken)}))


def test_mutated_unigram_tables_give_a_typed_error_or_work() -> None:
    sections = _sections()
    good = sections[Section.UNIGRAM]
    n_vocab = struct.unpack_from("<8I", sections[Section.MODEL])[2]
    head = 16 + 8 * n_vocab
    rng = random.Random(11)
    text = "the quick brown fox, 12345 don't \u4f60\u597d\U0001f600 <s></s>" * 3
    n_refused = 0
    for i in range(2000):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 8))):
            low, high = rng.choice(((0, 32), (head, head + 64), (head, len(good)), (0, len(good))))
            data[rng.randrange(low, high)] = rng.choice((0, 1, 0x61, 0x7F, 0x80, 0xFF))
        if i % 10 == 0:
            del data[rng.randrange(len(data)) :]
        try:
            tokenizer = _native.Tokenizer.from_blob(
                pack_sections({**sections, Section.UNIGRAM: bytes(data)})
            )
            tokenizer.decode(tokenizer.encode(text, True, True), True)
        except (EdgeError, ValueError):
            n_refused += 1
    assert 300 < n_refused < 2000


def test_a_unigram_model_needs_its_section() -> None:
    sections = _sections()
    del sections[Section.UNIGRAM]
    with pytest.raises(EdgeError, match="'unigram' is missing"):
        _native.Tokenizer.from_blob(pack_sections(sections))
