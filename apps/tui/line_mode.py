"""The chat without a screen: a line in, a reply out. For pipes, poor terminals and without textual.

Replies go to stdout, everything else to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from edgellm.cli.output import note, print_error, print_text
from edgellm.errors import EdgeError, InvalidArgumentError
from edgellm.results import Generation

from .figures import dropped, figures
from .messages import Ask, ReplyEnded, TextPiece
from .model_engine import ModelEngine
from .remedies import remedy

_PROMPT = "> "


@dataclass(frozen=True)
class Exchange:
    """A message and what came of it."""

    message: str
    reply: Generation


def converse(
    engine: ModelEngine, *, system: str | None = None, silent: bool = False
) -> list[Exchange]:
    """Until the input ends. On a terminal Ctrl-C ends a reply and errors do not end the chat; from
    a pipe both end the program. `silent`: print nothing, only return."""
    interactive = sys.stdin.isatty() and not silent
    exchanges = []
    for text in _typed_lines() if interactive else _piped_lines():
        if not text.strip():
            continue
        try:
            ended = _answer(engine, Ask(text, engine.said, system=system), silent)
        except KeyboardInterrupt:
            if not interactive:
                raise
            print_text("\n")
            note("[stopped; the text so far stays in the chat; Ctrl-D ends it]")
            continue
        except EdgeError as error:
            if not interactive:
                raise
            print_error(" ".join((str(error), remedy(error.code))).strip())
            continue
        if not silent:
            _report(ended)
        if engine.last_result is not None:
            exchanges.append(Exchange(text, engine.last_result))
    return exchanges


def _answer(engine: ModelEngine, ask: Ask, silent: bool) -> ReplyEnded | None:
    ended = None
    # Closing keeps what came, wherever Ctrl-C hits.
    with closing(engine.reply(ask)) as events:
        for event in events:
            if isinstance(event, TextPiece) and not silent:
                print_text(event.text)
            elif isinstance(event, ReplyEnded):
                ended = event
    if not silent:
        print_text("\n")
    return ended


def _report(ended: ReplyEnded | None) -> None:
    if ended is None:
        return
    if ended.dropped_turns > 0:
        note(f"note: {dropped(ended)}")
    note(f"[{figures(ended)}]")


def _piped_lines() -> Iterator[str]:
    try:
        for line in sys.stdin:
            yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        message = f"the messages on stdin are not {error.encoding} text: {error.reason}"
        raise InvalidArgumentError(message, code="invalid_utf8") from None


def _typed_lines() -> Iterator[str]:
    if os.environ.get("TERM", "") not in ("", "dumb", "unknown"):
        with suppress(ImportError):  # not on every system: then without line editing
            import readline  # noqa: F401
    while True:
        try:
            if sys.stdout.isatty():
                yield input(_PROMPT)
            else:
                sys.stderr.write(_PROMPT)
                sys.stderr.flush()
                yield input()
        except EOFError:
            sys.stderr.write("\n")
            return
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            note("[Ctrl-D ends the chat]")
        except UnicodeDecodeError as error:
            print_error(f"what you typed is not {error.encoding} text; it was not sent")
