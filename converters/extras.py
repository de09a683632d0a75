"""What travels beside the weights: tokenizer, chat template, recipe, and digests of the inputs."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any

from edgellm.errors import Cancelled, FormatError, UnsupportedError

from .checkpoint import Checkpoint
from .embedding import embedding_files, read_embedding
from .plan import Job

if TYPE_CHECKING:
    from pathlib import Path

    from .tokenizer import CompiledTokenizer

HASH_CHUNK_BYTES = 1 << 20
# What the reader takes (edgellm/chat_template.py).
TOKEN_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
MAX_TOKEN_BYTES = 512
INPUT_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def text_blobs(job: Job) -> dict[str, bytes]:
    """Everything beside the tensors whose content is known before they are encoded."""
    blobs: dict[str, bytes] = {}
    checkpoint = job.checkpoint
    compiled = _compile_tokenizer(checkpoint)
    if compiled is not None:
        if compiled.n_vocab > job.spec.n_vocab:
            raise FormatError(
                f"{checkpoint.directory}: the tokenizer has {compiled.n_vocab} tokens, config.json "
                f"says vocab_size {job.spec.n_vocab}",
                code="tokenizer_invalid",
            )
        blobs["tokenizer"] = compiled.blob
        vectors = [{"text": item.text, "ids": list(item.ids)} for item in compiled.vectors]
        blobs["vectors"] = json.dumps(vectors, separators=(",", ":")).encode()
    else:
        job.warnings.append("no tokenizer files: the file will accept and return token ids only")
    tokens = special_tokens(job)
    if tokens:
        blobs["special_tokens"] = json.dumps(tokens, ensure_ascii=False, sort_keys=True).encode()
    embedding = read_embedding(checkpoint)
    if embedding is not None:
        blobs["embedding"] = json.dumps(embedding, sort_keys=True).encode()
        if "left_out" in embedding:
            job.warnings.append(f"embeddings: left out is {embedding['left_out']}")
    template = chat_template(job)
    if template is not None:
        blobs["chat_template"] = template.encode()
    blobs["recipe"] = job.recipe.to_json().encode()
    return blobs


def _compile_tokenizer(checkpoint: Checkpoint) -> CompiledTokenizer | None:
    try:
        source = checkpoint.tokenizer_description()
        if source is None:
            return None
        from .tokenizer import compile_description
    except ImportError as error:  # the tokenizers package, of the "convert" extra
        raise UnsupportedError(
            f"compiling a tokenizer needs more packages ({error}): pip install 'edgellm[convert]'",
            code="tokenizer_unsupported",
        ) from error
    return compile_description(source, None)


def special_tokens(job: Job) -> dict[str, str]:
    """The names that a chat template may print: tokenizer_config.json's, else the older file's."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        values = job.checkpoint.optional_json(name)
        for role in TOKEN_ROLES:
            value = values.get(role)
            text = value.get("content") if isinstance(value, dict) else value
            if text is None or text == "":
                continue
            if not isinstance(text, str) or not _is_short_utf8(text):
                raise FormatError(
                    f"{name}: {role!r} must be a text of at most {MAX_TOKEN_BYTES} bytes",
                    code="json_type",
                )
            tokens[role] = text
    return tokens


def _is_short_utf8(text: str) -> bool:
    try:
        return len(text.encode()) <= MAX_TOKEN_BYTES
    except UnicodeEncodeError:  # JSON may hold half of a surrogate pair
        return False


def chat_template(job: Job) -> str | None:
    """chat_template.jinja, else tokenizer_config.json's, as transformers looks for it."""
    text = job.checkpoint.optional_text("chat_template.jinja")
    if text is not None:
        return text
    value = job.checkpoint.optional_json("tokenizer_config.json").get("chat_template")
    if isinstance(value, list):
        named = {
            entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)
        }
        others = sorted(str(name) for name in named if name != "default")
        if others:
            job.warnings.append(f"chat templates left out: {', '.join(others)}")
        value = named.get("default")
    if value is None or isinstance(value, str):
        return value or None
    raise FormatError("tokenizer_config.json: 'chat_template' must be a string", code="json_type")


def checkpoint_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over the digests of every input file."""
    with SourceDigests(checkpoint) as digests:
        text = json.dumps(digests.result(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class SourceDigests:
    """SHA-256 of every input file, on a thread of its own."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        names = (*INPUT_FILES, *embedding_files(checkpoint))
        named = {name: checkpoint.directory / name for name in names}
        self.paths = {name: path for name, path in named.items() if path.exists()}
        self.paths |= {path.name: path for path in checkpoint.weight_paths}
        self._digests: dict[str, dict[str, Any]] = {}
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgellm-digest", daemon=True)

    def __enter__(self) -> SourceDigests:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def result(self) -> dict[str, dict[str, Any]]:
        """Waits for the last file."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._digests

    def _run(self) -> None:
        try:
            for name, path in self.paths.items():
                self._digests[name] = self._digest(path)
        except OSError as error:
            self._error = FormatError(f"cannot be read: {error}", code="file_unreadable")
        except Cancelled as error:
            self._error = error

    def _digest(self, path: Path) -> dict[str, Any]:
        digest, n_bytes = hashlib.sha256(), 0
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(HASH_CHUNK_BYTES):
                if self._stop.is_set():
                    raise Cancelled(f"{path}: digest stopped")
                digest.update(chunk)
                n_bytes += len(chunk)
        return {"sha256": digest.hexdigest(), "n_bytes": n_bytes}
