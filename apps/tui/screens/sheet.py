"""What is laid over the chat: a title, a body, a line of keys; Esc goes back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from edgellm.sanitize import visible_line

from ..widgets.plain import Plain

if TYPE_CHECKING:
    from ..app import ChatApp


_WIDE_COLUMNS = 60


class Sheet(Screen[None]):
    """Subclasses give `TITLE_TEXT`, `KEYS_TEXT` and `body()`."""

    app: ChatApp
    TITLE_TEXT: ClassVar[str] = ""
    KEYS_TEXT: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "leave", show=False, priority=True)
    ]

    def __init__(self) -> None:
        super().__init__()
        self._says = Plain(classes="says")

    def compose(self) -> ComposeResult:
        """Top to bottom."""
        yield Plain(self.TITLE_TEXT, classes="title")
        yield from self.body()
        yield self._says
        yield Plain(f"Esc back{self.KEYS_TEXT}", classes="keys")

    def body(self) -> Sequence[Widget]:
        """The middle."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """A line under the body."""
        self._says.show(text, same_size=True)

    def action_leave(self) -> None:
        """Back to the chat."""
        self.dismiss(None)


class TextSheet(Sheet):
    """A text that scrolls."""

    def text(self) -> str:
        """All of it."""
        raise NotImplementedError

    def table(self, rows: Sequence[tuple[str, str]]) -> str:
        """Names and meanings, side by side where there is room."""
        if self.app.size.width >= _WIDE_COLUMNS:
            return "\n".join(f"{name:<24}  {meaning}".rstrip() for name, meaning in rows)
        return "\n".join(f"{name}\n  {meaning}".rstrip() for name, meaning in rows)

    def body(self) -> Sequence[Widget]:
        """The text."""
        return (VerticalScroll(Plain(self.text()), classes="body"),)


class Rows(OptionList):
    """Rows of text to choose from: no markup, no links. Each row has lines of text, the first one
    in bold."""

    def show_rows(self, rows: Sequence[tuple[str, ...]], *, first_cells: int = 0) -> None:
        """Others; the place in the list stays. `first_cells`: what follows the first line stands
        beside it, so far to the right, where the window has room for that."""
        is_wide = first_cells > 0 and self.app.size.width >= _WIDE_COLUMNS
        at = self.highlighted or 0
        self.clear_options()
        show = partial(_beside, first_cells=first_cells) if is_wide else _below
        self.add_options([Option(show(lines)) for lines in rows])
        if rows:
            self.highlighted = min(at, len(rows) - 1)


def _beside(lines: tuple[str, ...], first_cells: int) -> Content:
    first, *rest = (visible_line(line) for line in lines)
    gap = " " * max(2, first_cells - cell_len(first))
    return Content.assemble((first, "bold"), gap, (" · ".join(filter(None, rest)), "dim"))


def _below(lines: tuple[str, ...]) -> Content:
    first, *rest = (visible_line(line) for line in lines)
    parts = [Content.styled(first, "bold")]
    parts += [Content.styled(f"  {line}", "dim") for line in rest if line]
    return Content("\n").join(parts)
