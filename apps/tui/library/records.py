"""What the library holds, as plain frozen data. Texts are raw: whoever shows them sanitizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChatInfo:
    """A chat without its turns. `is_named`: the user gave the title, which no other one replaces.
    `head`: the turn that was looked at last, None before the first. Times are ms since 1970."""

    id: int
    title: str
    is_named: bool
    system: str | None
    model: str
    head: int | None
    updated_ms: int
    n_turns: int
    draft: str = ""


@dataclass(frozen=True)
class Turn:
    """A message and its reply, after the turn `parent` (None: at the beginning). Turns with one
    parent are branches.

    `role`: "user", or "tool" for what a tool gave. `reply_ids`: the tokens of the reply as they
    were drawn by the model whose weights have the hash `root`, None where they do not spell it.
    `finish`: why the reply ended; None while it comes, or if the program ended in it. `figures`:
    the line under it. `n_dropped`: oldest turns that the model no longer saw.
    """

    id: int
    parent: int | None
    role: str
    message: str
    reply: str = ""
    reply_ids: tuple[int, ...] | None = None
    root: str = ""
    model: str = ""
    finish: str | None = None
    figures: str = ""
    n_dropped: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a reply ended: fields of `Turn`."""

    reply: str
    reply_ids: tuple[int, ...] | None
    root: str
    model: str
    finish: str
    figures: str
    n_dropped: int


@dataclass(frozen=True)
class Found:
    """A chat that a search found. `turn`: where, None for its title; `excerpt`: around it."""

    chat: ChatInfo
    turn: int | None
    excerpt: str
