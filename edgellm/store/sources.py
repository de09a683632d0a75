"""What a model is converted from: its files, and the key by which it is found again.

The key is of contents: SHA-256 of every input, the wishes, and the version that converts. Hashing
gigabytes takes seconds, so a fingerprint (sizes, times, inodes) remembers the key of a file that
nobody has touched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .. import __version__
from ..errors import FormatError

Progress = Callable[[str, int, int], None]

# What a converter may read of a directory, and what a download may fetch: no pickles, no programs.
WANTED_FILE = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.(?:safetensors|json|jinja)|tokenizer\.model|merges\.txt"
)
# Models for embeddings say in modules.json how they pool, in the folders that it names.
MODULES_NAME = "modules.json"
PART_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}/config\.json")
_CHUNK_BYTES = 1 << 20
_GGUF_MAGIC = b"GGUF"


def is_source(path: Path) -> bool:
    """Whether a path is a checkpoint directory or a GGUF file; OSError if it cannot be read."""
    if path.is_dir():
        return (path / "config.json").is_file()
    if not path.is_file():
        return False  # opening a pipe would wait for a writer
    with path.open("rb") as file:
        return file.read(4) == _GGUF_MAGIC


def source_files(path: Path) -> list[Path]:
    """The inputs behind `path`, in order."""
    if not path.is_dir():
        return [path]
    entries = sorted(path.iterdir())
    files = [file for file in entries if WANTED_FILE.fullmatch(file.name)]
    if (path / MODULES_NAME).exists():
        parts = [entry / "config.json" for entry in entries]
        files += [p for p in parts if PART_FILE.fullmatch(_name(p, path)) and p.is_file()]
    return files


def fingerprint(path: Path, wishes: Mapping[str, object]) -> str:
    """Changes when an input or a wish does, without reading the inputs."""
    marks: list[object] = [dict(wishes), __version__, str(path.absolute())]
    try:
        for file in source_files(path):
            at = file.stat()
            marks.append([_name(file, path), at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns])
            marks.append(at.st_ctime_ns)
    except OSError as error:
        raise _unreadable(error) from None
    return _digest_of(marks)


def content_key(path: Path, wishes: Mapping[str, object], progress: Progress) -> str:
    """The key of what is converted from `path`; reads all of it."""
    digests: dict[str, str] = {}
    try:
        files = source_files(path)
        n_total = sum(file.stat().st_size for file in files)
        n_done = 0
        for file in files:
            digest = hashlib.sha256()
            with file.open("rb", buffering=0) as handle:
                while chunk := handle.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    n_done += len(chunk)
                    progress(f"reading {file.name}", n_done, n_total)
            digests[_name(file, path)] = digest.hexdigest()
    except OSError as error:
        raise _unreadable(error) from None
    return key_of(digests, wishes)


def key_of(digests: Mapping[str, str], wishes: Mapping[str, object]) -> str:
    """A key from digests by file name."""
    return _digest_of([sorted(digests.items()), dict(wishes), __version__])


def _name(file: Path, source: Path) -> str:
    """In a directory its path there; what a lone file is called does not matter."""
    return "" if file == source else file.relative_to(source).as_posix()


def _digest_of(value: Sequence[object]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _unreadable(error: OSError) -> FormatError:
    return FormatError(
        f"{error.filename}: cannot be read: {error.strerror}", code="file_unreadable"
    )
