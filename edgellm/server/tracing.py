"""Spans of OpenTelemetry, for who starts the server under it; without its package, nothing.

The server exports nothing and opens no connection: `opentelemetry-instrument edgellm serve ...`
does, as its own settings say. Names are those of the semantic conventions for generative AI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..completions.chat_task import ChatTask
from ..completions.task import Task


class Tracing:
    """Of one server."""

    def __init__(self) -> None:
        try:
            from opentelemetry import context, propagate, trace
        except ModuleNotFoundError:
            self._api: Any = None
            return
        self._api = trace
        self._attach, self._extract = context.attach, propagate.extract
        self._tracer = trace.get_tracer("edgellm.server")

    def adopt(self, headers: Mapping[str, str]) -> None:
        """The task that answers a request belongs to the trace that its client names."""
        if self._api is not None:
            self._attach(self._extract(dict(headers)))

    @contextmanager
    def texts(self, task: Task[Any, Any]) -> Iterator[None]:
        """A span around the texts of a task, with their tokens; errors are those of the body."""
        if self._api is None:
            yield
            return
        operation = "chat" if isinstance(task, ChatTask) else "text_completion"
        span = self._tracer.start_span(
            f"{operation} {task.model}",
            kind=self._api.SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.system": "edgellm",
                "gen_ai.request.model": task.model,
                "gen_ai.request.choice.count": task.n,
            },
        )
        try:
            yield
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._api.StatusCode.ERROR)
            raise
        finally:
            usage = task.usage
            span.set_attribute("gen_ai.usage.input_tokens", usage["prompt_tokens"])
            span.set_attribute("gen_ai.usage.output_tokens", usage["completion_tokens"])
            span.end()
