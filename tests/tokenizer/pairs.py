"""A tokenizer twice: as HF runs it and as ours, from a directory or trained on the spot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgellm.converters.tokenizer import CompiledTokenizer, build_blob, compile_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edgellm import _native

SHARED = {
    "smollm": "tokenizers/smollm",
    "stories260K": "models/stories260K",
    "babyllama-tok105": "models/babyllama-tok105",
    "seed6m": "models/seed6m",
}
TRAINING_TEXT = [
    "the quick brown fox jumps over the lazy dog; don't they'll we've",
    "def main(argv: list[str]) -> int:\n    return 0  # nothing\n",
    "Na\u00efve caf\u00e9s in \u0130stanbul \u4f60\u597d\u4e16\u754c \u3053\u3093 12345 2024",
] * 20
SPECIALS = ["<unk>", "<s>", "</s>"]


@dataclass(frozen=True)
class Pair:
    """One tokenizer, as HF runs it and as ours."""

    oracle: Tokenizer
    blob: bytes
    native: _native.Tokenizer
    compiled: CompiledTokenizer | None = None

    def oracle_ids(self, text: str, special: bool = False, bos: bool = True) -> list[int]:
        self.oracle.encode_special_tokens = not special
        return list(self.oracle.encode(text, add_special_tokens=bos).ids)


@cache
def load_pair(directory: Path) -> Pair:
    compiled = compile_tokenizer(directory)
    oracle = Tokenizer.from_file(str(directory / "tokenizer.json"))
    native = _native.Tokenizer.from_blob(compiled.blob)
    return Pair(oracle, compiled.blob, native, compiled)


def compile_pair(oracle: Tokenizer, **model_options: Any) -> Pair:
    """Compiles a tokenizer built in a test; `model_options` go into its JSON's model."""
    data = json.loads(oracle.to_str())
    data["model"].update(model_options)
    oracle = Tokenizer.from_str(json.dumps(data))
    blob = build_blob(Path("test/tokenizer.json"), data, oracle)
    return Pair(oracle, blob, _native.Tokenizer.from_blob(blob))


def train_byte_level(form: Any = None, **model_options: Any) -> Pair:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if form is not None:
        tokenizer.normalizer = form
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=SPECIALS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return compile_pair(tokenizer, **model_options)


def train_sentencepiece(byte_tokens: bool = True, **model_options: Any) -> Pair:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    steps: list[Any] = [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if byte_tokens:
        steps.insert(1, decoders.ByteFallback())
    tokenizer.decoder = decoders.Sequence(steps)
    names = [f"<0x{byte:02X}>" for byte in range(256)] if byte_tokens else []
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*SPECIALS, *names], show_progress=False
    )
    # Pre-tokenized for training only: the model itself sees whole texts, as Llama-2's does.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    data = json.loads(tokenizer.to_str())
    data["pre_tokenizer"] = None
    data["added_tokens"] = data["added_tokens"][: len(SPECIALS)]
    data["model"].update({"byte_fallback": byte_tokens})
    return compile_pair(Tokenizer.from_str(json.dumps(data)), **model_options)
