"""Compiles a Hugging Face tokenizer into tables that the native tokenizer uses in place."""

from __future__ import annotations

from .compile import CompiledTokenizer, build_blob, compile_tokenizer
from .proof import TokenVector

__all__ = ["CompiledTokenizer", "TokenVector", "build_blob", "compile_tokenizer"]
