"""Keys of vi in a text box: the ones that hands know."""

from __future__ import annotations

from collections.abc import Callable

from textual.widgets import TextArea

_MOVES = {
    "h": "cursor_left",
    "l": "cursor_right",
    "e": "cursor_word_right",
    "b": "cursor_word_left",
    "0": "cursor_line_start",
    "^": "cursor_line_start",
    "$": "cursor_line_end",
    "x": "delete_right",
    "X": "delete_left",
    "D": "delete_to_end_of_line",
    "u": "undo",
}
_DOUBLE = ("d", "c", "y", "g")


class Vim:
    """Of one text box. In insert mode it does nothing."""

    def __init__(self, area: TextArea) -> None:
        self._area = area
        self._pending = ""
        self._yanked = ""
        self.is_normal = False

    def normal(self) -> None:
        """What Esc does."""
        self.is_normal, self._pending = True, ""

    def key(self, character: str) -> bool:
        """In normal mode; whether it was taken (all that would write is)."""
        if self._pending:
            pair, self._pending = self._pending + character, ""
            self._pair(pair)
        elif character in _DOUBLE:
            self._pending = character
        elif character in _MOVES:
            self._do(_MOVES[character])
        else:
            action = self._others().get(character)
            if action is not None:
                action()
        return True

    def _others(self) -> dict[str, Callable[[], object]]:
        area = self._area
        return {
            "j": lambda: TextArea.action_cursor_down(area),
            "k": lambda: TextArea.action_cursor_up(area),
            "G": lambda: area.move_cursor(area.document.end),
            "w": self._next_word,
            "i": self._insert,
            "a": self._append,
            "I": lambda: self._insert("cursor_line_start"),
            "A": lambda: self._insert("cursor_line_end"),
            "C": lambda: self._insert("delete_to_end_of_line"),
            "o": lambda: self._open_line("cursor_line_end", "\n"),
            "O": lambda: self._open_line("cursor_line_start", "\n", up=True),
            "p": lambda: area.insert(self._yanked),
        }

    def _pair(self, pair: str) -> None:
        area = self._area
        row = area.cursor_location[0]
        line = area.document.get_line(row)
        if pair == "gg":
            area.move_cursor((0, 0))
        elif pair == "yy":
            self._yanked = line + "\n"
        elif pair == "dd":
            self._yanked = line + "\n"
            self._do("delete_line")
        elif pair == "cc":
            self._yanked = line + "\n"
            area.delete((row, 0), (row, len(line)))
            self._insert()

    def _next_word(self) -> None:
        self._do("cursor_word_right")
        row, column = self._area.cursor_location
        rest = self._area.document.get_line(row)[column:]
        self._area.move_cursor((row, column + len(rest) - len(rest.lstrip())))

    def _append(self) -> None:
        row, column = self._area.cursor_location
        at_end = column >= len(self._area.document.get_line(row))
        self._insert(*(() if at_end else ("cursor_right",)))

    def _insert(self, *actions: str) -> None:
        for action in actions:
            self._do(action)
        self.is_normal = False

    def _open_line(self, action: str, text: str, *, up: bool = False) -> None:
        self._do(action)
        self._area.insert(text)
        if up:
            TextArea.action_cursor_up(self._area)
        self.is_normal = False

    def _do(self, action: str) -> None:
        getattr(self._area, f"action_{action}")()
