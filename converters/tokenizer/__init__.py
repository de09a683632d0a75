"""Compiles a Hugging Face tokenizer into tables that the native tokenizer uses in place."""

from __future__ import annotations

from .compile import CompiledTokenizer, build_blob, compile_description, compile_tokenizer
from .proof import TokenVector
from .source import Description

__all__ = [
    "CompiledTokenizer",
    "Description",
    "TokenVector",
    "build_blob",
    "compile_description",
    "compile_tokenizer",
]
