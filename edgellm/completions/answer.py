"""One answer of a chat as it grows: tokens in, deltas and log probabilities of OpenAI's API out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..results import FinishReason as Reason
from ..results import Token
from .tool_reader import ToolReader
from .types import ChunkChoice, Delta, FinishReason, TokenLogprob, ToolCall, TopLogprob

TokenBytes = Callable[[int], bytes]


class Answer:
    """Number `index` of a request. `tools`: finds its calls, None where there may be none.
    `markers`: tokens that its text leaves out and calls are told by. `with_logprobs`: of its
    tokens, and `n_top` alternatives."""

    def __init__(
        self,
        index: int,
        tools: ToolReader | None,
        markers: Mapping[int, str],
        stop_ids: frozenset[int],
        token_bytes: TokenBytes,
        *,
        with_logprobs: bool,
        n_top: int,
    ) -> None:
        self.index = index
        self.content = ""
        self.tool_calls: list[ToolCall] = []
        self.logprobs: list[TokenLogprob] | None = [] if with_logprobs else None
        self.finish_reason: FinishReason = "length"
        self._tools = tools
        self._markers = markers
        self._stop_ids = stop_ids
        self._token_bytes = token_bytes
        self._n_top = n_top
        self._n_said = 0  # of the log probabilities

    def opening(self) -> ChunkChoice:
        """Before any token."""
        return self._choice({"role": "assistant", "content": ""}, None)

    def push(self, token: Token) -> ChunkChoice | None:
        """The next token; None where it shows nothing yet."""
        if self.logprobs is not None and token.id not in self._stop_ids:
            self.logprobs.append(token_logprob(token, self._n_top, self._token_bytes))
        text = token.text
        if self._tools is not None:
            text = self._tools.push(self._markers.get(token.id, "") + text)
        if not text:
            return None
        self.content += text
        return self._choice({"content": text}, None)

    def end(self, reason: Reason) -> list[ChunkChoice]:
        """ToolCallError: what ought to be calls is none."""
        choices = []
        if self._tools is not None:
            text, self.tool_calls = self._tools.end(is_whole=reason == "stop")
            if text:
                self.content += text
                choices.append(self._choice({"content": text}, None))
            if self.tool_calls:
                calls: list[ToolCall] = [
                    {**call, "index": at} for at, call in enumerate(self.tool_calls)
                ]
                choices.append(self._choice({"tool_calls": calls}, None))
        self.finish_reason = "stop" if reason == "stop" else "length"
        if self.tool_calls:
            self.finish_reason = "tool_calls"
        return [*choices, self._choice({}, self.finish_reason)]

    def _choice(self, delta: Delta, finish_reason: FinishReason | None) -> ChunkChoice:
        new = None if self.logprobs is None else self.logprobs[self._n_said :]
        self._n_said += len(new or [])
        return {
            "index": self.index,
            "delta": delta,
            "logprobs": {"content": new, "refusal": None} if new else None,
            "finish_reason": finish_reason,
        }


def token_logprob(token: Token, n_top: int, token_bytes: TokenBytes) -> TokenLogprob:
    """The first `n_top` of the token's alternatives beside it."""
    top = [top_logprob(one, value, token_bytes) for one, value in token.top_logprobs[:n_top]]
    own = top_logprob(token.id, token.logprob, token_bytes)
    return {**own, "top_logprobs": top}


def top_logprob(token_id: int, logprob: float, token_bytes: TokenBytes) -> TopLogprob:
    """A part of a character shows as U+FFFD; the bytes are exact."""
    raw = token_bytes(token_id)
    return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}
