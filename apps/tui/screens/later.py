"""Something that must happen, some time from now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual.message_pump import MessagePump


def later(node: MessagePump, seconds: float, callback: Callable[[], None]) -> None:
    """Like `node.set_timer()`, which leaves out what it is too late for: of a process that was
    stopped in the wrong moment, the one call there is."""
    asyncio.get_running_loop().call_later(seconds, node.call_later, callback)
