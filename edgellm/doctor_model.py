"""What `edgellm doctor MODEL` finds out about one file: structure, bytes, memory, text, numbers.

The order is that of trust: nothing of a file is used before what it rests on has been checked, and
the first failure ends the diagnosis of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from .cpu import load_native
from .doctor import Check, guarded
from .doctor_scores import StoredScores, compared, parse_scores
from .edgefile import read_header, read_tensor
from .edgeheader import EdgeHeader
from .errors import FormatError, MemoryBudgetError, NumericError
from .locate import explained, resolve
from .model import Model
from .opening import Opened
from .options import LoadOptions
from .planner import KvGroup, MemoryPlan, mib
from .strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from .signature import RequireSignature

_SMOKE_TOKENS = 16
_GET_AGAIN = "get the file again, or convert it again"
MAX_VECTORS = 100_000


def check_model(
    name: str, max_memory: int | None = None, require_signature: RequireSignature = None
) -> Iterator[Check]:
    """The checks of one model, up to the first failure; first whether it is signed, where that is
    required."""
    path = resolve(name)
    options = LoadOptions(
        max_memory=max_memory, verify="never", require_signature=require_signature
    )
    steps: tuple[tuple[str, str, Callable[[], Iterator[Check]]], ...] = (
        ("signature", _GET_AGAIN, lambda: _signature(path, require_signature)),
        ("structure", "edgellm convert makes a new one", lambda: _structure(path)),
        ("hashes", _GET_AGAIN, lambda: _hashes(path)),
        ("memory plan", "free memory, or take a smaller file", lambda: _memory(path, options)),
        ("tokenizer", "convert the model again", lambda: _tokenizer(path)),
        ("smoke run", "convert the model again", lambda: _smoke_run(path, options)),
    )
    for step, fix, check in steps:
        for finding in guarded(step, fix, check):
            yield finding
            if finding.verdict == "failure":
                return


def _signature(path: Path, required: RequireSignature) -> Iterator[Check]:
    if required is None:
        return
    from .signature import signed_file, signers_of

    signers = signers_of(required)
    if signers is not None:
        with signed_file(path, signers):
            yield Check("signature", "ok", f"every byte is what was signed, as {required} asks for")


def _structure(path: Path) -> Iterator[Check]:
    with explained(path):
        header = read_header(path)
        load_native().EdgeFile(path)  # the reader that will be used; both must accept the file
    kinds = sorted({t.format for t in header.tensors.values()} - {"F32", "U8"})
    found = (
        f"{header.path}, {mib(header.file_bytes)}, format version {header.version}, "
        f"{len(header.tensors)} tensors in {', '.join(kinds)}"
    )
    yield Check("structure", "ok", found)


def _hashes(path: Path) -> Iterator[Check]:
    result = load_native().verify_file(path)
    found = (
        f"all {result['n_leaves']} match, in {result['verify_ms']:.0f} ms; root {result['root']}"
    )
    yield Check("hashes", "ok", found)


def _memory(path: Path, options: LoadOptions) -> Iterator[Check]:
    max_memory = options.max_memory
    available = load_native().memory_figures()["available_bytes"]
    limit = available if max_memory is None else min(available, max_memory)
    Opened(path, options).close()  # refuses with advice what would not fit at all
    plan = _exact_plan(path, replace(options, max_memory=None), limit)
    fixed = f"file {mib(plan.file_bytes)}, scratch {mib(plan.scratch_bytes)}, {plan.kv_text}"
    if plan.n_ctx_fit < plan.n_ctx_train:
        found = f"{fixed}; {mib(limit)} hold {plan.n_ctx_fit} of {plan.n_ctx_train} tokens"
        fix = "keep prompts shorter than that, free memory, or take a smaller format"
        yield Check("memory plan", "warning", found, fix)
    else:
        found = f"{fixed}; {mib(plan.full_bytes)} with all {plan.n_ctx_train} tokens of context"
        yield Check("memory plan", "ok", found)


def _exact_plan(path: Path, options: LoadOptions, limit_bytes: int) -> MemoryPlan:
    """With the runtime's own figures instead of the bounds that the header gives."""
    opened = Opened(path, options)
    native = opened.native
    try:
        return MemoryPlan(
            file_bytes=native.file_bytes,
            scratch_bytes=native.scratch_bytes,
            session_bytes=native.session_bytes,
            kv_groups=tuple(KvGroup(*group) for group in native.kv_groups),
            n_ctx_train=native.n_ctx_train,
            limit_bytes=limit_bytes,
        )
    finally:
        opened.close()


