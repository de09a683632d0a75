"""Ids and texts equal HF's on real text, naughty strings and random Unicode."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tokenizer.adversarial import adversarial_strings
from tokenizer.pairs import Pair

CHUNK = 4096
N_ADVERSARIAL = 200_000  # of each tokenizer, at night
BATCH = 2000


def assert_same_ids(pair: Pair, texts: list[str], special: bool, bos: bool) -> list[list[int]]:
    pair.oracle.encode_special_tokens = not special
    encodings = pair.oracle.encode_batch(texts, add_special_tokens=bos)
    all_ids = []
    for text, encoding in zip(texts, encodings, strict=True):
        ids = encoding.ids
        assert pair.native.encode(text, special, bos) == ids, repr(text)
        all_ids.append(ids)
    return all_ids


def random_unicode(seed: int, n_strings: int) -> list[str]:
    """Short strings over all of Unicode, half of them near ASCII."""
    rng = random.Random(seed)
    tops = [0x80, 0x80, 0x80, 0x250, 0x3000, 0xD800, 0x11000, 0x20000, 0x110000]
    strings = []
    for _ in range(n_strings):
        top = rng.choice(tops)
        codes = [
            rng.randrange(top) if rng.random() < 0.5 else rng.choice((32, 10, 97, 48, 39, 115))
            for _ in range(rng.randint(1, 14))
        ]
        strings.append("".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000))
    return strings


def some_tokens(pair: Pair, n_tokens: int) -> list[str]:
    """Tokens as text, the special ones of the oracle first."""
    added = pair.oracle.get_added_tokens_decoder().values()
    ids = random.Random(40).sample(range(pair.native.n_vocab), min(n_tokens, pair.native.n_vocab))
    tokens = [*(token.content for token in added), *(pair.native.decode([i], True) for i in ids)]
    return [token for token in tokens if token]


def assert_adversarial(pair: Pair, seed: int, n_strings: int, *, bos: bool = True) -> None:
    """Ids equal HF's, in all modes in turn; so do the texts of every tenth. bos: the oracle knows
    what stands in front."""
    tokens = some_tokens(pair, 3000)
    size = min(BATCH, -(-n_strings // 4))
    for number in range(-(-n_strings // size)):
        texts = adversarial_strings(seed + number, size, tokens)
        special = number % 2 == 1
        for ids in assert_same_ids(pair, texts, special, bos and number // 2 % 2 == 1)[::10]:
            expected = pair.oracle.decode(ids, skip_special_tokens=not special)
            assert pair.native.decode(ids, special) == expected, ids


@pytest.mark.parametrize(
    "name", ["tinyshakespeare.txt", "wikitext-2/valid.txt", "tinystories_hw_train.txt"]
)
def test_ids_of_real_text_equal_hf(shared_pair: Pair, shared_data: Path, name: str) -> None:
    text = (shared_data / "text" / name).read_text(encoding="utf-8")
    chunks = [text[i : i + CHUNK] for i in range(0, len(text), CHUNK)]
    all_ids = assert_same_ids(shared_pair, chunks, special=False, bos=True)
    for ids in all_ids[::7]:
        assert shared_pair.native.decode(ids, False) == shared_pair.oracle.decode(ids)


def test_a_whole_file_in_one_call_equals_hf(shared_pair: Pair, shared_data: Path) -> None:
    text = (shared_data / "text" / "tinystories_hw_train.txt").read_text(encoding="utf-8")
    assert_same_ids(shared_pair, [text], special=False, bos=True)


def test_naughty_strings_equal_hf_in_every_mode(shared_pair: Pair, shared_data: Path) -> None:
    texts = json.loads((shared_data / "text" / "blns.json").read_text(encoding="utf-8"))
    for special in (False, True):
        for bos in (False, True):
            all_ids = assert_same_ids(shared_pair, texts, special, bos)
            for ids in all_ids:
                expected = shared_pair.oracle.decode(ids, skip_special_tokens=not special)
                assert shared_pair.native.decode(ids, special) == expected


def test_adversarial_strings_equal_hf(shared_pair: Pair) -> None:
    assert_adversarial(shared_pair, 20_000, 400)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_200_000_adversarial_strings_equal_hf(shared_pair: Pair) -> None:
    assert_adversarial(shared_pair, 0, N_ADVERSARIAL)


def test_vectors_replay(shared_pair: Pair) -> None:
    assert shared_pair.compiled is not None
    assert len(shared_pair.compiled.vectors) >= 64
    for vector in shared_pair.compiled.vectors:
        ids = shared_pair.native.encode(vector.text, False, False)
        assert tuple(ids) == vector.ids, repr(vector.text)


def test_trained_tokenizers_equal_hf(tiny_pair: Pair) -> None:
    texts = [*random_unicode(21, 4000), "<s>hello</s> <unk>", "the quick brown fox " * 40]
    for special in (False, True):
        all_ids = assert_same_ids(tiny_pair, texts, special, bos=True)
        for ids in all_ids:
            expected = tiny_pair.oracle.decode(ids, skip_special_tokens=not special)
            assert tiny_pair.native.decode(ids, special) == expected
