"""The parts of a `tokenizer.json` around its model, reduced to the operations of the blob.

Every component that has no exact counterpart is refused by name. Knows JSON, not tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm.errors import FormatError, UnsupportedError

from .blob import (
    DROP_GAPS,
    DROP_MATCHES,
    ONLY_AT_START,
    STRIP_END,
    STRIP_START,
    DecoderKind,
    DecoderSpec,
    OpKind,
    TextOp,
)
from .charsmap import decode_charsmap
from .normal_forms import FORMS
from .regex_syntax import (
    Alternatives,
    CharSet,
    Node,
    Repeat,
    Sequence_,
    literal_node,
    parse_regex,
)
from .unicode_classes import complement, mask_of, probe_digits, probe_spaces

# What ByteLevel(use_regex) splits with.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
Json = dict[str, Any]


@dataclass
class Pipeline:
    """Normalizer and pre-tokenizer as operations, with the regexes that SPLIT refers to."""

    normalizer: list[TextOp] = field(default_factory=list)
    pre_tokenizer: list[TextOp] = field(default_factory=list)
    regexes: list[Node] = field(default_factory=list)
    forms: list[str] = field(default_factory=list)  # that FORM refers to
    charsmap: bytes = b""  # that CHARSMAP refers to
    byte_level: bool = False

    @property
    def strips(self) -> bool:
        return any(op.kind == OpKind.STRIP for op in self.normalizer)

    @property
    def keeps_start(self) -> bool:
        """Whether what begins a normalized text always comes from where the text begins."""
        return not any(
            (op.kind == OpKind.STRIP and op.argument & STRIP_START)
            or (op.kind == OpKind.FORM and self.forms[op.argument] in ("StripAccents", "Nmt"))
            or (op.kind == OpKind.REPLACE and not op.b)
            or (op.kind == OpKind.REPLACE_MATCHES and not op.a)
            for op in self.normalizer
        )

    def add_split(self, node: Node, flags: int = 0) -> None:
        self.pre_tokenizer.append(TextOp(OpKind.SPLIT, len(self.regexes) | flags))
        self.regexes.append(node)


def refuse(path: Path, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{path}: {what} cannot be compiled exactly", code="tokenizer_unsupported"
    )


@contextmanager
def fields_of(path: Path, part: str) -> Iterator[None]:
    """HF fills in fields that a file leaves out, and does not look at all of them; we need them."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path}: {part}: a field is missing or has a wrong type: {error!r}",
            code="tokenizer_invalid",
        ) from error


def _flatten(component: Json | None, key: str) -> list[Json]:
    if component is None:
        return []
    if component["type"] == "Sequence":
        return [leaf for child in component[key] for leaf in _flatten(child, key)]
    return [component]


def read_pipeline(path: Path, data: Json) -> Pipeline:
    pipeline = Pipeline()
    for component in _flatten(data.get("normalizer"), "normalizers"):
        pipeline.normalizer.append(_normalizer_op(path, component, pipeline))
    for component in _flatten(data.get("pre_tokenizer"), "pretokenizers"):
        if pipeline.byte_level:
            raise refuse(path, f"pre-tokenizer {component['type']!r} after 'ByteLevel'")
        _add_pre_tokenizer(path, component, pipeline)
    return pipeline


def _normalizer_op(path: Path, component: Json, pipeline: Pipeline) -> TextOp:
    kind = component["type"]
    forms = pipeline.forms
    if kind == "Prepend":
        return TextOp(OpKind.PREPEND, a=component["prepend"])
    if kind == "Replace" and "Regex" in component["pattern"]:
        pipeline.regexes.append(parse_regex(component["pattern"]["Regex"]))
        number = len(pipeline.regexes) - 1
        return TextOp(OpKind.REPLACE_MATCHES, number, component["content"])
    if kind == "Replace":
        return TextOp(OpKind.REPLACE, a=_literal(path, component), b=component["content"])
    if kind in FORMS:
        if kind not in forms:
            forms.append(kind)
        return TextOp(OpKind.FORM, forms.index(kind))
    if kind == "Strip":
        start = STRIP_START if component["strip_left"] else 0
        return TextOp(OpKind.STRIP, start | (STRIP_END if component["strip_right"] else 0))
    if kind == "Precompiled":
        data = decode_charsmap(path, component["precompiled_charsmap"])
        if pipeline.charsmap not in (b"", data):
            raise refuse(path, "a second normalizer 'Precompiled'")
        pipeline.charsmap = data
        return TextOp(OpKind.CHARSMAP)
    raise refuse(path, f"normalizer {kind!r}")


def _literal(path: Path, component: Json) -> str:
    text = component["pattern"].get("String")
    if not text:
        raise refuse(path, f"{component['type']!r} with the pattern {component['pattern']!r}")
    return str(text)


def _add_pre_tokenizer(path: Path, component: Json, pipeline: Pipeline) -> None:
    kind = component["type"]
    if kind == "ByteLevel":
        pipeline.byte_level = True
        if component.get("add_prefix_space", True):
            pipeline.pre_tokenizer.append(TextOp(OpKind.PREPEND_UNLESS, a=" ", b=" "))
        if component.get("use_regex", True):
            pipeline.add_split(parse_regex(GPT2_PATTERN))
    elif kind == "Split":
        _add_split(path, component, pipeline)
    elif kind == "Digits":
        digit = CharSet(probe_digits())
        one_by_one = component.get("individual_digits", False)
        pipeline.add_split(digit if one_by_one else Repeat(digit, 1, None, True))
    elif kind == "WhitespaceSplit":
        pipeline.add_split(Repeat(CharSet(probe_spaces()), 1, None, True), DROP_MATCHES)
    elif kind == "Metaspace":
        _add_metaspace(path, component, pipeline)
    else:
        raise refuse(path, f"pre-tokenizer {kind!r}")


