"""The errors that edgellm raises.

Every one carries `code`, a stable snake_case name for the one way in which something was wrong
("header_hash"); messages may be reworded, codes may not. The native layer has the same list
(native/src/base/errors.inc), so a defect has one code whichever reader finds it.
"""

from __future__ import annotations


class EdgeError(Exception):
    """Base of everything edgellm raises on purpose; `code` names the defect."""

    default_code = "edge_error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code if code is not None else self.default_code

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[EdgeError], tuple[str, str]]:
        return type(self), (self.message, self.code)


class FormatError(EdgeError):
    """A file is missing, unreadable, or not what its format says it must be."""

    default_code = "format"


class IntegrityError(EdgeError):
    """A file is well formed but its bytes are not those that were written: a hash differs."""

    default_code = "integrity"


class UnsupportedError(EdgeError):
    """The input is valid, and asks for something this version or this machine cannot do."""

    default_code = "unsupported"


class MemoryBudgetError(EdgeError):
    """The work would need more memory than it may take; raised before the memory is touched."""

    default_code = "memory_budget"


class ContextOverflowError(EdgeError):
    """Prompt and requested tokens do not fit the context; nothing was processed or dropped."""

    default_code = "context_overflow"


class TemplateError(EdgeError):
    """A chat template is missing, broken, too costly, or refused the conversation.

    Codes: template_missing, template_encoding, template_too_large, template_syntax,
    template_forbidden (it asks for what a template may not do), template_limit (it costs too
    much), template_refused (its own raise_exception), template_failed (an error while it ran).
    """

    default_code = "template_failed"


class SessionError(EdgeError):
    """A saved session cannot be restored: its file is broken, or was saved with another model,
    tokenizer, chat template, adapter or KV format. What runs is not affected.

    Codes: session_invalid (no session file, or an impossible one), session_truncated, session_hash
    (damaged bytes), session_mismatch (whole, but it does not go with what is loaded).
    """

    default_code = "session_invalid"


class ToolCallError(EdgeError):
    """A model wrote what ought to be a tool call and is none: no JSON, or of no known function.
    Grammars keep models from it; it comes of texts that a grammar did not lead."""

    default_code = "tool_call_invalid"


class NumericError(EdgeError):
    """A non-finite number appeared in the computation; the result would be meaningless."""

    default_code = "numeric"


class DeviceError(EdgeError):
    """The operating system or an accelerator failed at something that should have worked."""

    default_code = "os_failure"


class Cancelled(EdgeError):
    """The caller stopped the work before it was done."""

    default_code = "cancelled"


class InvalidArgumentError(EdgeError, ValueError):
    """An argument is out of its allowed range; the message names the range."""

    default_code = "invalid_argument"
