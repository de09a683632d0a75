"""What a chat remembers: going on from another past, and the tool calls in its replies."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .placeholders import Piece, plain_data, plain_pieces
from .transcript import Exchange, Turn

if TYPE_CHECKING:
    from . import _native
    from .chat_format import ChatFormat
    from .chat_template import PieceEncoder
    from .completions.types import JsonObject


class Recalling(ABC):
    """The past of a `Chat`."""

    _turns: tuple[Turn, ...]
    _tokenizer: _native.Tokenizer
    _format: ChatFormat
    _encoder: PieceEncoder
    _tools: Sequence[Any] | None

    @abstractmethod
    def _finished(self) -> tuple[Turn, ...]:
        """The transcript after ending a reply still under way."""

    @abstractmethod
    def _composed(
        self, turns: tuple[Turn, ...], message: dict[str, Any], n_dropped: int
    ) -> tuple[tuple[Piece, ...], list[int]]:
        """What a prompt for `message` after `turns` is made of, and its ids."""

    def recall(self, past: Sequence[Turn | Exchange]) -> None:
        """Go on from `past` instead of what was said: another branch, a chat of another day or of
        another model, a reply that was rewritten. The KV of what begins alike is used.

        Turns must be of this chat and stay as they are; with the first `Exchange` the rest is read
        anew. InvalidArgumentError: a message that is no plain data; TemplateError.
        """
        self._finished()
        done: tuple[Turn, ...] = ()
        is_same = True
        for one in past:
            is_same = is_same and isinstance(one, Turn)
            done = (*done, one if is_same and isinstance(one, Turn) else self._read(done, one))
        self._turns = done

    def tool_calls(self, turn: Turn) -> list[tuple[str, JsonObject]]:
        """The calls in the reply of `turn`, one of `turns`: names of `tools` and arguments.

        UnsupportedError: the template writes calls in a way that is not read. InvalidArgumentError:
        a tool is not what OpenAI's are. ToolCallError: what ought to be a call is none."""
        from . import _native
        from .completions.fields import Fields
        from .completions.tool_formats import format_of
        from .completions.tool_reader import ToolReader
        from .completions.tools import take_tools

        tools = take_tools(Fields({"tools": list(self._tools or ())}))
        if tools is None:
            return []
        reader = ToolReader(format_of(self._format.source), tools.callable)
        spelled = _native.StreamDecoder(self._tokenizer, True)
        for token_id in turn.reply_ids:
            reader.push(spelled.push(token_id))
        reader.push(spelled.flush())
        calls = reader.end(is_whole=turn.finish_reason == "stop")[1]
        return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]

    def _read(self, done: tuple[Turn, ...], one: Turn | Exchange) -> Turn:
        """With the prompt and ids that this template and this tokenizer make of it."""
        message = plain_data(dict(one.message), "message")
        pieces, ids = self._composed(done, message, one.n_dropped)
        drawn = one.reply_ids if isinstance(one, Exchange) else None
        if drawn is not None and all(0 <= i < self._tokenizer.n_vocab for i in drawn):
            exact, reply_ids = True, tuple(drawn)
        else:
            reply = plain_pieces(one.reply, self._encoder.specials)
            exact, reply_ids = False, tuple(self._encoder.encode(reply, at_start=False))
        return Turn(
            message=message,
            reply=one.reply,
            reply_ids=reply_ids,
            prompt_ids=tuple(ids),
            prompt=pieces,
            finish_reason=one.finish_reason,
            n_dropped=one.n_dropped,
            exact=exact,
        )
