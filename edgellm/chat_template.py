"""ChatTemplate: a conversation in, the text that the model was trained on out.

Cut into pieces, so that only the template's own special tokens become special; `encode_pieces`
turns those into ids. Knows nothing of KV caches or sampling. jinja2 is imported on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FormatError, InvalidArgumentError, TemplateError
from .placeholders import Marks, Piece, plain_data, special_pattern
from .strict_json import parse_json

if TYPE_CHECKING:
    from . import _native

Message = Mapping[str, Any]

CHATML_NAME = "chatml"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_END = "<|im_end|>"
REMEDY = (
    "for plain text use `edgellm run` (Model.generate), or choose a template: "
    "--template chatml|FILE (Model.chat(template=...))"
)
# Names under which templates look for a message's reasoning; the first is the usual one.
_REASONING = ("reasoning_content", "thinking", "reasoning")
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
# Of the blob "special_tokens" (docs/FORMAT.md).
TOKEN_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
MAX_TOKEN_BYTES = 512
_MAX_BLOB_BYTES = 8192


class ChatTemplate:
    """A template with the special tokens of its model. Threads may share it.

    `variables` are `bos_token`, `eos_token` and the like; `specials` are all strings that the
    tokenizer turns into special tokens. TemplateError says what is wrong with `source`.
    """

    def __init__(
        self,
        source: str,
        *,
        variables: Mapping[str, Any] | None = None,
        specials: Sequence[str] = (),
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        from .template_sandbox import TemplateSandbox

        self.source = source
        self._sandbox = TemplateSandbox(source)
        self._variables = dict(plain_data(variables or {}, "variables"))
        self._specials = tuple(specials)
        self._now = now

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """The text of a conversation; the options of `pieces()`."""
        return "".join(piece.text for piece in self.pieces(messages, **options))

    def pieces(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[Piece]:
        """The text of a conversation; what must stay plain text stands in pieces of its own.

        `continue_final_message`: end inside the last message, for the model to go on with it.
        `variables`: more names for the template (`enable_thinking`).
        """
        if continue_final_message and add_generation_prompt:
            message = "continue_final_message and add_generation_prompt exclude each other"
            raise InvalidArgumentError(message, code="invalid_argument")
        chat = _with_reasoning(_messages(messages))
        data = {
            "messages": chat,
            "tools": None if tools is None else plain_data(list(tools), "tools"),
            "documents": None if documents is None else plain_data(list(documents), "documents"),
            **plain_data(variables or {}, "variables"),
        }
        final = _open_final(chat) if continue_final_message else None
        fixed = {**self._variables, "add_generation_prompt": add_generation_prompt}
        marks = Marks(self._specials, [data, self._variables], self.source)
        rendered = self._render(marks.hide_all(data), fixed, marks, final)
        if marks.n_specials(rendered):
            careful = marks.hide_all(data, edges=True)
            if careful != marks.hide_all(data):
                # Texts of two fields may meet and spell a special token between them.
                safe = self._render(careful, fixed, marks, final)
                if marks.n_specials(safe) != marks.n_specials(rendered):
                    rendered = safe
        return marks.pieces(rendered)

    def _render(
        self, data: Mapping[str, Any], fixed: Mapping[str, Any], marks: Marks, final: str | None
    ) -> str:
        rendered = self._sandbox.render({**fixed, **data}, marks=marks, now=self._now)
        if final is None:
            return rendered
        tag = _TAG.strip()
        if tag not in rendered or final.strip() not in marks.restore(rendered):
            message = "the chat template does not print the final message as it is; cannot go on"
            raise TemplateError(message, code="template_refused")
        at = rendered.rindex(tag)
        kept = rendered[at:].startswith(_TAG)
        return rendered[:at] if kept else rendered[:at].rstrip()


def template_source(template: str | Path | None, stored: bytes | None, where: Path) -> str:
    """The template to use: `template` (its text, "chatml", or a path) or the one in the file."""
    if template == CHATML_NAME:
        return CHATML
    if isinstance(template, str):
        return template
    if template is not None:
        try:
            stored, where = template.read_bytes(), template
        except OSError as error:
            message = f"{template}: cannot read the chat template: {error.strerror}"
            raise TemplateError(message, code="template_missing") from error
    if not stored:
        message = f"{where} has no chat template; {REMEDY}"
        raise TemplateError(message, code="template_missing")
    try:
        return stored.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{where}: the chat template is not UTF-8 at byte {error.start}; {REMEDY}"
        raise TemplateError(message, code="template_encoding") from error


def stored_tokens(blob: bytes | None, where: Path) -> dict[str, str]:
    """What the checkpoint called its `bos_token`, `eos_token` and so on; {} if the file is silent.

    The blob is hostile: FormatError where it is not a few short strings.
    """
    if blob is None:
        return {}
    name = f"{where}: special_tokens"
    if len(blob) > _MAX_BLOB_BYTES:
        message = f"{name}: {len(blob)} bytes, at most {_MAX_BLOB_BYTES}; convert the model again"
        raise FormatError(message, code="json_too_large")
    found = parse_json(blob, name)
    if not isinstance(found, dict):
        raise FormatError(f"{name}: not a JSON object; convert the model again", code="json_type")
    tokens = {}
    for key, text in found.items():
        short = isinstance(text, str) and 0 < len(text.encode()) <= MAX_TOKEN_BYTES
        if key not in TOKEN_ROLES or not short:
            message = f"{name}: {key!r} is not a token's role with a short text; convert again"
            raise FormatError(message, code="json_type")
        tokens[key] = str(text)
    return tokens


def template_tokens(
    model: _native.Model,
    tokenizer: _native.Tokenizer,
    source: str,
    given: Mapping[str, Any],
    stored: Mapping[str, str],
) -> dict[str, str]:
    """`bos_token`, `eos_token` and so on as the file knows them: as the checkpoint called them
    (`stored`), else by id. By id, a model that ends on several tokens does not say which of them
    its template means: then the caller must."""
    eos_ids = model.eos_ids
    told = "eos_token" in given or "eos_token" in stored
    if len(eos_ids) > 1 and "eos_token" in source and not told:
        names = ", ".join(repr(tokenizer.token_text(token_id)) for token_id in eos_ids)
        message = (
            f"the chat template writes eos_token and this model has several ({names}); "
            "say which one: Model.chat(variables={'eos_token': ...})"
        )
        raise TemplateError(message, code="template_refused")
    tokens = {}
    if model.bos_id is not None:
        tokens["bos_token"] = tokenizer.token_text(model.bos_id)
    if eos_ids:
        tokens["eos_token"] = tokenizer.token_text(eos_ids[0])
    return {**tokens, **stored}


class PieceEncoder:
    """Pieces to ids: special tokens come from pieces of the template only."""

    def __init__(self, tokenizer: _native.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.special_ids = {
            tokenizer.token_text(token_id): token_id
            for token_id in range(tokenizer.n_vocab)
            if tokenizer.is_special(token_id)
        }
        self.specials = tuple(self.special_ids)
        self._ids = frozenset(self.special_ids.values())
        self._pattern = special_pattern(self.specials)
        self._newline = tokenizer.encode("\n", special=False, bos=False)
        # SentencePiece's habit of a space before every text; inside one it must not come.
        after_newline = tokenizer.encode("\na", special=False, bos=False)[len(self._newline) :]
        self._adds_space = after_newline != tokenizer.encode("a", special=False, bos=False)

    def encode(self, pieces: Sequence[Piece], *, at_start: bool = True) -> list[int]:
        """Ids of `pieces`. `at_start=False`: they continue a text."""
        ids: list[int] = []
        for at, piece in enumerate(pieces):
            inside = at > 0 or not at_start
            found = self._encode(piece.text, special=not piece.plain, inside=inside)
            if not piece.plain:
                n_written = len(self._pattern.findall(piece.text))
                if sum(token_id in self._ids for token_id in found) > n_written:
                    # A normalizer has made a special token of something else: keep it out.
                    found = self._encode_apart(piece.text, inside=inside)
            ids += found
        return ids

    def _encode_apart(self, text: str, *, inside: bool) -> list[int]:
        ids: list[int] = []
        end = 0
        for found in self._pattern.finditer(text):
            ids += self._plain(text[end : found.start()], inside or end > 0)
            ids.append(self.special_ids[found.group()])
            end = found.end()
        return ids + self._plain(text[end:], inside or end > 0)

    def _plain(self, text: str, inside: bool) -> list[int]:
        return self._encode(text, special=False, inside=inside) if text else []

    def _encode(self, text: str, *, special: bool, inside: bool) -> list[int]:
        if inside and self._adds_space:
            ids = self._tokenizer.encode("\n" + text, special=special, bos=False)
            if ids[: len(self._newline)] == self._newline:
                return ids[len(self._newline) :]
        return self._tokenizer.encode(text, special=special, bos=False)


def turn_ends(
    eos_ids: Sequence[int], source: str, encoder: PieceEncoder
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Stop ids and stop strings of a turn: the model's, and the one that ChatML writes."""
    if source != CHATML:
        return tuple(eos_ids), ()
    end = encoder.special_ids.get(CHATML_END)
    return (tuple(eos_ids), (CHATML_END,)) if end is None else (tuple({*eos_ids, end}), ())


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    chat = plain_data(list(messages), "messages")
    for at, message in enumerate(chat):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            text = f"messages[{at}] must be a mapping with a 'role', such as 'user'"
            raise InvalidArgumentError(text, code="invalid_argument")
    return list(chat)


def _with_reasoning(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reasoning under every name that templates know, as transformers has it."""
    result = []
    for message in chat:
        found = next((message[key] for key in _REASONING if message.get(key) is not None), None)
        if found is not None:
            message = {"thinking": found, **message, "reasoning_content": found}
        result.append(message)
    return result


def _open_final(chat: list[dict[str, Any]]) -> str:
    """Tag the end of the last message's text; returns that text."""
    content = chat[-1].get("content") if chat else None
    if isinstance(content, str):
        chat[-1]["content"] = content + _TAG
        return content
    for block in reversed(content if isinstance(content, list) else []):
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            text = str(block["text"])
            block["text"] = text + _TAG
            return text
    message = "continue_final_message needs a last message with text to go on from"
    raise InvalidArgumentError(message, code="invalid_argument")
