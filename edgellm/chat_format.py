"""How a model is talked to: its chat template, the encoder of what the template writes, and what
ends a turn. Of a whole chat, or of single conversations, which `ChatPrompt` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .chat_template import (
    REMEDY,
    ChatTemplate,
    Message,
    PieceEncoder,
    stored_tokens,
    template_source,
    template_tokens,
    turn_ends,
)
from .errors import TemplateError

if TYPE_CHECKING:
    from . import _native


@dataclass(frozen=True)
class ChatPrompt:
    """A conversation as the model reads it: `ids` of the `text`, and what ends the reply. `source`
    is the template's, `special_ids` are the tokens that a reply's text leaves out, by spelling."""

    ids: list[int]
    text: str
    stop_ids: tuple[int, ...]
    stop: tuple[str, ...]
    source: str
    special_ids: Mapping[str, int]


class ChatFormat:
    """Of one model and one template. Threads may share it. TemplateError, FormatError."""

    def __init__(
        self,
        tokenizer: _native.Tokenizer,
        source: str,
        eos_ids: Sequence[int],
        *,
        variables: Mapping[str, Any] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`variables`: `bos_token` and the like, and what else the template is to know."""
        self.source = source
        self.encoder = PieceEncoder(tokenizer)
        try:
            self.template = ChatTemplate(
                source, variables=variables, specials=self.encoder.specials, now=now
            )
        except TemplateError as error:
            raise TemplateError(f"{error}; {REMEDY}", code=error.code) from error
        self.stop_ids, self.stop = turn_ends(eos_ids, source, self.encoder)

    @classmethod
    def of(
        cls,
        native: _native.Model,
        tokenizer: _native.Tokenizer,
        where: Path,
        template: str | Path | None,
    ) -> ChatFormat:
        """Of the model in the file `where`, with `template` as `Model.chat()` takes it."""
        source = template_source(template, native.blob("chat_template"), where)
        stored = stored_tokens(native.blob("special_tokens"), where)
        tokens = template_tokens(native, tokenizer, source, {}, stored)
        return cls(tokenizer, source, native.eos_ids, variables=tokens)

    def prompt(self, messages: Sequence[Message], **options: Any) -> ChatPrompt:
        """The options are those of `ChatTemplate.pieces()`."""
        pieces = self.template.pieces(messages, **options)
        return ChatPrompt(
            self.encoder.encode(pieces),
            "".join(piece.text for piece in pieces),
            self.stop_ids,
            self.stop,
            self.source,
            self.encoder.special_ids,
        )
