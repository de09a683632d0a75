"""Streaming, properties, the plain-Python executor, speed limits and hostile blobs."""

from __future__ import annotations

import random
import time

import pytest
from edgellm.converters.tokenizer.blob import Section, pack_sections
from edgellm.converters.tokenizer.executor import BlobTokenizer, read_sections
from edgellm.converters.tokenizer.proof import random_strings
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm import _native
from edgellm.errors import EdgeError
from tokenizer.pairs import Pair, train_byte_level

N_MUTATIONS = 5000
_PAIR: list[Pair] = []


def byte_level_pair() -> Pair:
    if not _PAIR:
        _PAIR.append(train_byte_level())
    return _PAIR[0]


def stream(pair: Pair, ids: list[int], special: bool) -> list[str]:
    decoder = _native.StreamDecoder(pair.native, special)
    return [*(decoder.push(id_) for id_ in ids), decoder.flush()]


def check_stream(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    n_vocab = pair.native.n_vocab
    for _ in range(1500):
        ids = [rng.randrange(n_vocab) for _ in range(rng.randint(0, 12))]
        special = rng.random() < 0.5
        expected = pair.oracle.decode(ids, skip_special_tokens=not special)
        assert pair.native.decode(ids, special) == expected, ids
        assert "".join(stream(pair, ids, special)) == expected, ids


def test_decoding_random_ids_equals_hf_and_so_does_the_stream(tiny_pair: Pair) -> None:
    check_stream(tiny_pair, 1)


def test_shared_tokenizers_decode_random_ids_as_hf_does(shared_pair: Pair) -> None:
    check_stream(shared_pair, 2)


def test_a_stream_never_cuts_a_character(tiny_pair: Pair) -> None:
    text = "caf\u00e9 \u4f60\u597d \U0001f468\u200d\U0001f469 \U0001f600 end"
    ids = tiny_pair.native.encode(text, False, False)
    pieces = stream(tiny_pair, ids, False)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=400, deadline=None)
@given(st.text())
def test_byte_level_text_survives_a_round_trip(text: str) -> None:
    native = byte_level_pair().native
    assert native.decode(native.encode(text, False, False), True) == text


@settings(max_examples=200, deadline=None)
@given(st.text(), st.booleans())
def test_the_python_executor_agrees(text: str, special: bool) -> None:
    pair = byte_level_pair()
    ids = BlobTokenizer(pair.blob).encode(text, special)
    assert pair.native.encode(text, special, True) == ids


def test_the_python_executor_agrees_on_normal_forms(normalizing_pair: Pair) -> None:
    executor = BlobTokenizer(normalizing_pair.blob)
    marks = ("e\u0301\u0323", "\u1112\u1161\u11ab", "\u0344", "\u1e69\u0307", "\u212b")
    for text in random_strings(5, 300, marks):
        assert executor.encode(text) == normalizing_pair.native.encode(text), ascii(text)


def test_the_python_executor_agrees_on_all_kinds(tiny_pair: Pair) -> None:
    executor = BlobTokenizer(tiny_pair.blob)
    for text in random_strings(4, 300):
        ids = tiny_pair.native.encode(text, True, True)
        assert executor.encode(text, True, True) == ids, repr(text)
        assert executor.decode(ids, True) == tiny_pair.native.decode(ids, True), repr(text)


def test_shared_tokenizers_agree_with_the_python_executor(shared_pair: Pair) -> None:
    executor = BlobTokenizer(shared_pair.blob)
    for text in random_strings(6, 200):
        assert executor.encode(text) == shared_pair.native.encode(text), repr(text)


