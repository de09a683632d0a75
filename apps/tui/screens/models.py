"""The models of this machine: what they are, whether they fit; another one for the chat."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from typing import ClassVar

from textual.app import SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import OptionList

from ..models_here import Here, models_here
from .dialogs import Line
from .outside import run_outside
from .sheet import Rows, Sheet


class Models(Sheet):
    """Enter goes on with another model; P gets one from the hub, by the verb that does."""

    TITLE_TEXT: ClassVar[str] = "Models"
    KEYS_TEXT: ClassVar[str] = " · Enter: the chat goes on with it · P pull"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("p", "pull", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self._rows = Rows(classes="body")
        self._here: list[Here] = []

    def body(self) -> Sequence[Widget]:
        """A row each."""
        return (self._rows,)

    def on_mount(self) -> None:
        """Files are read beside the screen."""
        self._rows.focus()
        self.run_worker(self._look())

    async def _look(self) -> None:
        self.say("looking")
        self._here = await asyncio.to_thread(_all_here)
        now = self.app.engine.card.name
        self._rows.show_rows([_row(here, here.name == now) for here in self._here])
        self.say(f"now: {now} · {self.app.engine.card.details}")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter."""
        event.stop()
        here = self._here[event.option_index]
        if self.app.busy:
            self.say("a reply is under way")
        elif here.size:
            self.dismiss(None)
            self.app.chat.switch_model(here.name)

    def action_pull(self) -> None:
        """In the terminal itself, so that it says what it takes and how far it is."""

        async def ask() -> None:
            line = await self.app.push_screen_wait(
                Line(
                    "OWNER/NAME on the hub, which opens a connection; or NAME --index WHERE "
                    "--device CLASS, of a fleet"
                )
            )
            if not line:
                return
            try:
                command = [sys.executable, "-m", "edgellm", "pull", *shlex.split(line)]
                code = run_outside(self.app, command, waits=True)
            except ValueError as error:  # a quotation mark without its other one
                self.say(f"{error}: {line}")
                return
            except (SuspendNotSupported, OSError, EOFError) as error:
                self.say(f"not here: {error or 'no terminal'}; in a shell: edgellm pull")
                return
            await self._look()
            if code != 0:
                self.say(f"nothing was pulled: edgellm pull ended with {code}")

        self.run_worker(ask())


def _all_here() -> list[Here]:
    from edgellm import _native

    return list(models_here(_native.memory_figures()["available_bytes"]))


def _row(here: Here, is_used: bool) -> tuple[str, ...]:
    mark = "● " if is_used else ""
    return f"{mark}{here.name}  {here.size}", here.fits, here.quality
