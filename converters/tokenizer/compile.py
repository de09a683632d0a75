"""A tokenizer -> the tokenizer blob, proven equal to HF `tokenizers` before it is returned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from edgellm.errors import FormatError

from .blob import (
    Section,
    pack_added,
    pack_affixes,
    pack_classes,
    pack_decoder,
    pack_dfas,
    pack_forms,
    pack_ops,
    pack_ranges,
    pack_sections,
)
from .charsmap import pack_charsmap, read_charsmap
from .components import (
    Json,
    Pipeline,
    add_word_split,
    fields_of,
    read_affixes,
    read_decoder,
    read_pipeline,
    refuse,
)
from .files import load_json, token_text
from .normal_forms import form_tables
from .oracle import Oracle, typed_panics
from .proof import TokenVector, load_native, prove
from .regex_dfa import compile_dfa, make_partition
from .regex_syntax import literal_node
from .source import Description, describe
from .unicode_classes import probe_spaces
from .vocabulary import (
    Vocabulary,
    build_vocabulary,
    check_model,
    is_unigram,
    unk_id_of,
)

_META = "\u2581"


@dataclass(frozen=True)
class CompiledTokenizer:
    blob: bytes
    n_vocab: int
    bos_id: (
        int | None
    )  # what the checkpoint calls BOS, else the first id its template puts in front
    add_bos: bool  # whether encode(bos=True) puts bos_id in front
    eos_ids: tuple[
        int, ...
    ]  # hints: from generation_config.json, config.json, tokenizer_config.json
    unk_id: int | None
    special_ids: dict[str, int]
    vectors: tuple[TokenVector, ...]


def compile_tokenizer(directory: Path) -> CompiledTokenizer:
    """Compiles what `directory` holds; UnsupportedError names what cannot be compiled."""
    return compile_description(describe(directory), directory)


def compile_description(source: Description, directory: Path | None) -> CompiledTokenizer:
    """Compiles one description; the BOS and EOS hints come from the configs in `directory`, if
    there is one."""
    with typed_panics(source.path):
        return _compile_and_prove(source.path, source.data, directory)


def _compile_and_prove(path: Path, data: Json, directory: Path | None) -> CompiledTokenizer:
    try:
        truth = Oracle(data)
    except Exception as error:  # tokenizers raises bare Exception
        raise FormatError(f"{path}: {error}", code="tokenizer_invalid") from error
    oracle = truth.original
    _check_added_ids(path, data, oracle)
    blob, vocabulary, prefix = _compile(path, data, oracle)
    vectors = prove(path, load_native(blob), truth, seed=0)
    bos_id = _bos_id(directory, oracle, prefix)
    return CompiledTokenizer(
        blob=blob,
        n_vocab=vocabulary.n_vocab,
        bos_id=bos_id,
        add_bos=bos_id is not None and bos_id in prefix[:1],
        eos_ids=_eos_ids(directory, oracle),
        unk_id=unk_id_of(data["model"]),
        special_ids=dict(sorted(vocabulary.specials.items(), key=lambda item: item[1])),
        vectors=vectors,
    )


def _check_added_ids(path: Path, data: Json, oracle: Tokenizer) -> None:
    """HF numbers added tokens itself, after the model's: a gap would shift them silently."""
    for token in data.get("added_tokens") or ():
        found = oracle.token_to_id(token["content"])
        if found != token["id"]:
            raise FormatError(
                f"{path}: added token {token['content']!r} has id {token['id']}, but HF "
                f"tokenizers numbers it {found}: the ids before it leave a gap; fill it with "
                "placeholder tokens",
                code="tokenizer_invalid",
            )


def build_blob(path: Path, data: Json, oracle: Tokenizer) -> bytes:
    """The blob alone, not proven."""
    return _compile(path, data, oracle)[0]