@pytest.mark.parametrize("unit", ["a", " ", "\u00e9", "ab", "1", "\n"])
def test_a_megabyte_of_one_thing_takes_less_than_two_seconds(tiny_pair: Pair, unit: str) -> None:
    text = unit * (1_000_000 // len(unit.encode()))
    begin = time.process_time()
    ids = tiny_pair.native.encode(text, False, False)
    assert time.process_time() - begin < 2.0
    assert tiny_pair.native.decode(ids, True) == text


def test_special_tokens_are_text_unless_asked_for(tiny_pair: Pair) -> None:
    ids = tiny_pair.native.encode("</s>", False, False)
    assert 2 not in ids
    assert tiny_pair.native.encode("</s>", True, False) == [2]
    assert tiny_pair.native.is_special(2)
    assert not tiny_pair.native.is_special(ids[-1])


def test_ids_out_of_range_are_refused(tiny_pair: Pair) -> None:
    for bad in (-1, tiny_pair.native.n_vocab, 2**31 - 1):
        with pytest.raises((EdgeError, ValueError)):
            tiny_pair.native.decode([bad])


def test_token_text_is_the_vocabulary_spelling(tiny_pair: Pair) -> None:
    for id_ in range(tiny_pair.native.n_vocab):
        assert tiny_pair.native.token_text(id_) == tiny_pair.oracle.id_to_token(id_)


def _mutations(blob: bytes, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    sections = read_sections(blob)
    offsets = [blob.find(data) for data in sections.values() if data]
    mutants = []
    for i in range(N_MUTATIONS):
        data = bytearray(blob)
        for _ in range(rng.choice((1, 1, 1, 3, 8))):
            kind = rng.random()
            if kind < 0.35:  # header and directory
                at = rng.randrange(32 + 24 * len(sections))
            elif kind < 0.7:  # the head of a section
                at = min(rng.choice(offsets) + rng.randrange(48), len(data) - 1)
            else:
                at = rng.randrange(len(data))
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, data[at] ^ (1 << rng.randrange(8))))
        if i % 10 == 0:
            del data[rng.randrange(len(data)) :]
        mutants.append(bytes(data))
    return mutants


def test_mutated_normal_forms_give_a_typed_error_or_work(normalizing_pair: Pair) -> None:
    blob = normalizing_pair.blob
    section = read_sections(blob)[Section.FORMS]
    rng = random.Random(10)
    text = "e\u0301\u0323 \u1112\u1161\u11ab \u1e69 \u0344\u0345\u0334" * 4
    n_refused = 0
    for _ in range(1500):
        data = bytearray(blob)
        for _ in range(rng.choice((1, 2, 8))):
            span = rng.choice((24, 9000, len(section)))
            at = blob.find(section) + rng.randrange(span)
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xD8, 0xFF))
        try:
            tokenizer = _native.Tokenizer.from_blob(bytes(data))
            tokenizer.decode(tokenizer.encode(text, True, True), True)
        except (EdgeError, ValueError):
            n_refused += 1
    assert 300 < n_refused < 1500


def test_a_normalizer_needs_its_section(normalizing_pair: Pair) -> None:
    sections = {Section(k): v for k, v in read_sections(normalizing_pair.blob).items()}
    del sections[Section.FORMS]
    with pytest.raises(EdgeError, match="unknown normal form"):
        _native.Tokenizer.from_blob(pack_sections(sections))


def test_a_megabyte_of_marks_takes_less_than_two_seconds(normalizing_pair: Pair) -> None:
    text = "e" + "\u0345\u0301\u0334" * 160_000
    begin = time.process_time()
    ids = normalizing_pair.native.encode(text, False, False)
    assert time.process_time() - begin < 2.0
    expected = normalizing_pair.oracle.normalizer.normalize_str(text)
    assert normalizing_pair.native.decode(ids, True) == expected


def test_mutated_blobs_give_a_typed_error_or_work(tiny_pair: Pair) -> None:
    text = "the quick brown fox, 12345 don't\n\n \u4f60\u597d\U0001f600 <s></s>" * 3
    n_refused = 0
    for mutant in _mutations(tiny_pair.blob, 9):
        begin = time.process_time()
        try:
            tokenizer = _native.Tokenizer.from_blob(mutant)
            ids = tokenizer.encode(text, True, True)
            tokenizer.decode(ids, True)
            tokenizer.decode(list(range(min(tokenizer.n_vocab, 600))), False)
        except (EdgeError, ValueError):
            n_refused += 1
        assert time.process_time() - begin < 1.0
    assert N_MUTATIONS // 4 < n_refused < N_MUTATIONS
