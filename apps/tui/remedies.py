"""What to do about a failure during a chat, where the message does not say it in terms of keys and
flags."""

from __future__ import annotations

_REMEDIES = {
    "context_overflow": (
        "Shorten the message, edit an earlier one (↑), or start with "
        "--policy drop_oldest_turns to let the oldest turns go."
    ),
    "template_refused": "Start with --template chatml, or with a template file of your own.",
    "template_failed": "Start with --template chatml, or with a template file of your own.",
    "memory_budget": "Close other programs, or start with a smaller --context.",
    "internal": "This is a bug in edgellm. The chat goes on; Ctrl+R tries again.",
}


def remedy(code: str) -> str:
    """A sentence, or nothing where the message says it all."""
    return _REMEDIES.get(code, "")
