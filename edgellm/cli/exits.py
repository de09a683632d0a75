"""Exit codes, the same for every verb. Scripts rely on them: change none, add at the end."""

from __future__ import annotations

from enum import IntEnum

from ..errors import (
    Cancelled,
    ContextOverflowError,
    EdgeError,
    FormatError,
    IntegrityError,
    InvalidArgumentError,
    MemoryBudgetError,
    SessionError,
    TemplateError,
    UnsupportedError,
)


class Exit(IntEnum):
    """What a finished `edgellm` process tells its caller."""

    OK = 0
    INTERNAL = 1  # a bug in edgellm, or a failure of the machine
    USAGE = 2
    BAD_INPUT = 3  # missing, unreadable or malformed file
    INTEGRITY = 4
    UNSUPPORTED = 5
    MEMORY = 6
    CANCELLED = 7
    CONTEXT = 8
    GATE_FAILED = 9  # eval --compare: the new model is outside a limit
    INTERRUPTED = 130  # Ctrl-C
    BROKEN_PIPE = 141


EXIT_CODES_HELP = (
    "0 ok, 1 internal failure, 2 usage, 3 bad or missing file, 4 integrity, 5 unsupported, "
    "6 memory, 7 cancelled, 8 context overflow, "
    "9 release gate failed, 130 Ctrl-C, 141 output closed."
)

_BY_CLASS: tuple[tuple[type[BaseException], Exit], ...] = (
    (KeyboardInterrupt, Exit.INTERRUPTED),
    (IntegrityError, Exit.INTEGRITY),
    (FormatError, Exit.BAD_INPUT),
    (TemplateError, Exit.BAD_INPUT),
    (SessionError, Exit.BAD_INPUT),
    (UnsupportedError, Exit.UNSUPPORTED),
    (MemoryBudgetError, Exit.MEMORY),
    (Cancelled, Exit.CANCELLED),
    (ContextOverflowError, Exit.CONTEXT),
    (InvalidArgumentError, Exit.USAGE),
    (EdgeError, Exit.INTERNAL),
    (OSError, Exit.BAD_INPUT),
    (MemoryError, Exit.MEMORY),
)


def exit_for(error: BaseException) -> Exit:
    """The exit code of a failure. Errors of the command-line parser count as usage."""
    for kind, code in _BY_CLASS:
        if isinstance(error, kind):
            return code
    return Exit.USAGE if hasattr(error, "format_message") else Exit.INTERNAL
