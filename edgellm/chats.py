"""The chats of a model: new ones, and those that come back from disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .adapter import Adapter
from .chat import Chat, OverflowPolicy
from .chat_template import stored_tokens, template_source, template_tokens
from .errors import InvalidArgumentError, SessionError
from .transcript import Transcript, template_digest

if TYPE_CHECKING:
    from . import _native

_OTHER_TEMPLATE = (
    "was saved with another chat template; give the one it was saved with as template=, or restore "
    "it with kv=False, which reads the whole conversation again"
)


def new_chat(
    native: _native.Model,
    tokenizer: _native.Tokenizer,
    where: Path,
    *,
    template: str | Path | None,
    variables: Mapping[str, Any] | None,
    kind: type[Chat] = Chat,
    **rest: Any,
) -> Chat:
    """`Model.chat()`; `where` is the model's file, for messages, and `rest` goes to `kind`."""
    source = template_source(template, native.blob("chat_template"), where)
    stored = stored_tokens(native.blob("special_tokens"), where)
    tokens = template_tokens(native, tokenizer, source, variables or {}, stored)
    return kind(native, tokenizer, source, tokens=tokens, variables=variables, **rest)


def restored_chat(
    native: _native.Model,
    tokenizer: _native.Tokenizer,
    where: Path,
    path: str | os.PathLike[str],
    *,
    kv: bool,
    template: str | Path | None,
    adapter: Adapter | None,
    namespace: str,
) -> Chat:
    """`Model.restore()`: the chat in the file at `path`, whole or not at all."""
    from . import _native

    name = os.fsdecode(path)
    file = _native.SessionFile.open(path)
    transcript = Transcript.from_json(file.note, name)
    source = template_source(template, native.blob("chat_template"), where)
    if kv and template_digest(source) != transcript.template:
        raise SessionError(f"{name}: {_OTHER_TEMPLATE}", code="session_mismatch")
    try:
        chat = new_chat(
            native,
            tokenizer,
            where,
            template=source,
            variables=transcript.variables,
            system=transcript.system,
            tools=transcript.tools,
            documents=transcript.documents,
            n_ctx=transcript.n_ctx,
            policy=cast("OverflowPolicy | None", transcript.policy),
            adapter=adapter,
            namespace=namespace,
            started=transcript.started,
        )
    except InvalidArgumentError as error:
        message = f"{name}: this chat cannot go on with this model: {error}"
        raise SessionError(message, code="session_invalid") from error
    try:
        chat._resume(transcript, file, kv=kv)
    except BaseException:
        chat.close()
        raise
    return chat
