"""A chat as Markdown, for people, and as JSON, for programs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edgellm.errors import FormatError, InvalidArgumentError

from .conversation import Conversation
from .library import Turn

FORMATS = ("md", "json")


def as_markdown(title: str, system: str | None, turns: Sequence[Turn]) -> str:
    """One branch. Texts are as they were said."""
    parts = [f"# {title or 'Chat'}"]
    if system:
        parts.append("> " + system.replace("\n", "\n> "))
    for turn in turns:
        who = "You" if turn.role == "user" else "Tool"
        parts += [f"## {who}", turn.message, f"## {turn.model or 'Model'}", turn.reply]
        if turn.figures:
            parts.append(f"*{turn.figures}*")
    return "\n\n".join(parts) + "\n"


def as_json(title: str, system: str | None, turns: Sequence[Turn]) -> str:
    """All of it: with `id` and `parent` the branches can be told apart."""
    document = {
        "kind": "edgellm.chat",
        "version": 1,
        "title": title,
        "system": system,
        "turns": [asdict(turn) for turn in turns],
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def export(chat: Conversation, path: Path, kind: str, n_last: int | None = None) -> int:
    """Writes a new file; how many turns. Markdown is the branch that is looked at, JSON all
    branches; `n_last`: only the last so many turns of the branch. InvalidArgumentError: nothing was
    said, or the file is there. FormatError: it cannot be written."""
    turns = chat.branch if kind == "md" or n_last is not None else chat.all_turns
    turns = turns[-n_last:] if n_last is not None else turns
    if not turns:
        raise InvalidArgumentError("nothing was said yet", code="invalid_argument")
    title = chat.info.title if chat.info else ""
    text = (as_markdown if kind == "md" else as_json)(title, chat.system, turns)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        message = f"{path} is there already; /export {kind} OTHER-NAME"
        raise InvalidArgumentError(message, code="invalid_argument") from None
    except (OSError, ValueError) as error:  # a name may hold a NUL
        message = f"{path}: cannot be written: {error}"
        raise FormatError(message, code="file_write_failed") from error
    return len(turns)


def file_name(title: str, kind: str) -> str:
    """A name of letters and digits."""
    words = re.sub(r"[^\w]+", "-", title).strip("-").lower()[:40].strip("-")
    return f"{words or 'chat'}.{kind}"


def code_blocks(reply: str) -> list[str]:
    """The text of every fenced block, in order."""
    found, fence, lines = [], "", list[str]()
    for line in reply.split("\n"):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if not fence and mark:
            fence, lines = mark[1], []
        elif fence and mark and mark[1].startswith(fence) and not line.strip(" " + fence[0]):
            found.append("\n".join(lines))
            fence = ""
        elif fence:
            lines.append(line)
    return [*found, "\n".join(lines)] if fence else found
