"""Errors as OpenAI's API tells them: a status and an object."""

from __future__ import annotations

from typing import Any

from ..errors import (
    Cancelled,
    ContextOverflowError,
    EdgeError,
    FormatError,
    IntegrityError,
    InvalidArgumentError,
    MemoryBudgetError,
    NumericError,
    TemplateError,
    ToolCallError,
    UnsupportedError,
)

REQUEST, SERVER, RATE = "invalid_request_error", "server_error", "rate_limit_error"
_BY_CLASS: tuple[tuple[type[EdgeError], int, str], ...] = (
    (MemoryBudgetError, 503, SERVER),
    (Cancelled, 503, SERVER),
    (ToolCallError, 500, SERVER),
    (IntegrityError, 500, SERVER),
    (FormatError, 500, SERVER),
    (NumericError, 500, SERVER),
    (ContextOverflowError, 400, REQUEST),
    (InvalidArgumentError, 400, REQUEST),
    (UnsupportedError, 400, REQUEST),
    (TemplateError, 400, REQUEST),
)
# What clients look for.
_CODES = {"context_overflow": "context_length_exceeded"}


class Refusal(Exception):
    """A request is turned away before any work."""

    def __init__(self, status: int, message: str, code: str, kind: str = REQUEST) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.kind = status, message, code, kind

    @property
    def headers(self) -> dict[str, str]:
        """Those that go with the status."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": "1"} if self.status in (429, 503) else {}


def told(error: BaseException) -> Refusal:
    """As a client hears of it. Of a bug it hears nothing but that there is one."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, EdgeError):
        for kind, status, name in _BY_CLASS:
            if isinstance(error, kind):
                return Refusal(status, error.message, _CODES.get(error.code, error.code), name)
        return Refusal(500, error.message, error.code, SERVER)
    return Refusal(500, "internal error; the server's log has it", "internal", SERVER)


def error_object(refusal: Refusal) -> dict[str, Any]:
    """The body of the answer, and the last event of a stream that fails."""
    return {
        "error": {
            "message": refusal.message,
            "type": refusal.kind,
            "param": None,
            "code": refusal.code,
        }
    }
