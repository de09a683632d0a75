"""What was said: messages, replies and notices, in a view that follows the newest text until the
reader scrolls away, and again when they come back to the end.

One widget that keeps finished lines, not a tree of them: laying out, styling and drawing a widget
for every block was nearly all that a reply cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from edgellm.sanitize import visible_line

from .blocks import Painter
from .entries import Reply, Said
from .lines import Line

NoticeKind = Literal["note", "warning", "error"]
_MARGIN = 1  # cells at the left of everything; those at the right are padding of the widget
_WINDOW = 40  # turns that are laid out at a time
_N_STRIPS = 500  # as many as are kept ready to be drawn again


@dataclass(frozen=True)
class PastTurn:
    """A turn that is over. `place`: which branch it is in, empty for the only one."""

    message: str
    shown: str
    reply: str
    figures: str
    place: str = ""


class Transcript(ScrollView, can_focus=False):
    """The scrolling middle of the screen. The last user message and reply are the last turn."""

    _LOOKS = ("user", "note", "warning", "error")
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(*Painter.STYLES, *Painter.OVERLAYS, "figures", "place", "thinking", "thinking-bar"),
        *(*_LOOKS, *(f"{look}-bar" for look in _LOOKS)),
    }

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self._entries: list[Said | Reply] = []
        self._starts: list[int] = []  # of every entry, the number of its first line
        self._lines: list[Line] = []
        self._strips: dict[Line, Strip] = {}
        self._turns: list[tuple[Said, Reply | None]] = []
        self._laid_out_width = 0
        self._n_above = 0  # blank rows: what is short stands at the bottom
        self._follows = True  # the end, until the reader scrolls away
        self._earlier: list[PastTurn] = []  # not laid out yet
        self._mark: Said | None = None  # says how many
        self.shows_thinking = False
        self.thinking_key = ""

    # --- what is said -------------------------------------------------------------------------

    @property
    def last_message(self) -> str | None:
        """The text of the last turn's message."""
        return self._turns[-1][0].text if self._turns else None

    @property
    def last_reply(self) -> str | None:
        """The source of the last turn's reply, as far as it has come."""
        reply = self._turns[-1][1] if self._turns else None
        return None if reply is None else reply.source

    def show_past(self, turns: Sequence[PastTurn]) -> None:
        """`turns` in the place of everything. The latest are laid out, those before them when the
        reader comes to the beginning."""
        for kept in (self._entries, self._starts, self._lines, self._turns):
            kept.clear()
        self._strips.clear()
        self._earlier, self._mark, self._follows = list(turns), None, True
        self._changed(0)
        self._show_earlier()

    def add_message(self, text: str, shown: str | None = None, place: str = "") -> None:
        """Begin a turn, and show its message and the end of everything."""
        message = Said(text, "user", shown, place)
        self._turns.append((message, None))
        self._follows = True
        self._append(message)

    def begin_reply(self) -> None:
        """The reply of the last turn, in the place of one that may be there."""
        message, reply = self._turns.pop()
        self._remove(reply)
        reply = Reply(self)
        self._turns.append((message, reply))
        self._append(reply)

    def resume_reply(self) -> None:
        """More of the last reply comes."""
        reply = self._turns[-1][1] if self._turns else None
        if reply is not None:
            reply.figures = ""
            self._follows = True
            self._replace(reply, 0, reply.lines(self))

    def feed(self, text: str) -> None:
        """More of the reply."""
        reply = self._turns[-1][1] if self._turns else None
        if reply is not None:
            first, lines = reply.feed(self, text)
            self._replace(reply, first, lines)

    def end_reply(self, figures: str) -> None:
        """The reply is over."""
        reply = self._turns[-1][1] if self._turns else None
        if reply is not None:
            reply.end()
            reply.figures = visible_line(figures)
            self._replace(reply, 0, reply.lines(self))

    def show_thinking(self, shows: bool) -> None:
        """Of all replies, or only that there is some."""
        self.shows_thinking = shows
        self._laid_out_width = 0
        self._lay_out()

    def drop_last_turn(self) -> None:
        """Forget the last message and its reply."""
        if self._turns:
            for entry in self._turns.pop():
                self._remove(entry)

    def notice(self, text: str, kind: NoticeKind = "note") -> None:
        """A remark of the program's own."""
        self._append(Said(text, kind))

    def _show_earlier(self) -> None:
        """As many more turns as are laid out at a time, above what is there."""
        if self._mark is not None:
            self._remove(self._mark)
        shown, self._earlier = self._earlier[-_WINDOW:], self._earlier[:-_WINDOW]
        entries: list[Said | Reply] = []
        turns: list[tuple[Said, Reply | None]] = []
        for past in shown:
            turn = (
                Said(past.message, "user", past.shown, past.place),
                Reply(self, past.reply, past.figures),
            )
            turns.append(turn)
            entries += turn
        if self._earlier:
            self._mark = Said(f"{len(self._earlier)} earlier turns: PgUp shows more", "note")
            entries = [self._mark, *entries]
        self._turns[:0] = turns
        self._prepend(entries)

    # --- lines --------------------------------------------------------------------------------

    @property
    def text_width(self) -> int:
        """Cells for what is said."""
        return self.container_size.width - self.scrollbar_size_vertical - _MARGIN

    @cached_property
    def painter(self) -> Painter:
        """With the colours of the theme."""
        styles = {name: self.get_visual_style(name) for name in Painter.STYLES}
        return Painter(
            styles | {name: self.get_visual_style(name, partial=True) for name in Painter.OVERLAYS}
        )

    @cached_property
    def thinking_painter(self) -> Painter:
        """The same in the colour of thinking."""
        return self.painter.with_text(self.get_visual_style("thinking"))

    @cached_property
    def _background(self) -> Color:
        return self.background_colors[1]

    def line_strip(self, number: int) -> Strip:
        """A line ready to be drawn. Behind the filters of the app, the guard among them, as what
        other widgets draw."""
        line = self._lines[number]
        strip = self._strips.get(line)
        if strip is None:
            if len(self._strips) >= _N_STRIPS:
                self._strips.clear()
            style = self.visual_style.rich_style
            margin = Segment(" " * _MARGIN, style)
            strip = Strip([margin, *line.segments]).adjust_cell_length(self.outer_size.width, style)
            for line_filter in self.app.get_line_filters():
                strip = strip.apply_filter(line_filter, self._background)
            self._strips[line] = strip
        return strip

    def on_resize(self) -> None:
        """Wrapped anew where the width is another one; what was at the end stays there."""
        self._lay_out()
        self._changed(len(self._lines))

    def watch_show_vertical_scrollbar(self) -> None:
        """The scrollbar takes a column away, or gives it back."""
        self._lay_out()

    def notify_style_update(self) -> None:
        """Colours may be other ones."""
        super().notify_style_update()
        for name in ("painter", "thinking_painter", "_background"):
            self.__dict__.pop(name, None)
        self._laid_out_width = 0
        self._strips.clear()
        self._lay_out()

    def _lay_out(self) -> None:
        width = self.text_width
        if width <= 0 or width == self._laid_out_width:
            return
        self._laid_out_width = width
        if self.text_selection is not None:
            self.screen.clear_selection()
        self._lines.clear()
        self._starts.clear()
        for entry in self._entries:
            self._starts.append(len(self._lines))
            self._lines += entry.lines(self)
        self._changed(0)

    def _append(self, entry: Said | Reply) -> None:
        self._entries.append(entry)
        self._starts.append(len(self._lines))
        self._lines += entry.lines(self)
        self._changed(self._starts[-1])

    def _prepend(self, entries: Sequence[Said | Reply]) -> None:
        lines: list[Line] = []
        starts: list[int] = []
        for entry in entries:
            starts.append(len(lines))
            lines += entry.lines(self)
        self._entries[:0] = entries
        self._starts = [*starts, *(start + len(lines) for start in self._starts)]
        self._lines[:0] = lines
        place = self.scroll_offset.y + len(lines)
        follows = self._follows
        self._changed(0)
        if not follows:
            self.scroll_to(y=place, animate=False)

    def _remove(self, entry: Said | Reply | None) -> None:
        if entry is not None:
            at = self._entries.index(entry)
            self._replace(entry, 0, [])
            del self._entries[at], self._starts[at]

    def _replace(self, entry: Said | Reply, first: int, lines: list[Line]) -> None:
        """`lines` for those of `entry` from its number `first` on."""
        at = len(self._entries) - 1
        while self._entries[at] is not entry:
            at -= 1
        start = self._starts[at] + first
        after = self._starts[at + 1] if at + 1 < len(self._starts) else len(self._lines)
        n_more = len(lines) - (after - start)
        self._lines[start:after] = lines
        for later in range(at + 1, len(self._starts)):
            self._starts[later] += n_more
        self._changed(start)

    # --- the view -----------------------------------------------------------------------------

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """By the reader, or to follow."""
        super().watch_scroll_y(old_value, new_value)
        self._follows = round(new_value) >= self.max_scroll_y
        if self._earlier and round(new_value) <= 0 < round(old_value):
            self.call_after_refresh(self._show_earlier)

    def _changed(self, first: int) -> None:
        """Lines from number `first` on are other ones."""
        n_lines = len(self._lines)
        size = Size(self.container_size.width - self.scrollbar_size_vertical, n_lines)
        scrolls = n_lines > self.container_size.height
        if size != self.virtual_size and scrolls and self.show_vertical_scrollbar:
            # No other widget moves, so the screen is not laid out anew as Textual would.
            self.set_reactive(Widget.virtual_size, size)
            self.vertical_scrollbar.window_virtual_size = n_lines
        else:
            self.virtual_size = size
        if self._follows or self.scroll_offset.y > self.max_scroll_y:
            self.scroll_to(y=self.max_scroll_y, animate=False)
        n_above = max(0, self.container_size.height - n_lines)
        moved, self._n_above = n_above != self._n_above, n_above
        top = 0 if moved else max(0, n_above + first - self.scroll_offset.y)
        if top < self.size.height:
            self.refresh(Region(0, top, self.size.width, self.size.height - top))

    @property
    def _padding_top(self) -> int:
        return self.styles.padding.top

    def render_lines(self, crop: Region) -> list[Strip]:
        """What `crop` shows."""
        selection = self.text_selection
        strips = [self._row(y - self._padding_top, selection) for y in crop.line_range]
        if crop.column_span != (0, self.outer_size.width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        """What the mouse is over: with marks that tell Textual where in the text."""
        number = y - self._n_above + self.scroll_offset.y
        return self._row(y, self.text_selection).apply_offsets(0, max(0, number))

    def _row(self, y: int, selection: Selection | None) -> Strip:
        number = y - self._n_above + self.scroll_offset.y
        if y < self._n_above or number >= len(self._lines):
            return Strip.blank(self.outer_size.width, self.visual_style.rich_style)
        strip = self.line_strip(number)
        span = None if selection is None else selection.get_span(number)
        return strip if span is None else self._marked(strip, *span)

    # --- selection ----------------------------------------------------------------------------

    def _marked(self, strip: Strip, start: int, end: int) -> Strip:
        text = strip.text
        left = cell_len(text[:start])
        right = strip.cell_length if end < 0 else cell_len(text[:end])
        style: Style = self.screen.get_component_rich_style("screen--selection")
        parts = [strip.crop(0, left), strip.crop(left, right), strip.crop(right)]
        parts[1] = Strip([Segment(parts[1].text, style)], parts[1].cell_length)
        return Strip.join(parts)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What is copied: without bars and margins, and with the line breaks of the text, not those
        of the window."""
        parts: list[str] = []
        for number, line in enumerate(self._lines):
            span = selection.get_span(number)
            if span is None:
                continue
            text = " " * _MARGIN + line.text
            start, end = max(span[0], _MARGIN + line.n_skipped), span[1]
            parts += [line.joint] if parts else []
            parts.append(text[start : len(text) if end < 0 else end].rstrip())
        return "".join(parts), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Drawn anew with it."""
        del selection
        self.refresh()
