"""How large a file will be beside its tensors, before it is written: a guess, good to a few KiB."""

from __future__ import annotations

BLOB_ALIGNMENT = 64
HEADER_ALIGNMENT = 16384
HEADER_BYTES = 10 << 10  # the spec, and what the writer reserves
HEADER_BYTES_PER_FILE = 256  # of the checkpoint, whose digests are kept
HEADER_BYTES_PER_TENSOR = 220  # two JSON entries: safetensors' own and the role, format, shape
TEXT_BYTES = 4 << 10  # of the report: figures and samples of text
TEXT_BYTES_PER_TENSOR = 250  # a line of the report, and a rule of the recipe
HASH_BYTES_PER_MIB = 32


def stored_bytes(n_bytes: int) -> int:
    """Of a tensor with the padding behind it."""
    return -(-n_bytes // BLOB_ALIGNMENT) * BLOB_ALIGNMENT


def overhead_bytes(n_tensors: int, n_tensor_bytes: int, n_files: int) -> int:
    """Header, report, recipe and hashes; tokenizer and chat template come on top."""
    header = HEADER_BYTES + HEADER_BYTES_PER_FILE * n_files
    header += HEADER_BYTES_PER_TENSOR * (n_tensors + 8)
    texts = TEXT_BYTES + TEXT_BYTES_PER_TENSOR * n_tensors
    hashes = HASH_BYTES_PER_MIB * n_tensor_bytes // (1 << 20)
    return -(-header // HEADER_ALIGNMENT) * HEADER_ALIGNMENT + texts + hashes