def _add_split(path: Path, component: Json, pipeline: Pipeline) -> None:
    pattern = component["pattern"]
    if "Regex" in pattern:
        node = parse_regex(pattern["Regex"])
    else:
        node = literal_node(_literal(path, component))
    behavior = component["behavior"].lower()
    if behavior == "removed":
        pipeline.add_split(node, DROP_GAPS if component.get("invert") else DROP_MATCHES)
    elif behavior == "isolated":
        pipeline.add_split(node)
    else:
        raise refuse(path, f"pre-tokenizer 'Split' with behavior {component['behavior']!r}")


def _prepend_scheme(component: Json) -> str:
    if component.get("add_prefix_space") is False:
        return "never"
    return str(component.get("prepend_scheme", "always"))


def _add_metaspace(path: Path, component: Json, pipeline: Pipeline) -> None:
    mark = component["replacement"]
    scheme = _prepend_scheme(component)
    if scheme == "first" and (pipeline.pre_tokenizer or not pipeline.keeps_start):
        raise refuse(path, "pre-tokenizer 'Metaspace' (first) after a component that cuts")
    pipeline.pre_tokenizer.append(TextOp(OpKind.REPLACE, a=" ", b=mark))
    if scheme != "never":
        argument = ONLY_AT_START if scheme == "first" else 0
        pipeline.pre_tokenizer.append(TextOp(OpKind.PREPEND_UNLESS, argument, mark, mark))
    if component.get("split", True):
        pipeline.add_split(_words_after(mark, runs=False))


def _words_after(mark: str, runs: bool) -> Node:
    """A mark (or a run of them) with what follows it up to the next mark."""
    one = CharSet(mask_of([ord(mark)]))
    other = CharSet(complement(one.mask))
    head = Repeat(one, 1, None, True) if runs else one
    return Alternatives(
        (Sequence_((head, Repeat(other, 0, None, True))), Repeat(other, 1, None, True))
    )


def add_word_split(pipeline: Pipeline, mark: str) -> None:
    """Cuts before each run of `mark`: only sound where no merge crosses such a place."""
    pipeline.add_split(_words_after(mark, runs=True))


def read_affixes(path: Path, data: Json) -> tuple[list[int], list[int]]:
    """Ids that the post-processor puts before and after a text."""
    prefix: list[int] = []
    suffix: list[int] = []
    n_templates = 0
    for component in _flatten(data.get("post_processor"), "processors"):
        kind = component["type"]
        if kind == "ByteLevel":  # changes offsets only
            continue
        if kind != "TemplateProcessing" or n_templates:
            raise refuse(path, f"post-processor {kind!r}")
        n_templates += 1
        seen_text = False
        for item in component["single"]:
            if "Sequence" in item:
                if seen_text or item["Sequence"]["id"] != "A":
                    raise refuse(path, "a template that repeats the text or takes a second one")
                seen_text = True
                continue
            ids = component["special_tokens"][item["SpecialToken"]["id"]]["ids"]
            (suffix if seen_text else prefix).extend(ids)
        if not seen_text:
            raise refuse(path, "a template without the text")
    return prefix, suffix


def read_decoder(path: Path, data: Json, byte_level: bool) -> DecoderSpec:
    leaves = _flatten(data.get("decoder"), "decoders")
    kinds = [leaf["type"] for leaf in leaves]
    if (kinds == ["ByteLevel"]) != byte_level:
        found = kinds or "none"
        raise refuse(path, f"decoder {found} with byte-level pre-tokenizer: {byte_level}")
    if not leaves:
        return DecoderSpec(DecoderKind.JOIN)
    if byte_level:
        return DecoderSpec(DecoderKind.BYTES)
    if kinds == ["Metaspace"]:
        drops_first = _prepend_scheme(leaves[0]) != "never"
        return DecoderSpec(
            DecoderKind.METASPACE if drops_first else DecoderKind.PIECES,
            replacements=((leaves[0]["replacement"], " "),),
        )
    return _pieces_decoder(path, leaves)


def _pieces_decoder(path: Path, leaves: Sequence[Json]) -> DecoderSpec:
    """Replace*, ByteFallback?, Fuse?, Strip? in this order (Strip only after Fuse)."""
    replacements: list[tuple[str, str]] = []
    byte_fallback = fused = False
    strip, n_strip = "", 0
    for leaf in leaves:
        kind = leaf["type"]
        if kind == "Replace" and not (byte_fallback or fused):
            replacements.append((_literal(path, leaf), leaf["content"]))
        elif kind == "ByteFallback" and not (byte_fallback or fused):
            byte_fallback = True
        elif kind == "Fuse" and not fused:
            fused = True
        elif kind == "Strip" and fused and not strip and leaf["stop"] == 0:
            strip, n_strip = leaf["content"], leaf["start"]
        else:
            raise refuse(path, f"decoder {kind!r} at this place")
    return DecoderSpec(DecoderKind.PIECES, byte_fallback, strip, n_strip, tuple(replacements))
