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
from edgellm.tui.engine import EngineThread, ModelEngine
from edgellm.tui.messages import (
    EditLast,
    Event,
    Regenerate,
    ReplyEnded,
    ReplyFailed,
    ReplyStarted,
    Send,
    TextPiece,
)

import edgellm
from edgellm.errors import ContextOverflowError

QUESTION = "How do I show the current date?"


@pytest.fixture(scope="module")
def model() -> Iterator[edgellm.Model]:
    with edgellm.load("demo") as loaded:
        yield loaded


def engine_of(model: edgellm.Model, chat: edgellm.Chat, **sampling: Any) -> ModelEngine:
    return ModelEngine(model, chat, "demo", {"max_tokens": 12, "temperature": 0.0, **sampling})


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextPiece))


def all_events(thread: EngineThread) -> list[Event]:
    """Of the request under way."""
    events: list[Event] = []
    deadline = time.monotonic() + 60
    while not (events and isinstance(events[-1], ReplyEnded | ReplyFailed)):
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
        events = list(engine.reply(Send(QUESTION)))
        expected = same.send(QUESTION, max_tokens=12)
        assert isinstance(events[0], ReplyStarted)
        assert text_of(events) == expected.text
        ended = events[-1]
        assert isinstance(ended, ReplyEnded)
        assert ended.kept
        assert ended.n_tokens == len(expected.token_ids)
        assert ended.context_tokens == chat.context_tokens[0]
        second = list(engine.reply(Send("And the time?")))[-1]
        assert isinstance(second, ReplyEnded)
        assert second.reused_tokens > 10


def test_each_further_try_takes_another_seed(model):
    with model.chat() as chat:
        engine = engine_of(model, chat, temperature=1.5, seed=3)
        replies = [text_of(list(engine.reply(Send(QUESTION))))]
        replies += [text_of(list(engine.reply(Regenerate()))) for _ in range(3)]
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
        list(engine.reply(Send("Hello")))
        list(engine.reply(Send("one")))
        list(engine.reply(EditLast("two")))
        assert [turn.message["content"] for turn in chat.turns] == ["Hello", "two"]


def test_stop_from_another_thread_keeps_what_came(model):
    with model.chat() as chat:
        engine = engine_of(model, chat, max_tokens=400, ignore_eos=True)
        thread = EngineThread(engine)
        thread.submit(Send("Tell me a story."))
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
        thread.submit(Send("Hello"))
        assert isinstance(all_events(thread)[-1], ReplyEnded)
        thread.close()


def test_a_stop_before_the_first_token_is_not_lost(model):
    with model.chat() as chat:
        engine = engine_of(model, chat, max_tokens=400, ignore_eos=True)
        thread = EngineThread(engine)
        for _ in range(20):
            thread.submit(Send("Tell me a story."))
            thread.stop()
            ended = all_events(thread)[-1]
            assert isinstance(ended, ReplyEnded)
            assert ended.finish_reason == "cancelled"
        thread.close()


def test_what_does_not_fit_is_a_failure_that_changes_nothing(model):
    with model.chat(n_ctx=64) as chat:
        thread = EngineThread(engine_of(model, chat))
        thread.submit(Send("long " * 200))
        failed = all_events(thread)[-1]
        assert isinstance(failed, ReplyFailed)
        assert (failed.code, failed.started, failed.kept) == ("context_overflow", False, False)
        assert chat.turns == ()
        thread.close()


def test_a_policy_says_what_it_dropped(model):
    with model.chat(n_ctx=96, policy="drop_oldest_turns") as chat:
        engine = engine_of(model, chat)
        ended = [list(engine.reply(Send(f"{QUESTION} {i}")))[-1] for i in range(5)]
        assert any(isinstance(e, ReplyEnded) and e.dropped_turns > 0 for e in ended)


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
