"""`vocab.json` and `merges.txt` (byte-level BPE) -> a description.

The two files do not say how text is cut, so the tokenizer's class must: GPT-2's, which is also what
such files without any configuration are, or Qwen2's. Other classes are refused by name.
"""

from __future__ import annotations

from pathlib import Path

from edgellm.errors import FormatError

from .components import Json, refuse
from .files import TokenizerConfig, affixes, collect_added, description, invalid, load_json
from .files import read_config as read_files
from .vocabulary import byte_characters

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2_END = "<|endoftext|>"
_GPT2_CLASSES = (None, "GPT2Tokenizer", "PreTrainedTokenizer")
_VERSION_LINE = "#version"


def byte_level(add_prefix_space: bool, use_regex: bool) -> Json:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def split_byte_level(pattern: str, add_prefix_space: bool) -> Json:
    """Cut with `pattern`, then show bytes as characters."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    return {
        "type": "Sequence",
        "pretokenizers": [{**split, "invert": False}, byte_level(add_prefix_space, False)],
    }


def describe_bpe_files(vocab_path: Path) -> Json:
    directory = vocab_path.parent
    vocab = load_json(vocab_path) or {}
    if any(isinstance(id_, bool) or not isinstance(id_, int) for id_ in vocab.values()):
        raise invalid(vocab_path, "an id is not a whole number")
    missing = sum(character not in vocab for character in byte_characters())
    if missing:
        raise refuse(vocab_path, f"a vocabulary without {missing} of the 256 byte characters")
    config = read_files(directory)
    name = config.class_name
    if name not in (*_GPT2_CLASSES, "Qwen2Tokenizer"):
        raise refuse(config.path, f"tokenizer_class {name!r} without a tokenizer.json")
    config = _with_default_specials(config, vocab)
    added = collect_added(config, vocab)
    prefix_space = config.flag("add_prefix_space", False)
    is_qwen2 = name == "Qwen2Tokenizer"
    return description(
        bpe_model(vocab, read_merges_file(directory / "merges.txt")),
        added,
        normalizer={"type": "NFC"} if is_qwen2 else None,
        pre_tokenizer=split_byte_level(QWEN2_PATTERN, prefix_space)
        if is_qwen2
        else byte_level(prefix_space, True),
        post_processor=affixes(config, vocab, added, add_bos=False),
        decoder=byte_level(True, True),
    )


def _with_default_specials(config: TokenizerConfig, vocab: Json) -> TokenizerConfig:
    """Both classes know the end-of-text token without being told."""
    if config.specials or config.added or _GPT2_END not in vocab:
        return config
    return TokenizerConfig(config.path, config.values, {}, config.added_ids, (_GPT2_END,))


def bpe_model(vocab: Json, merges: list[list[str]], **options: object) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
        **options,
    }


def read_merges_file(path: Path) -> list[list[str]]:
    if not path.exists():
        raise FormatError(
            f"{path}: no such file; vocab.json alone does not say how tokens merge",
            code="file_not_found",
        )
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise invalid(path, str(error)) from error
    merges = []
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith(_VERSION_LINE)):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise invalid(path, f"line {number} is not two tokens with a space between them")
        merges.append(parts)
    return merges
