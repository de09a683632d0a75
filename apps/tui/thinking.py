"""The thinking of a reply, apart from its answer: what stands between <think> and </think>."""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"


class Thinking:
    """Splits a reply as it comes. Templates that write <think> themselves leave only </think> in
    the reply: then all before it was thinking, and `feed` says so."""

    def __init__(self) -> None:
        self.text = ""  # thinking so far
        self.is_open = False
        self._answer = ""
        self._held = ""  # may be the beginning of a tag
        self._has_tag = False

    def feed(self, piece: str) -> tuple[str, bool]:
        """(more of the answer; whether all that was said to be answer before was thinking)."""
        text = self._held + piece
        self._held = ""
        if not self._has_tag and not self._answer.strip():
            begun = (self._answer + text).lstrip()
            if begun.startswith(_OPEN):
                self._has_tag = self.is_open = True
                text = begun[len(_OPEN) :]
            elif _OPEN.startswith(begun):
                self._held = text
                return "", False
        if self.is_open or not self._has_tag:
            return self._until_close(text)
        return self._say(text), False

    @property
    def answer(self) -> str:
        """So far."""
        return self._answer

    def end(self) -> str:
        """What was held back is answer, or thinking that never ended."""
        held, self._held = self._held, ""
        if self.is_open:
            self.text += held
            return ""
        return self._say(held)

    def _until_close(self, text: str) -> tuple[str, bool]:
        at = text.find(_CLOSE)
        if at < 0:
            n_held = next(
                (n for n in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:n])), 0
            )
            text, self._held = text[: len(text) - n_held], text[len(text) - n_held :]
            if self.is_open:
                self.text += text
                return "", False
            return self._say(text), False
        was_answer = not self._has_tag
        self.text += (self._answer if was_answer else "") + text[:at]
        self._answer = ""
        self._has_tag, self.is_open = True, False
        return self._say(text[at + len(_CLOSE) :].lstrip("\n")), was_answer

    def _say(self, text: str) -> str:
        self._answer += text
        return text


def answer_of(reply: str) -> str:
    """A whole reply without its thinking."""
    thinking = Thinking()
    thinking.feed(reply)
    thinking.end()
    return thinking.answer.strip("\n")
