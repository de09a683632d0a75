"""The chats of a user on disk: a tree of turns for each, drafts, personas, full-text search.

Knows no screen and no model. One sqlite file; docs/CHAT.md ("Where chats are kept") describes it.
"""

from __future__ import annotations

from .library import Library
from .records import ChatInfo, Found, Outcome, Turn

__all__ = ["ChatInfo", "Found", "Library", "Outcome", "Turn"]
