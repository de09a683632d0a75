"""Tokenizer blobs with every kind of section, for fuzzers: `python -m tokenizer.blob_seeds OUT`."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from edgellm.converters.tokenizer import build_blob
from tokenizers import Tokenizer, normalizers

from tokenizer.pairs import train_byte_level, train_sentencepiece
from tokenizer.sources import write_charsmap
from tokenizer.test_unigram import trained


def unigram_blob() -> bytes:
    data = trained(byte_fallback=True)
    rules = {"A": "a", "\ufb01": "fi", "e\u0301": "\u00e9", "\u3000": " "}
    charsmap = base64.b64encode(write_charsmap(rules)).decode()
    data["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    return build_blob(Path("seed/tokenizer.json"), data, Tokenizer.from_str(json.dumps(data)))


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "bytes.blob").write_bytes(train_byte_level(normalizers.NFKC()).blob)
    (out / "characters.blob").write_bytes(train_sentencepiece().blob)
    (out / "unigram.blob").write_bytes(unigram_blob())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
