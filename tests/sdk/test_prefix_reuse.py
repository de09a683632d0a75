"""Texts begin with the KV that others have left, and give what they would give without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import edgellm
from edgellm.options import KV_FORMATS

PROMPT = "Once upon a time there was a little girl who lived in a house near the forest. " * 4


@pytest.fixture
def kv() -> str:
    return "F16"


@pytest.fixture
def model(kv: str) -> Iterator[edgellm.Model]:
    with edgellm.load("demo", kv=kv) as loaded:
        yield loaded


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_a_text_that_was_read_is_not_read_again(model: edgellm.Model) -> None:
    n_prompt = len(model.tokenize(PROMPT))
    first = model.generate(PROMPT, max_tokens=8)
    assert first.stats.reused_tokens == 0
    again = model.generate(PROMPT, max_tokens=8)
    assert again.stats.reused_tokens == n_prompt - 1
    assert (again.token_ids, again.logprobs) == (first.token_ids, first.logprobs)
    forks = model.generate_n(PROMPT, 2, max_tokens=8)
    assert [one.token_ids for one in forks] == [first.token_ids] * 2
    longer = model.generate(PROMPT + first.text, max_tokens=2)
    assert longer.stats.reused_tokens >= n_prompt - 1


def test_memory_of_ended_texts_is_counted_and_given_back(model: edgellm.Model) -> None:
    model.generate(PROMPT, max_tokens=2)
    shared_bytes = model.kv_figures()["reserved_bytes"]  # what texts guess from
    model.generate(PROMPT, max_tokens=2)
    figures = model.kv_figures()
    assert 0 < figures["idle_bytes"] == figures["kept_bytes"] == figures["used_bytes"]
    assert figures["reserved_bytes"] == shared_bytes < 2**24
    some = model.trim(1)
    assert 0 < some < figures["idle_bytes"]
    assert some + model.trim() == figures["idle_bytes"]
    assert model.kv_figures()["used_bytes"] == 0
    assert model.generate(PROMPT, max_tokens=2).stats.reused_tokens == 0
    with pytest.raises(edgellm.errors.InvalidArgumentError, match="n_bytes"):
        model.trim(-1)


def test_nothing_is_kept_where_no_memory_is_meant_for_it() -> None:
    with edgellm.load("demo", prefix_cache=0) as model:
        model.generate(PROMPT, max_tokens=2)
        assert model.kv_figures()["used_bytes"] == 0
        assert model.generate(PROMPT, max_tokens=2).stats.reused_tokens == 0
    with pytest.raises(edgellm.errors.InvalidArgumentError, match="prefix_cache"):
        edgellm.load("demo", prefix_cache=-1)


def test_tenants_share_nothing(model: edgellm.Model) -> None:
    n_prompt = len(model.tokenize(PROMPT))

    def reused(namespace: str) -> int:
        return model.generate(PROMPT, max_tokens=1, namespace=namespace).stats.reused_tokens

    found = [reused(name) for name in ("", "a", "b", "a", "")]
    assert found == [0, 0, 0, n_prompt - 1, n_prompt - 1]
    batch = model.generate_batch([PROMPT], max_tokens=1, namespace="c")
    assert batch[0].stats.reused_tokens == 0
    several = model.generate_n(PROMPT, 2, max_tokens=1, namespace="d")
    assert several[0].stats.reused_tokens == 0
    assert several[1].stats.reused_tokens == n_prompt - 1  # of the first one's
    before = model.kv_figures()["n_reused_tokens"]
    alone = model.score(PROMPT, [" She"], namespace="e")
    assert model.kv_figures()["n_reused_tokens"] == before
    assert model.score(PROMPT, [" She"]) == alone
    assert model.kv_figures()["n_reused_tokens"] > before
    with model.chat(namespace="f", system=PROMPT, template="chatml") as one:
        assert one.send("Who?", max_tokens=1).stats.reused_tokens == 0
    with model.chat(namespace="f", system=PROMPT, template="chatml") as one:
        assert one.send("Who?", max_tokens=1).stats.reused_tokens > n_prompt - 16
        with pytest.raises(edgellm.errors.InvalidArgumentError, match=r"Model\.chat"):
            one.send("Who?", max_tokens=1, namespace="g")


def test_a_chat_from_disk_goes_on_in_the_namespace_it_is_given(model, tmp_path) -> None:
    with model.chat(namespace="a", system=PROMPT, template="chatml") as chat:
        chat.send("Who was she?", max_tokens=4)
        chat.save(tmp_path / "a.session")
    model.trim()
    options = {"template": "chatml", "namespace": "b"}
    with model.restore(tmp_path / "a.session", **options) as chat:
        chat.send("And then?", max_tokens=4)
    with model.chat(system=PROMPT, **options) as chat:
        assert chat.send("Who was she?", max_tokens=1).stats.reused_tokens > 0
    with model.chat(system=PROMPT, template="chatml", namespace="a") as chat:
        assert chat.send("Who was she?", max_tokens=1).stats.reused_tokens == 0


def test_what_is_no_namespace_is_refused(model: edgellm.Model) -> None:
    nothing: Any = None
    for name in ("x" * 1025, "\ud800", nothing):
        with pytest.raises(edgellm.errors.InvalidArgumentError, match="namespace"):
            model.generate("a", max_tokens=1, namespace=name)
        with pytest.raises(edgellm.errors.InvalidArgumentError, match="namespace"):
            model.chat(template="chatml", namespace=name)
        with pytest.raises(edgellm.errors.InvalidArgumentError, match="namespace"):
            model.score("a", ["b"], namespace=name)


def test_chats_share_their_system_prompt_and_say_where_they_part(model: edgellm.Model) -> None:
    with (
        model.chat(system=PROMPT, template="chatml") as one,
        model.chat(system=PROMPT, template="chatml") as other,
    ):
        first = one.send("Who was she?", max_tokens=4)
        used_bytes = model.kv_figures()["used_bytes"]
        second = other.send("Where did she live?", max_tokens=4)
        assert first.stats.reused_tokens == 0
        assert second.stats.reused_tokens >= len(model.tokenize(PROMPT)) // 16 * 16
        assert model.kv_figures()["used_bytes"] < 2 * used_bytes
        assert one.send("And then?", max_tokens=4).stats.first_mismatch is None
        edited = one.edit(0, "What did she see?", max_tokens=4).stats
        assert edited.first_mismatch is not None
        assert edited.first_mismatch <= edited.reused_tokens