def _tokenizer(path: Path) -> Iterator[Check]:
    header = read_header(path)
    if "tokenizer" not in header.tensors:
        fix = "convert the model again from a directory with its tokenizer"
        yield Check("tokenizer", "warning", "none: the file takes and gives token ids only", fix)
        return
    tokenizer = load_native().Tokenizer.from_blob(bytes(read_tensor(header, "tokenizer")))
    if "vectors" not in header.tensors:
        found = f"{tokenizer.n_vocab} tokens; the file has no examples to compare with"
        yield Check("tokenizer", "warning", found, "convert the model again")
        return
    vectors = _vectors(header)
    for text, ids in vectors:
        got = tokenizer.encode(text, special=False, bos=False)
        if got != ids:
            raise FormatError(
                f"{text[:60]!r} gives {got[:12]}, the original tokenizer gave {ids[:12]}",
                code="tokenizer_invalid",
            )
    yield Check("tokenizer", "ok", f"{tokenizer.n_vocab} tokens; {len(vectors)} examples all equal")
    if "chat_template" in header.tensors:
        yield Check("chat template", "ok", "present")
    else:
        yield Check("chat template", "ok", "none: the model continues text, it is not made to chat")


def _vectors(header: EdgeHeader) -> list[tuple[str, list[int]]]:
    """Texts and the ids that the original tokenizer gave them."""
    rows = parse_json(bytes(read_tensor(header, "vectors")), "vectors")
    if not isinstance(rows, list) or len(rows) > MAX_VECTORS:
        raise FormatError("the tokenizer's examples are no list", code="json_type")
    pairs = []
    for row in rows:
        text, ids = (row.get("text"), row.get("ids")) if isinstance(row, dict) else (None, None)
        if not isinstance(text, str) or not isinstance(ids, list):
            raise FormatError("an example of the tokenizer is no text with ids", code="json_type")
        numbers = [i for i in ids if isinstance(i, int)]
        if len(numbers) != len(ids):
            raise FormatError("an example of the tokenizer has an id like no id", code="json_type")
        pairs.append((text, numbers))
    return pairs


def _stored_scores(path: Path) -> StoredScores | None:
    header = read_header(path)
    if "scores" not in header.tensors:
        return None
    return parse_scores(bytes(read_tensor(header, "scores")), path)


def _smoke_run(path: Path, options: LoadOptions) -> Iterator[Check]:
    """Some tokens through every layer: the numbers must be finite, and those that the converter got
    if it left them in the file."""
    import numpy as np

    stored = _stored_scores(path)
    started = perf_counter()
    with Model(path, replace(options, kv="F16")) as model:
        info = model.info()
        if stored is None:
            n_tokens = min(_SMOKE_TOKENS, info.n_ctx)
            step = max(1, info.n_vocab // n_tokens)
            ids = [i * step % info.n_vocab for i in range(n_tokens)]
        else:
            ids = stored.ids
        is_headless = read_header(path).spec.get("headless") is True
        try:
            scores = model.embed(ids, pooling="mean") if is_headless else model.logits(ids)
        except MemoryBudgetError:
            found = f"not run: {len(ids)} tokens of context do not fit"
            yield Check("smoke run", "warning", found, "free memory, or take a smaller format")
            return
    if not np.isfinite(scores).all():
        raise NumericError("the scores of the next token are not finite", code="numeric")
    found = (
        f"{len(ids)} tokens with {info.isa} on {info.threads} threads in "
        f"{(perf_counter() - started) * 1e3:.0f} ms, loading included; all scores are finite"
    )
    yield Check("smoke run", "ok", found)
    if stored is not None:
        yield compared(stored, scores)