def _compile(path: Path, data: Json, oracle: Tokenizer) -> tuple[bytes, Vocabulary, list[int]]:
    model = data["model"]
    check_model(path, model)
    with fields_of(path, "normalizer or pre-tokenizer"):
        pipeline = read_pipeline(path, data)
    if pipeline.byte_level and model.get("byte_fallback"):
        raise refuse(path, "BPE option 'byte_fallback' with a byte-level pre-tokenizer")
    vocabulary = build_vocabulary(path, model, oracle, pipeline.byte_level)
    if not is_unigram(model):  # there they are closed to text by construction
        _check_specials_unreachable(path, data, oracle, vocabulary)
    if _may_cut_before_words(model, pipeline, vocabulary):
        add_word_split(pipeline, _META)
    with fields_of(path, "post-processor"):
        prefix, suffix = read_affixes(path, data)
    with fields_of(path, "decoder"):
        decoder = read_decoder(path, data, pipeline.byte_level)
    sections = {
        **vocabulary.sections,
        **cut_sections(pipeline),
        Section.ADDED: pack_added(vocabulary.raw_added, vocabulary.normalized_added),
        Section.SPACES: _spaces(vocabulary, pipeline),
        Section.POST_PROCESSOR: pack_affixes(prefix, suffix),
        Section.DECODER: pack_decoder(decoder),
    }
    if pipeline.charsmap:
        sections[Section.CHARSMAP] = pack_charsmap(read_charsmap(path, pipeline.charsmap))
    return pack_sections(sections), vocabulary, prefix


def cut_sections(pipeline: Pipeline) -> dict[Section, bytes]:
    """What text becomes before tokens are looked up: how it is normalized and cut."""
    partition = make_partition(pipeline.regexes or [literal_node(" ")])
    dfas = [compile_dfa(node, partition) for node in pipeline.regexes]
    index, blocks = pack_classes(partition)
    sections = {
        Section.CLASS_INDEX: index,
        Section.CLASS_BLOCKS: blocks,
        Section.DFAS: pack_dfas(dfas, partition.n_classes),
        Section.NORMALIZER: pack_ops(pipeline.normalizer),
        Section.PRE_TOKENIZER: pack_ops(pipeline.pre_tokenizer),
    }
    if pipeline.forms:
        sections[Section.FORMS] = pack_forms([form_tables(form) for form in pipeline.forms])
    return sections


def _spaces(vocabulary: Vocabulary, pipeline: Pipeline) -> bytes:
    entries = (*vocabulary.raw_added, *vocabulary.normalized_added)
    strips = pipeline.strips or any(entry.lstrip or entry.rstrip for entry in entries)
    return pack_ranges(probe_spaces()) if strips else b""


def _may_cut_before_words(model: Json, pipeline: Pipeline, vocabulary: Vocabulary) -> bool:
    """Whether "x|_y" can be cut without changing an id: no merge joins such an x with the mark.

    The mark must be a token, so that it also ends a run of unknown characters.
    """
    if is_unigram(model) or pipeline.byte_level or pipeline.regexes or _META not in model["vocab"]:
        return False
    texts = {id_: text for text, id_ in model["vocab"].items()}
    return not any(
        texts[right].startswith(_META) and not texts[left].endswith(_META)
        for left, right in vocabulary.merges
    )


def _check_specials_unreachable(
    path: Path, data: Json, oracle: Tokenizer, vocabulary: Vocabulary
) -> None:
    """Text must never make a special id: refuse vocabularies whose merges spell one."""
    harmless = {unk_id_of(data["model"])}
    forbidden = set(vocabulary.specials.values()) - harmless
    oracle.encode_special_tokens = True
    texts = list(vocabulary.specials)
    for text, encoding in zip(
        texts, oracle.encode_batch(texts, add_special_tokens=False), strict=True
    ):
        if forbidden & set(encoding.ids):
            raise refuse(path, f"special token {text!r}, which ordinary text can spell,")
    oracle.encode_special_tokens = False


def _bos_id(directory: Path | None, oracle: Tokenizer, prefix: list[int]) -> int | None:
    config = _load(directory, "tokenizer_config.json")
    text = token_text(config.get("bos_token"))
    found = oracle.token_to_id(text) if text else None
    return found if found is not None else (prefix[0] if prefix else None)


def _load(directory: Path | None, name: str) -> Json:
    return {} if directory is None else load_json(directory / name) or {}


def _eos_ids(directory: Path | None, oracle: Tokenizer) -> tuple[int, ...]:
    ids: dict[int, None] = {}
    for name in ("generation_config.json", "config.json"):
        value = _load(directory, name).get("eos_token_id")
        for id_ in value if isinstance(value, list) else [value]:
            if isinstance(id_, int) and not isinstance(id_, bool):
                ids.setdefault(id_)
    config = _load(directory, "tokenizer_config.json")
    text = token_text(config.get("eos_token"))
    found = oracle.token_to_id(text) if text else None
    if found is not None:
        ids.setdefault(found)
    return tuple(ids)
