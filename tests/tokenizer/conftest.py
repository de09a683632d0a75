"""Fixtures: real tokenizers of the shared data, tiny ones trained here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import normalizers

from tokenizer.pairs import SHARED, Pair, load_pair, train_byte_level, train_sentencepiece


@pytest.fixture(params=sorted(SHARED))
def shared_pair(request: pytest.FixtureRequest, shared_data: Path) -> Pair:
    return load_pair(shared_data / SHARED[request.param])


@pytest.fixture(scope="session")
def byte_level() -> Pair:
    return train_byte_level()


@pytest.fixture(scope="session")
def sentencepiece() -> Pair:
    return train_sentencepiece()


@pytest.fixture(scope="session")
def normalizing_pair() -> Pair:
    return train_byte_level(normalizers.NFC())


@pytest.fixture(params=["byte_level", "sentencepiece"])
def tiny_pair(request: pytest.FixtureRequest) -> Pair:
    pair: Pair = request.getfixturevalue(request.param)
    return pair
