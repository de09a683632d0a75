"""What tokenizer.ggml.pre means: the patterns that llama.cpp cuts text with, by their names there.

Patterns are those of the models' own tokenizer.json, from which llama.cpp's were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

DIGIT = r"\p{N}"  # each by itself
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _REST
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _REST
_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(ending: str) -> str:
    """Words by the case of their letters, with what may follow them."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return f"{before}{_UPPER}*{_LOWER}+{ending}|{before}{_UPPER}+{_LOWER}*{ending}|"


_TEKKEN = _cased("") + r"\p{N}|" + _SLASHES
_GPT4O = _cased(_CONTRACTIONS + "?") + r"\p{N}{1,3}|" + _SLASHES
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")


@dataclass(frozen=True)
class PreTokenizer:
    """patterns: text is cut with the first, the pieces with the next, and so on. ignore_merges:
    a piece that is a token is one. add_bos: where the file does not say."""

    patterns: tuple[str, ...]
    normalizer: str | None = None
    ignore_merges: bool = False
    add_bos: bool = False

    def component(self, prefix_space: bool) -> Json:
        """As tokenizer.json has it."""
        from ..tokenizer.bpe_files import byte_level

        splits = [
            {
                "type": "Split",
                "pattern": {"Regex": pattern},
                "behavior": "Isolated",
                "invert": False,
            }
            for pattern in self.patterns
        ]
        return {"type": "Sequence", "pretokenizers": [*splits, byte_level(prefix_space, False)]}


_KINDS: Mapping[PreTokenizer, tuple[str, ...]] = {
    PreTokenizer((_GPT2,)): (
        "gpt-2",
        "phi-2",
        "gigachat",
        "mellum",
        "mpt",
        "olmo",
        "jais",
        "trillion",
        "granite-docling",
        "exaone4",
    ),
    PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True): (
        "llama3",
        "llama-v3",
        "llama-bpe",
        "falcon3",
        "pixtral",
        "lfm2",
    ),
    PreTokenizer((_LLAMA3,)): ("dbrx", "smaug-bpe"),
    # Qwen's own tokenizer composes (NFC); llama.cpp does not, and so reads such texts otherwise.
    PreTokenizer((_QWEN2,), normalizer="NFC"): ("qwen2", "deepseek-r1-qwen", "megrez"),
    PreTokenizer((_QWEN2,)): ("stablelm2", "hunyuan", "solar-open"),
    PreTokenizer((DIGIT, _GPT2)): (
        "starcoder",
        "refact",
        "command-r",
        "smollm",
        "codeshell",
        "exaone",
        "minerva-7b",
    ),
    PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True): ("tekken",),
    PreTokenizer((_GPT4O,)): ("gpt-4o", "llama4", "kanana2"),
    PreTokenizer(_FALCON): ("falcon",),
    PreTokenizer(_DEFAULT): ("default",),
}
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    name: kind for kind, names in _KINDS.items() for name in names
}


def gpt2_pattern() -> str:
    """What ByteLevel cuts with by itself."""
    return _GPT2
