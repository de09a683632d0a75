"""Widgets that keep what they have drawn. Textual asks every widget of the screen for its lines
whenever anything anywhere changes, which for those that did not change was most of the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip

# Textual takes styles and bindings from the first base class that is a widget: not from this one.
if TYPE_CHECKING:
    from textual.widget import Widget as _Base
else:
    _Base = object


class Kept(_Base):
    """Draws itself only after it was marked as changed. Goes before the other base class."""

    _kept: tuple[Region, list[Strip]] | None = None

    def _set_dirty(self, *regions: Region) -> None:
        # Whatever changes the look of a widget goes through here, in Textual and below it.
        self._kept = None
        super()._set_dirty(*regions)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The same lines as before, as long as they are."""
        if self._kept is None or self._kept[0] != crop:
            self._kept = (crop, super().render_lines(crop))
        return self._kept[1]


class KeptScreen(Kept, Screen[None]):
    """The background of the chat."""
