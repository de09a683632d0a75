"""What the user may choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.widget import Widget
from textual.widgets import OptionList

from edgellm.errors import EdgeError

from ..keys import KEYS, keymap, shown
from ..settings import THEMES
from .dialogs import Line
from .sheet import Rows, Sheet

_SWITCHES = {
    "thinking": "shown from the start",
    "tools": "the model may ask; each call needs your yes",
    "vim": "keys of vi in the prompt",
}


class SettingsSheet(Sheet):
    """Enter changes the row; what is chosen is written down at once."""

    TITLE_TEXT: ClassVar[str] = "Settings"
    KEYS_TEXT: ClassVar[str] = " · ↑ ↓ choose · Enter change"

    def __init__(self) -> None:
        super().__init__()
        self._rows = Rows(classes="body")

    def body(self) -> Sequence[Widget]:
        """A row each."""
        return (self._rows,)

    def on_mount(self) -> None:
        """As they are."""
        self._show()
        self._rows.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter."""
        event.stop()
        names = list(_SWITCHES)
        at = event.option_index
        settings = self.app.settings
        if at == 0:
            self._change(theme=self._next_theme())
        elif at <= len(names):
            name = names[at - 1]
            self._change(**{name: not getattr(settings, name)})
        else:
            self.run_worker(self._rebind(KEYS[at - 1 - len(names)].name))

    async def _rebind(self, name: str) -> None:
        keys = dict(self.app.settings.keys)
        asked = f"Keys for {name}, as ctrl+r or f2,ctrl+o (empty: the usual ones)"
        chosen = await self.app.push_screen_wait(Line(asked, keys.get(name, "")))
        if chosen is None:
            return
        keys.pop(name, None)
        self._change(keys={**keys, **({name: chosen} if chosen else {})})

    def _next_theme(self) -> str:
        return THEMES[(THEMES.index(self.app.settings.theme) + 1) % len(THEMES)]

    def _change(self, **values: object) -> None:
        try:
            self.app.change_settings(**values)
            self.say("changed")
        except EdgeError as error:
            self.say(str(error))
        self._show()

    def _show(self) -> None:
        settings = self.app.settings
        rows: list[tuple[str, ...]] = [(f"Theme: {settings.theme}", "next: " + self._next_theme())]
        for name, meaning in _SWITCHES.items():
            mark = "on" if getattr(settings, name) else "off"
            rows.append((f"{name.capitalize()}: {mark}", meaning))
        keys = keymap(settings.keys)
        rows += [(f"{key.name}: {shown(keys[key.name])}", key.meaning) for key in KEYS]
        self._rows.show_rows(rows, first_cells=26)
