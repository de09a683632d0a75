"""Steps at a URL, for machines that share no folder: whatever fsspec knows (s3, gs, sftp, file).

What a step made is sent there once it is whole, its record last, and fetched by whoever needs it;
it is hashed like any other, so that half of one counts as none. Sources and texts are not sent:
every machine has them under the same paths. Needs fsspec, of the extra "fleet".
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from edgellm.errors import EdgeError, FormatError, InvalidArgumentError, UnsupportedError

from ..calibrate.work import make_folder
from ..compress.step import Progress
from ..compress.store import RECORD, StepStore
from .node import Node, node_path, read_node
from .step import Done, run_step, step_folder

HINT = "artefacts at a URL need fsspec; install it with: pip install 'edgellm[fleet]'"


class Mirror:
    """url: of a folder. UnsupportedError without fsspec, InvalidArgumentError for what it does not
    know."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ModuleNotFoundError:
            raise UnsupportedError(HINT, code="feature_unsupported") from None
        self.url = url
        try:
            found = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:
            message = f"{url}: no place for artefacts: {str(error)[:300]}"
            raise InvalidArgumentError(message, code="invalid_argument") from error
        self._files: Any = found[0]
        self._root = str(found[1]).rstrip("/")

    def send_node(self, work: Path, digest: str) -> None:
        """What a step is, for those who do it."""
        with self._said("sent"):
            self._put(node_path(work, digest), f"nodes/{digest}.json")

    def fetch_node(self, work: Path, digest: str) -> Node:
        """FormatError where there is no such step."""
        path = node_path(work, digest)
        if not path.exists():
            make_folder(path.parent)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            with self._said("fetched"):
                self._files.get_file(f"{self._root}/nodes/{digest}.json", str(temporary))
                temporary.replace(path)
        return read_node(work, digest)

    def send_step(self, work: Path, node: Node) -> None:
        """What a step made; nothing where that is not here."""
        found = StepStore(step_folder(work, node.digest)).find(node.do, node.digest)
        if found is None:
            return
        folder = found[1].parent
        files = [one for one in sorted(folder.rglob("*")) if one.is_file() and one.name != RECORD]
        with self._said("sent"):
            for path in (*files, folder / RECORD):
                self._put(path, f"steps/{node.digest}/{path.relative_to(folder).as_posix()}")

    def fetch_step(self, work: Path, node: Node) -> bool:
        """Whether what a step made is here, from there if need be."""
        store = StepStore(step_folder(work, node.digest))
        with store.locked(wait=True):
            if store.find(node.do, node.digest) is not None:
                return True
            there = f"{self._root}/steps/{node.digest}"
            with self._said("fetched"):
                if not self._files.exists(f"{there}/{RECORD}"):
                    return False
                names = [_below(there, name) for name in self._files.find(there)]
            with store.new(node.do, node.digest) as folder, self._said("fetched"):
                for name in names:
                    make_folder((folder / name).parent)
                    self._files.get_file(f"{there}/{name}", str(folder / name))
            return store.find(node.do, node.digest) is not None

    def _put(self, path: Path, name: str) -> None:
        target = f"{self._root}/{name}"
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(path), target)

    @contextmanager
    def _said(self, how: str) -> Iterator[None]:
        """Every file system of fsspec has errors of its own."""
        try:
            yield
        except EdgeError:
            raise
        except Exception as error:
            message = f"{self.url}: cannot be {how}: {type(error).__name__}: {str(error)[:300]}"
            raise FormatError(message, code="file_unreadable") from error


def run_mirrored(
    work: Path, digest: str, mirror: Mirror, progress: Progress = lambda *_: None
) -> Done:
    """run_step() on a machine with a folder of its own: fetches what the step needs, or what it
    made elsewhere, and sends what it makes here."""
    node = mirror.fetch_node(work, digest)
    if not mirror.fetch_step(work, node):
        for one in node.inputs:
            mirror.fetch_step(work, mirror.fetch_node(work, one))
    done = run_step(work, digest, progress)
    if not done.was_done:
        mirror.send_step(work, node)
    return done


def _below(folder: str, name: str) -> str:
    """A listed name, relative; FormatError for one that would lead elsewhere."""
    prefix = folder.lstrip("/") + "/"
    rest = name.lstrip("/").removeprefix(prefix)
    path = PurePosixPath(rest)
    if rest == name.lstrip("/") or ".." in path.parts or path.is_absolute() or "\\" in rest:
        raise FormatError(f"{name[:200]}: leads out of its step", code="file_unreadable")
    return rest
