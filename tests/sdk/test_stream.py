from __future__ import annotations

import gc
import threading
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgellm


def say(fake: ModuleType, text: str) -> None:
    fake.SCRIPT[:] = text.encode()


def test_texts_of_the_tokens_join_to_the_text_of_the_generation(fake, model):
    say(fake, "one two")
    tokens = list(model.stream("Hi", max_tokens=20))
    assert "".join(token.text for token in tokens) == "one two"
    generation = model.generate("Hi", max_tokens=20)
    assert generation.text == "one two"
    assert generation.token_ids == [*b"one two", fake.EOS]
    assert generation.finish_reason == "stop"
    assert generation.logprobs == [-0.5] * 8


def test_a_character_of_several_tokens_comes_out_whole(fake, model):
    say(fake, "a\u20acb")
    assert [t.text for t in model.stream("Hi", max_tokens=5)] == ["a", "", "", "\u20ac", "b"]


def test_a_character_cut_by_the_token_limit_is_shown_as_a_replacement(fake, model):
    say(fake, "a\u20ac")
    assert model.generate("Hi", max_tokens=2).text == "a\ufffd"


def test_a_character_begun_in_the_prompt_is_completed(fake, model):
    fake.SCRIPT[:] = b"\xac!"
    assert model.generate([fake.BOS, 0xE2, 0x82], max_tokens=9).text == "\u20ac!"


def test_the_token_limit_ends_the_text_with_reason_length(fake, model):
    say(fake, "abcdef")
    generation = model.generate("Hi", max_tokens=3)
    assert (generation.text, generation.finish_reason) == ("abc", "length")
    assert generation.stats.generated_tokens == 3


def test_a_stop_string_across_tokens_is_never_emitted_in_part(fake, model):
    say(fake, "hello STOP there")
    stream = model.stream("Hi", max_tokens=30, stop="STOP")
    texts = [token.text for token in stream]
    assert "".join(texts) == "hello "
    assert not any("S" in text for text in texts)
    assert stream.finish_reason == "stop"


def test_text_that_only_began_like_a_stop_string_is_released(fake, model):
    say(fake, "a STO")
    assert model.generate("Hi", max_tokens=30, stop=["STOP"]).text == "a STO"
    assert model.generate("Hi", max_tokens=4, stop=["STOP"]).text == "a ST"


def test_stop_ids_replace_the_end_of_text_ids(fake, model):
    say(fake, "abc")
    assert model.generate("Hi", max_tokens=9, stop_ids=[ord("b")]).token_ids == [*b"ab"]
    ignoring = model.generate("Hi", max_tokens=6, stop_ids=[])
    assert ignoring.token_ids == [*b"abc", fake.EOS, fake.EOS, fake.EOS]
    assert ignoring.finish_reason == "length"


def test_a_context_overflow_is_refused_before_any_work_and_names_the_numbers(fake, model):
    with pytest.raises(edgellm.ContextOverflowError, match=r"61 prompt tokens .* 10 = 71.* 64"):
        model.stream("x" * 60, max_tokens=10)
    assert fake.RUN_CALLS == []
    assert fake.LIVE_SESSIONS == set()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -1.0),
        ("temperature", 101.0),
        ("top_k", 2**31),
        ("stop_ids", ["a"]),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", 2.0),
        ("seed", -1),
        ("seed", 2**64),
        ("stop", [""]),
        ("stop_ids", [258]),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(model, argument, value):
    arguments = {"max_tokens": 4, argument: value}
    with pytest.raises(edgellm.InvalidArgumentError, match=argument):
        model.stream("Hi", **arguments)


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(edgellm.InvalidArgumentError, match="no tokens"):
        model.generate([], max_tokens=4)


def test_closing_a_stream_frees_its_sequence(fake, model):
    say(fake, "abcdef")
    stream = model.stream("Hi", max_tokens=9)
    next(stream)
    assert len(fake.LIVE_SESSIONS) == 1
    stream.close()
    assert fake.LIVE_SESSIONS == set()
    assert list(stream) == []
    assert stream.finish_reason == "cancelled"


def test_dropping_a_stream_frees_its_sequence(fake, model):
    say(fake, "abcdef")
    for _ in model.stream("Hi", max_tokens=9):
        break
    gc.collect()
    assert fake.LIVE_SESSIONS == set()


def test_the_end_of_the_text_frees_the_sequence(fake, model):
    say(fake, "ab")
    stream = model.stream("Hi", max_tokens=9)
    assert len(list(stream)) == 3
    assert fake.LIVE_SESSIONS == set()


def test_a_long_prompt_runs_in_slices_so_that_signals_get_in(fake, model):
    say(fake, "a")
    model.generate("x" * 40, max_tokens=1)
    assert len(fake.RUN_CALLS) == 11


def test_ctrl_c_inside_the_prompt_frees_the_sequence(fake, model, monkeypatch):
    def interrupted(self: object, budget_ms: float) -> bool:
        raise KeyboardInterrupt

    stream = model.stream("x" * 40, max_tokens=1)
    monkeypatch.setattr(fake.Session, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert fake.LIVE_SESSIONS == set()


def test_cancel_from_another_thread_ends_the_text(fake, model):
    say(fake, "abcdef")
    stream = model.stream("Hi", max_tokens=9)
    first = next(stream)
    thread = threading.Thread(target=stream.cancel)
    thread.start()
    thread.join()
    generation = stream.result()
    assert generation.finish_reason == "cancelled"
    assert generation.text == first.text == "a"
    stream.cancel()  # after the end: nothing happens


def test_closing_the_model_raises_cancelled_in_the_stream(fake, model):
    say(fake, "abcdef")
    stream = model.stream("Hi", max_tokens=9)
    next(stream)
    model.close()
    with pytest.raises(edgellm.Cancelled):
        next(stream)
    assert fake.LIVE_SESSIONS == set()


def test_stats_count_tokens_and_time(fake, model):
    say(fake, "abcdef")
    stats = model.generate("Hi", max_tokens=4).stats
    assert (stats.prompt_tokens, stats.generated_tokens, stats.reused_tokens) == (3, 4, 0)
    assert stats.ttft_ms > 0
    assert stats.prefill_tokens_per_s > 0
    assert stats.tokens_per_s > 0
    assert stats.peak_rss_bytes == 2


def test_stop_strings_without_a_tokenizer_are_refused(fake, model, monkeypatch):
    monkeypatch.setattr(model._native, "tokenizer", None)
    with pytest.raises(edgellm.UnsupportedError, match="stop_ids"):
        model.stream([1, 2], max_tokens=4, stop="x")
    assert model.generate([1, 2], max_tokens=2, stop_ids=[]).text == ""


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("abc", max_size=30), stops=st.lists(st.text("abc", min_size=1, max_size=3)))
def test_no_stop_string_ever_shows_and_nothing_else_is_lost(fake, model, text, stops):
    say(fake, text)
    shown = model.generate("Hi", max_tokens=40, stop=stops).text
    first_end = min((text.index(stop) + len(stop) for stop in stops if stop in text), default=None)
    assert not any(stop in shown for stop in stops)
    if first_end is None:
        assert shown == text
    else:
        matched = max((s for s in stops if text[:first_end].endswith(s)), key=len)
        assert shown == text[: first_end - len(matched)]
