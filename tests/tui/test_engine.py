"""The engine of a real model, its thread, and line mode on top of it."""

from __future__ import annotations

import builtins
import io
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from edgellm.tui import line_mode
from edgellm.tui.capability import why_poor_terminal
from edgellm.tui.engine import EngineThread
from edgellm.tui.messages import (
    Ask,
    Event,
    Measure,
    Measured,
    ModelSwitched,
    ReplyEnded,
    ReplyFailed,
    ReplyStarted,
    SwitchModel,
    TextPiece,
)
from edgellm.tui.model_engine import ModelEngine

import edgellm
from edgellm.errors import ContextOverflowError, ToolCallError
from edgellm.transcript import Exchange

QUESTION = "How do I show the current date?"


@pytest.fixture(scope="module")
def model() -> Iterator[edgellm.Model]:
    with edgellm.load("demo") as loaded:
        yield loaded


def engine_of(model: edgellm.Model, chat: edgellm.Chat, **sampling: Any) -> ModelEngine:
    given = {"max_tokens": 12, "temperature": 0.0, **sampling}
    return ModelEngine(model, "demo", given, chat=chat)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextPiece))


def all_events(thread: EngineThread) -> list[Event]:
    """Of the request under way."""
    events: list[Event] = []
    deadline = time.monotonic() + 60
    while not (events and isinstance(events[-1], ReplyEnded | ReplyFailed | ModelSwitched)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
        events += thread.take()
    return events


def test_a_reply_is_that_of_the_chat_and_comes_with_its_figures(model):
    with model.chat() as chat, model.chat() as same:
        engine = engine_of(model, chat)
        assert engine.card.n_ctx == 512
        assert not engine.card.varies
        assert re.match(r"\d\.\dM parameters, E4_16, ", engine.card.details)
        events = list(engine.reply(Ask(QUESTION)))
        expected = same.send(QUESTION, max_tokens=12)
        assert isinstance(events[0], ReplyStarted)
        assert text_of(events) == expected.text
        ended = events[-1]
        assert isinstance(ended, ReplyEnded)
        assert ended.kept
        assert ended.n_tokens == len(expected.token_ids)
        assert ended.context_tokens == chat.context_tokens[0]
        second = list(engine.reply(Ask("And the time?", engine.said)))[-1]
        assert isinstance(second, ReplyEnded)
        assert second.reused_tokens > 10


def test_each_further_try_takes_another_seed(model):
    with model.chat() as chat:
        engine = engine_of(model, chat, temperature=1.5, seed=3)
        replies = [text_of(list(engine.reply(Ask(QUESTION))))]
        replies += [text_of(list(engine.reply(Ask(QUESTION, attempt=n)))) for n in (1, 2, 3)]
        assert len(set(replies)) > 1
        with model.chat() as same:
            options = {"max_tokens": 12, "temperature": 1.5}
            seeded = [same.send(QUESTION, seed=3, **options).text]
            seeded += [same.regenerate(seed=seed, **options).text for seed in (4, 5, 6)]
        assert replies == seeded
        assert len(chat.turns) == 1


def test_an_edit_takes_the_place_of_the_last_message(model):
    with model.chat() as chat:
        engine = engine_of(model, chat)
        list(engine.reply(Ask("Hello")))
        hello = engine.said
        list(engine.reply(Ask("one", hello)))
        list(engine.reply(Ask("two", hello)))
        assert [turn.message["content"] for turn in chat.turns] == ["Hello", "two"]


def test_stop_from_another_thread_keeps_what_came(model):
    with model.chat() as chat:
        engine = engine_of(model, chat, max_tokens=400, ignore_eos=True)
        thread = EngineThread(engine)
        thread.submit(Ask("Tell me a story."))
        events: list[Event] = []
        while not text_of(events):
            time.sleep(0.001)
            events += thread.take()
        thread.stop()
        events += all_events(thread)
        ended = events[-1]
        assert isinstance(ended, ReplyEnded)
        assert ended.finish_reason == "cancelled"
        assert 0 < ended.n_tokens < 400
        assert chat.turns[0].reply == text_of(events)
        thread.submit(Ask("Hello"))
        assert isinstance(all_events(thread)[-1], ReplyEnded)
        thread.close()


def test_a_stop_before_the_first_token_is_not_lost(model):
    with model.chat() as chat:
        engine = engine_of(model, chat, max_tokens=400, ignore_eos=True)
        thread = EngineThread(engine)
        for _ in range(20):
            thread.submit(Ask("Tell me a story."))
            thread.stop()
            ended = all_events(thread)[-1]
            assert isinstance(ended, ReplyEnded)
            assert ended.finish_reason == "cancelled"
        thread.close()


def test_what_does_not_fit_is_a_failure_that_changes_nothing(model):
    with model.chat(n_ctx=64) as chat:
        thread = EngineThread(engine_of(model, chat))
        thread.submit(Ask("long " * 200))
        failed = all_events(thread)[-1]
        assert isinstance(failed, ReplyFailed)
        assert (failed.code, failed.started, failed.kept) == ("context_overflow", False, False)
        assert chat.turns == ()
        thread.close()


def test_a_policy_says_what_it_dropped(model):
    with model.chat(n_ctx=96, policy="drop_oldest_turns") as chat:
        engine = engine_of(model, chat)
        ended = [list(engine.reply(Ask(f"{QUESTION} {i}", engine.said)))[-1] for i in range(5)]
        assert any(isinstance(e, ReplyEnded) and e.dropped_turns > 0 for e in ended)


def test_the_past_is_what_the_request_says_whatever_was_said_before(model):
    """Branches: the replies are those of a chat in which nothing else was ever said."""
    with model.chat() as chat:
        engine = engine_of(model, chat)
        list(engine.reply(Ask("Hello")))
        hello = engine.said
        on_the_left = text_of(list(engine.reply(Ask(QUESTION, hello))))
        left = engine.said
        list(engine.reply(Ask("Something else.", hello)))
        further = list(engine.reply(Ask("And the time?", left)))
    with model.chat() as same:
        replies = [same.send(text, max_tokens=12).text for text in ("Hello", QUESTION)]
        assert replies[1] == on_the_left
        expected = same.send("And the time?", max_tokens=12)
    assert text_of(further) == expected.text


def test_a_reply_goes_on_where_it_was_cut(model):
    with model.chat() as chat, model.chat() as whole:
        engine = engine_of(model, chat, max_tokens=4, ignore_eos=True)
        list(engine.reply(Ask("Hello")))
        begun = engine.said[0]
        more = list(engine.reply(Ask("Hello", begun=begun)))
        expected = whole.send("Hello", max_tokens=8, ignore_eos=True).text
        assert begun.reply + text_of(more) == expected
        assert engine.said[0].reply == expected


def test_a_reply_that_was_rewritten_is_what_the_model_goes_on_from(model):
    with model.chat() as chat:
        engine = engine_of(model, chat)
        mine = Exchange({"role": "user", "content": "Hello"}, "Good evening, sir.")
        events = list(engine.reply(Ask("And?", (mine,))))
        assert isinstance(events[-1], ReplyEnded)
        assert chat.messages[1] == {"role": "assistant", "content": "Good evening, sir."}
        assert chat.messages[2]["content"] == "And?"


def test_a_chat_of_another_day_is_the_same_chat(model, tmp_path):
    """Only texts and drawn ids were kept, as the library keeps them, and pages of KV."""
    sampling = {"max_tokens": 12}
    with edgellm.load("demo", verify="always", kv_cache_dir=tmp_path / "kv") as first:
        engine = ModelEngine(first, "demo", sampling)
        list(engine.reply(Ask("Hello", system="Answer at length. " * 8)))
        kept = tuple(Exchange(dict(e.message), e.reply, e.reply_ids) for e in engine.said)
        there = list(engine.reply(Ask(QUESTION, engine.said, system="Answer at length. " * 8)))
        engine.close()
    with edgellm.load("demo", verify="always", kv_cache_dir=tmp_path / "kv") as second:
        engine = ModelEngine(second, "demo", sampling)
        again = list(engine.reply(Ask(QUESTION, kept, system="Answer at length. " * 8)))
        ended = again[-1]
        assert isinstance(ended, ReplyEnded)
        assert ended.disk_tokens >= 32
        engine.close()
    assert text_of(again) == text_of(there)


def test_another_model_goes_on_and_a_missing_one_changes_nothing(model):
    opened = []

    def open_model(name: str) -> edgellm.Model:
        opened.append(edgellm.load(name))
        return opened[-1]

    engine = ModelEngine(edgellm.load("demo"), "demo", {"max_tokens": 4}, open_model=open_model)
    thread = EngineThread(engine)
    thread.submit(Ask("Hello"))
    all_events(thread)
    said = engine.said
    thread.submit(SwitchModel("missing.edge"))
    failed = all_events(thread)[-1]
    assert isinstance(failed, ReplyFailed)
    assert "missing.edge" in failed.message
    thread.submit(SwitchModel("demo"))
    assert isinstance(all_events(thread)[-1], ModelSwitched)
    thread.submit(Ask(QUESTION, said))
    assert isinstance(all_events(thread)[-1], ReplyEnded)
    assert [exchange.message["content"] for exchange in engine.said] == ["Hello", QUESTION]
    thread.close()
    engine.close()
    assert len(opened) == 1


def test_measuring_leaves_the_chat_as_it_is(model):
    with model.chat() as chat:
        engine = engine_of(model, chat)
        list(engine.reply(Ask("Hello")))
        said = engine.said
        points = list(engine.measure(Measure(32, 16, 2)))
        assert all(isinstance(point, Measured) for point in points)
        assert [point.is_last for point in points] == [False] * (len(points) - 1) + [True]
        assert points[-1].n_round == 1
        assert points[-1].prompt_tokens_per_s > 0
        assert engine.said == said


CALLING = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if tools %}<tool_call>{{ tools }}{% endif %}{% if add_generation_prompt %}\
<|im_start|>assistant
{% endif %}"""


def test_a_call_in_a_reply_is_read(model):
    tools = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    text = 'I look.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    with model.chat(template=CALLING, tools=tools) as chat:
        chat.recall([Exchange({"role": "user", "content": "The time?"}, text)])
        assert chat.tool_calls(chat.turns[0]) == [("now", {})]
        chat.recall([Exchange({"role": "user", "content": "The time?"}, "No idea.")])
        assert chat.tool_calls(chat.turns[0]) == []
        broken = text.replace("now", "rm")
        chat.recall([Exchange({"role": "user", "content": "The time?"}, broken)])
        with pytest.raises(ToolCallError, match="no function 'rm'"):
            chat.tool_calls(chat.turns[0])


@pytest.mark.parametrize("ids", [(-1,), (10**6,)])
def test_ids_of_no_token_are_not_fed(model, ids):
    with model.chat() as chat:
        chat.recall([Exchange({"role": "user", "content": "Hello"}, "Hi.", ids)])
        assert not chat.turns[0].exact
        assert chat.send("And?", max_tokens=2).token_ids


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    """What the user types in line mode, then the end of input."""
    waiting = iter([*lines, EOFError])

    def answer(prompt: str = "") -> str:
        line = next(waiting)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(builtins, "input", answer)


def test_ctrl_c_in_line_mode_keeps_the_partial_reply_and_the_chat(model, monkeypatch, capsys):
    n_printed = 0

    def print_text(text: str) -> None:
        nonlocal n_printed
        n_printed += 1
        if n_printed == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(line_mode, "print_text", print_text)
    typed(monkeypatch, "Tell me a story.", KeyboardInterrupt, "", "Hello")
    with model.chat() as chat:
        exchanges = line_mode.converse(engine_of(model, chat, ignore_eos=True))
        assert [turn.finish_reason for turn in chat.turns] == ["cancelled", "length"]
        assert len(chat.turns[0].reply_ids) == 4
        assert [said.message for said in exchanges] == ["Hello"]
    errors = capsys.readouterr().err
    assert "stopped; the text so far stays" in errors
    assert "[Ctrl-D ends the chat]" in errors


def test_an_error_in_line_mode_says_what_to_do_and_the_chat_goes_on(model, monkeypatch, capsys):
    typed(monkeypatch, "long " * 200, "Hello")
    with model.chat(n_ctx=64) as chat:
        line_mode.converse(engine_of(model, chat))
        assert len(chat.turns) == 1
    errors = capsys.readouterr().err
    assert "error: 2" in errors
    assert "--policy drop_oldest_turns" in errors


def test_an_error_in_a_pipe_is_raised(model, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("long " * 200 + "\nHello\n"))
    with model.chat(n_ctx=64) as chat, pytest.raises(ContextOverflowError):
        line_mode.converse(engine_of(model, chat))


class Latin(Terminal):
    encoding = "iso-8859-1"


@pytest.mark.parametrize(
    ("environ", "changed", "reason"),
    [
        ({"TERM": "xterm"}, {}, None),
        ({"TERM": "dumb"}, {}, "TERM=dumb cannot place a cursor"),
        ({}, {}, "TERM= cannot place a cursor"),
        ({"TERM": "xterm"}, {"stdin": io.StringIO()}, "stdin is not a terminal"),
        ({"TERM": "xterm"}, {"stderr": None}, "stderr is not a terminal"),
        ({"TERM": "xterm"}, {"stdout": Latin()}, "stdout takes iso88591 text"),
    ],
)
def test_the_reason_for_line_mode_is_named(environ, changed, reason):
    streams = {name: Terminal() for name in ("stdin", "stdout", "stderr")} | changed
    said = why_poor_terminal(environ, streams)
    assert said is None if reason is None else str(said).startswith(reason)
