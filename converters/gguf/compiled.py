"""A compiled tokenizer, as it stands in an `.edge` file, described again for writing GGUF.

Tokens and merges are read from its tables. The patterns that cut texts are not: of those that
llama.cpp has names for, the one is taken that compiles to the same tables. What is described is
proven: compiled again from the keys of GGUF it must give the same ids and texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgellm.errors import UnsupportedError

from ..tokenizer import Description, build_blob
from ..tokenizer.blob import OpKind, Section, TextOp, TokenFlag, pack_classes, pack_ops
from ..tokenizer.bpe_files import bpe_model, byte_level
from ..tokenizer.compile import cut_sections
from ..tokenizer.components import Pipeline, read_pipeline
from ..tokenizer.executor import BlobTokenizer, read_sections
from ..tokenizer.files import bos_template, description, plain_added
from ..tokenizer.proof import HARD_STRINGS, load_native, random_strings
from ..tokenizer.regex_dfa import make_partition
from ..tokenizer.vocabulary import byte_characters
from .pre_tokenizers import DIGIT, PRE_TOKENIZERS, PreTokenizer, gpt2_pattern
from .tokenizer import Vocabulary

Json = dict[str, Any]

N_PROOF_STRINGS = 1000


def describe_compiled(path: Path, blob: bytes) -> Description:
    """path: for messages. FormatError: the tables are damaged. UnsupportedError: what cannot be
    said in the keys of GGUF."""
    load_native(blob)  # checks every table; what follows trusts them
    tables = BlobTokenizer(blob)
    if tables.unigram is not None:
        raise _refused(path, "a model 'Unigram'")
    texts = _texts(tables)
    vocab = {text: id_ for id_, text in texts.items()}
    merges = [
        [texts[left], texts[right]]
        for (left, right), _ in sorted(tables.merges.items(), key=lambda item: item[1][0])
    ]
    unknown = None if tables.unk_id is None else texts[tables.unk_id]
    options: Json = {
        "unk_token": unknown,
        "fuse_unk": tables.fuse_unk,
        "byte_fallback": tables.byte_fallback,
    }
    parts: dict[str, Json | None]
    if tables.byte_alphabet:
        pre = _pre_tokenizer(path, read_sections(blob), tables)
        options["ignore_merges"] = pre.ignore_merges
        parts = {
            "normalizer": {"type": pre.normalizer} if pre.normalizer else None,
            "pre_tokenizer": pre.component(prefix_space=False),
            "decoder": byte_level(True, True),
        }
    else:
        parts = {"normalizer": _normalizer(path, tables.normalizer), "pre_tokenizer": None}
    added = [
        plain_added(id_, texts[id_], special=bool(flags & 1))
        for entries in tables.added
        for id_, flags in sorted(entries.values())
    ]
    around = _template(path, texts, tables.prefix, tables.suffix)
    data = description(bpe_model(vocab, merges, **options), added, post_processor=around, **parts)
    return Description(path, data)


def check_same(path: Path, blob: bytes, keys: Mapping[str, Any]) -> None:
    """keys: a file's, "tokenizer.ggml." in front. UnsupportedError: a text that the tokenizer of
    the keys reads otherwise than the compiled one."""
    source = Vocabulary(path, keys).description()
    assert source is not None
    again = build_blob(path, source.data, Tokenizer.from_str(json.dumps(source.data)))
    ours, theirs = load_native(blob), load_native(again)
    names = [entry["content"] for entry in source.data["added_tokens"]][:64]
    for text in (*HARD_STRINGS, *random_strings(0, N_PROOF_STRINGS, names)):
        ids = ours.encode(text, False, True)
        same = ids == theirs.encode(text, False, True)
        if not same or ours.decode(ids, False) != theirs.decode(ids, False):
            raise _refused(path, f"what it does with {text[:60]!r}")


def _texts(tables: BlobTokenizer) -> dict[int, str]:
    """Of all tokens but the holes, as tokenizer.json spells them."""
    shown = byte_characters()
    found = {}
    for id_, raw in enumerate(tables.texts):
        flags = tables.flags[id_]
        if flags & TokenFlag.ABSENT:
            continue
        spelt = tables.byte_alphabet and not flags & TokenFlag.LITERAL
        found[id_] = "".join(shown[byte] for byte in raw) if spelt else raw.decode()
    return found


def _pre_tokenizer(
    path: Path, sections: Mapping[int, bytes], tables: BlobTokenizer
) -> PreTokenizer:
    """The one of llama.cpp's that compiles to these tables."""
    made = {id_ for _, id_ in tables.merges.values()}
    added = {id_ for entries in tables.added for id_, _ in entries.values()}
    words = [
        (id_, bool(flags & TokenFlag.WHOLE))
        for id_, (flags, raw) in enumerate(zip(tables.flags, tables.texts, strict=True))
        if id_ not in added and len(raw) > 1
    ]
    may_ignore = all(is_whole for _, is_whole in words)
    must_ignore = any(is_whole and id_ not in made for id_, is_whole in words)
    fitting = [
        kind
        for kind in dict.fromkeys(PRE_TOKENIZERS.values())
        if (may_ignore if kind.ignore_merges else not must_ignore)
    ]
    for kind in sorted(fitting, key=lambda kind: not kind.ignore_merges):
        normalizer = {"type": kind.normalizer} if kind.normalizer else None
        for component in _components(kind):
            pipeline = read_pipeline(path, {"normalizer": normalizer, "pre_tokenizer": component})
            if _is_cut_so(pipeline, sections):
                return kind
    raise _refused(path, "its way to cut texts, for which llama.cpp has no name,")


def _is_cut_so(pipeline: Pipeline, sections: Mapping[int, bytes]) -> bool:
    """Cheap questions first: most pipelines tell apart other characters."""
    if pack_ops(pipeline.pre_tokenizer) != sections[Section.PRE_TOKENIZER]:
        return False
    if pack_classes(make_partition(pipeline.regexes))[1] != sections[Section.CLASS_BLOCKS]:
        return False
    return all(sections.get(key) == table for key, table in cut_sections(pipeline).items())


def _components(kind: PreTokenizer) -> list[Json]:
    """As tokenizer.json has it; where digits stand apart, there is another way to say so."""
    usual = kind.component(prefix_space=False)
    if kind.patterns != (DIGIT, gpt2_pattern()):
        return [usual]
    digits = {"type": "Digits", "individual_digits": True}
    return [usual, {"type": "Sequence", "pretokenizers": [digits, byte_level(False, True)]}]


def _normalizer(path: Path, ops: list[TextOp]) -> Json | None:
    """Of pieces: what SentencePiece's tokenizers do to a text."""
    found: list[Json] = []
    for op in ops:
        if op.kind == OpKind.PREPEND:
            found.append({"type": "Prepend", "prepend": op.a})
        elif op.kind == OpKind.REPLACE:
            found.append({"type": "Replace", "pattern": {"String": op.a}, "content": op.b})
        else:
            raise _refused(path, "its normalizer")
    return {"type": "Sequence", "normalizers": found} if found else None


def _template(
    path: Path, texts: Mapping[int, str], prefix: list[int], suffix: list[int]
) -> Json | None:
    if len(prefix) > 1 or len(suffix) > 1:
        raise _refused(path, "several tokens around every text")
    if not prefix and not suffix:
        return None
    ids = {text: id_ for id_, text in texts.items()}
    before, behind = (texts[ids_[0]] if ids_ else None for ids_ in (prefix, suffix))
    return bos_template(path, before, behind, ids)


def _refused(path: Path, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{path}: {what} cannot be written to GGUF", code="tokenizer_unsupported"
    )
