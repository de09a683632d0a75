"""A model as tasks see it: under a name, with the formats of its conversations remembered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..chat_format import ChatFormat, ChatPrompt
from ..options import GenerateArguments
from ..scoring import PromptScore

if TYPE_CHECKING:
    from ..model import Model
    from ..stream import TokenStream
    from .task import Together

_MAX_FORMATS = 8
_lock = Lock()
_formats: WeakKeyDictionary[Model, dict[str | Path | None, ChatFormat]] = WeakKeyDictionary()


class ModelView:
    """`name`: what objects call it. `template`: as `Model.chat()` takes it."""

    def __init__(self, model: Model, name: str, template: str | Path | None = None) -> None:
        self.model = model
        self.name = name
        self.fingerprint = f"edgellm-{model._native.root[:16]}"
        self.n_ctx = model._native.n_ctx_train
        self._template = template

    @property
    def together(self) -> Together:
        """How several texts are computed at once."""
        return self.model._together

    def chat_prompt(self, messages: list[dict[str, Any]], **options: Any) -> ChatPrompt:
        """TemplateError, FormatError, InvalidArgumentError."""
        return chat_format(self.model, self._template).prompt(messages, **options)

    def tokenize(self, text: str) -> list[int]:
        """With what the model expects in front."""
        return self.model.tokenize(text)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Special tokens left out."""
        return self.model.detokenize(ids)

    def token_bytes(self, token_id: int) -> bytes:
        """Special tokens as they are spelled."""
        return self.model.token_bytes(token_id)

    def start(self, ids: list[int], arguments: GenerateArguments) -> TokenStream:
        """One text."""
        return self.model.stream(ids, **arguments)

    def prompt_scores(self, prompts: Sequence[Sequence[int]], n_top: int) -> list[PromptScore]:
        """How likely the tokens of prompts are."""
        return self.model._prompt_scores(prompts, n_top)


def chat_format(model: Model, template: str | Path | None) -> ChatFormat:
    """Of a model: making one looks at its whole vocabulary."""
    with _lock:
        known = _formats.setdefault(model, {})
        form = known.get(template)
        if form is None:
            form = ChatFormat.of(model._native, model._tokenizer(), model._path, template)
            if len(known) >= _MAX_FORMATS:
                known.clear()
            known[template] = form
    return form
