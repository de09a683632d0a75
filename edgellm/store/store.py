"""`Store`: finding, adding, naming and removing models in one directory.

    objects/<digest>.edge   models, read-only, never changed; <digest>.edge.sig signs one
    index.json              names, tags, aliases and what they stand for
    work/<key>/             models being made; <key>.lock tells whether their maker lives
    pulls/<key>/            unfinished downloads, kept to be resumed; locks as in work/
    lock                    held while any of the above changes

Order makes it safe to be killed anywhere: a model is whole and synced before it is renamed into
objects/, it is there before the index names it, and the index is replaced by one rename. What a
killed process leaves is unnamed, and the next writer removes it.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..durable import fsync_directory, replace_whole
from ..edgefile import read_header, verify
from ..errors import FormatError, InvalidArgumentError
from ..fleet.bundle import MAX_BUNDLE_BYTES, bundle_beside
from ..small_files import read_small
from .changes import RESERVED, Removed, removal, tagged
from .index import TEMP_PREFIX, Index, StoredModel, Tag, read_index, write_index
from .locks import drop_lock, exclusive, folder_lock, try_lock
from .names import Reference, parse_reference

POLL_S = 0.05
_KEY = re.compile(r"\w{1,64}", re.ASCII)  # names a folder


@dataclass(frozen=True)
class Stored:
    """A model of the store under one of its names."""

    reference: Reference
    model: StoredModel
    path: Path


class Store:
    """The store in `directory`, which need not exist before something is added. Any number of
    processes and threads may use one at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._objects = directory / "objects"
        self._work = directory / "work"
        self._index = directory / "index.json"
        self.pulls = directory / "pulls"

    @classmethod
    def default(cls) -> Store:
        """In $EDGELLM_HOME, else in the user's data directory ($XDG_DATA_HOME/edgellm)."""
        home = os.environ.get("EDGELLM_HOME")
        if home:
            return cls(Path(home).expanduser().absolute() / "store")
        import platformdirs

        return cls(platformdirs.user_data_path("edgellm", appauthor=False) / "store")

    def index(self) -> Index:
        """What there is now."""
        index = read_index(self._index)
        if not index.models and not self._index.exists() and self._has_objects():
            message = (
                f"{self.directory}: has models but no index.json; put it back, or move the folder "
                "away: the models in its objects/ can be run as files"
            )
            raise FormatError(message, code="store_index")
        return index

    def find(self, reference: Reference) -> Stored | None:
        """The model that a name, a name and tag, or an alias stands for."""
        found = self.index().find(reference)
        return None if found is None else Stored(*found, self.path(found[1].digest))

    def get(self, reference: Reference) -> Stored:
        """The same; FormatError if there is none."""
        found = self.find(reference)
        if found is None:
            raise self._unknown(reference)
        return found

    def find_key(self, key: str) -> StoredModel | None:
        """The model that was made from the inputs of `key`."""
        return self.index().by_key(key)

    def path(self, digest: str) -> Path:
        """Where the model is, or would be."""
        return self._objects / f"{digest}.edge"

    def signature(self, digest: str) -> bytes | None:
        """The bundle beside a model, if there is one."""
        path = bundle_beside(self.path(digest))
        return read_small(path, MAX_BUNDLE_BYTES) if path.exists() else None

    def sign(self, digest: str, bundle: bytes) -> None:
        """Puts the bundle of a model, which nobody has checked here, beside it."""
        path = bundle_beside(self.path(digest))
        temporary = path.with_name(f"{path.name}.tmp")
        with self._writing():  # one at a time
            replace_whole(path, bundle, temporary)

    def sign_as(self, digest: str, file: Path) -> None:
        """Takes the bundle beside `file`, if there is one."""
        if bundle_beside(file).exists():
            self.sign(digest, read_small(bundle_beside(file), MAX_BUNDLE_BYTES))

    def tag(self, source: Reference, reference: Reference) -> Stored:
        """Gives the model that `source` stands for another name and tag. The tag of a version
        stands for one model for ever; others move."""
        with self._writing() as change:
            found = change.index.find(source)
            if found is None:
                raise self._unknown(source)
            change.index = tagged(change.index, reference, found[1].digest)
        return Stored(reference, found[1], self.path(found[1].digest))

    def switch(self, name: str, tags: dict[str, str]) -> None:
        """Makes `tags` (tag -> digest of a model that has a tag of this name) all the tags of
        `name`, at once: whoever looks finds the old ones or the new ones. The last one counts as
        set last. What no tag names any more is deleted."""
        with self._writing() as change:
            index, now_ns = change.index, time.time_ns()
            old = index.tags.get(name, {})
            if not set(tags.values()) <= {tag.digest for tag in old.values()}:
                raise self._unknown(Reference(name))
            index = index.without_tags([Reference(name, tag) for tag in old])
            for at, (tag, digest) in enumerate(tags.items()):
                index = index.with_tag(Reference(name, tag), Tag(digest, now_ns + at))
            change.index = index

    def alias(self, alias: str, target: Reference) -> Reference:
        """Makes `alias` another name of what `target` stands for, now and later."""
        with self._writing() as change:
            index = change.index
            if target.tag is None and target.name in index.aliases:
                target = parse_reference(index.aliases[target.name])
            if alias in RESERVED or alias in index.tags:
                message = f"{alias} is the name of a model already; take another name"
                raise InvalidArgumentError(message, code="store_name")
            if index.find(target) is None:
                raise self._unknown(target)
            change.index = replace(index, aliases={**index.aliases, alias: str(target)})
        return target

    def remove(self, references: list[Reference], *, dry_run: bool = False) -> Removed:
        """Removes names and tags, or an alias. What no tag names any more is deleted.

        A name without a tag: all its tags. dry_run: only says what would go.
        """
        if dry_run:
            return removal(self.index(), references, self._unknown)[1]
        with self._writing() as change:
            change.index, removed = removal(change.index, references, self._unknown)
        return removed

    def see(self, fingerprint: str, key: str) -> None:
        """Remembers the key of inputs that look like `fingerprint`."""
        with self._writing() as change:
            change.index = replace(change.index, seen={**change.index.seen, fingerprint: key})

    def make(
        self,
        key: str,
        produce: Callable[[Path], object],
        reference: Reference,
        origin: str,
        *,
        on_wait: Callable[[], None] = lambda: None,
    ) -> Stored:
        """The model made from the inputs of `key`: the one that is there, or what `produce` writes
        to the path it is given. Takes the name `reference`.

        One process makes a model, others wait for it (after calling `on_wait`). Raises what
        `produce` raises; then nothing is added.
        """
        with self._held(self._work, key, on_wait) as folder:
            stored = self.name_made(key, reference, origin)
            if stored is not None:
                return stored
            out = folder / "model.edge"
            produce(out)
            return self._add(out, reference, origin, key)

    def add(self, file: Path, key: str, reference: Reference, origin: str) -> Stored:
        """Moves a file of the store's own file system in, after hashing all of it."""
        verify(file)
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        return self._add(file, reference, origin, key)

    def copy_in(self, file: Path, reference: Reference) -> Stored:
        """A copy of a file from elsewhere, after hashing all of it, and of the bundle beside it."""
        key = read_header(file).metadata["edgellm.header_sha256"]

        def produce(out: Path) -> None:
            shutil.copyfile(file, out)
            verify(out)
            with out.open("rb") as handle:
                os.fsync(handle.fileno())

        stored = self.make(key, produce, reference, f"file:{file.absolute()}")
        self.sign_as(stored.model.digest, file)
        return stored

    @contextmanager
    def pulling(self, key: str, on_wait: Callable[[], None]) -> Iterator[Path]:
        """The folder of one download, for this process alone. It stays until `discard_pull()`."""
        with self._held(self.pulls, key, on_wait, keep=True) as folder:
            yield folder

    def discard_pull(self, key: str) -> None:
        """Deletes the folder of a download, unless a process works on it."""
        with self._writing():
            self._sweep_dead(self.pulls, key)

    def unfinished(self) -> dict[str, int]:
        """Keys of downloads that are not whole, with the bytes they hold."""
        if not self.pulls.is_dir():
            return {}
        return {
            folder.name: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            for folder in sorted(self.pulls.iterdir())
            if folder.is_dir()
        }

    def discard_unfinished(self) -> int:
        """Deletes the downloads that no process works on; the bytes freed."""
        sizes = self.unfinished()
        with self._writing():
            gone = self._sweep_dead(self.pulls)
        return sum(sizes.get(name, 0) for name in gone)

    def name_made(self, key: str, reference: Reference, origin: str) -> Stored | None:
        """Gives the model that was made from the inputs of `key` another name, if there is one."""
        with self._writing() as change:
            model = change.index.by_key(key)
            if model is None:
                return None
            more = replace(model, origins=(origin,))
            change.index = tagged(change.index.with_model(more), reference, model.digest)
        return Stored(reference, change.index.models[model.digest], self.path(model.digest))

    def _add(self, file: Path, reference: Reference, origin: str, key: str) -> Stored:
        """`file` is whole and synced; its header is its identity."""
        header = read_header(file)
        digest = header.metadata["edgellm.header_sha256"]
        model = StoredModel(digest, header.file_bytes, time.time_ns(), (origin,), (key,))
        with self._writing() as change:
            index = tagged(change.index.with_model(model), reference, digest)
            file.chmod(0o444)
            os.replace(file, self.path(digest))
            fsync_directory(self._objects)
            change.index = index
        return Stored(reference, index.models[digest], self.path(digest))

    @contextmanager
    def _writing(self) -> Iterator[_Change]:
        """The writer lock, and the index to change; saved if the block ends well."""
        try:
            for folder in (self.directory, self._objects, self._work, self.pulls):
                folder.mkdir(parents=True, exist_ok=True)
            with exclusive(self.directory / "lock"):
                change = _Change(self.index())
                if not self._index.exists():
                    write_index(self._index, change.index)  # before there can be a model
                self._sweep(change.index)
                before = change.index
                yield change
                after = change.index.pruned()
                if after != before:
                    write_index(self._index, after)
                self._sweep_objects(after)
        except OSError as error:
            where = error.filename or self.directory
            message = f"{where}: the store cannot be changed: {error.strerror or error}"
            raise FormatError(message, code="file_write_failed") from error

    def _sweep(self, index: Index) -> None:
        """Removes what killed processes have left."""
        for temp in self.directory.glob(f"{TEMP_PREFIX}*"):
            temp.unlink(missing_ok=True)
        self._sweep_objects(index)
        self._sweep_dead(self._work)

    def _sweep_objects(self, index: Index) -> None:
        for file in self._objects.iterdir():
            digest, _, kind = file.name.partition(".")
            if kind in ("edge", "edge.sig") and digest in index.models:
                continue
            if kind in ("edge", "edge.sig", "edge.sig.tmp"):
                file.unlink(missing_ok=True)

    def _sweep_dead(self, parent: Path, only: str | None = None) -> list[str]:
        """Deletes the folders in `parent` whose lock nobody holds. The writer lock is held."""
        gone = []
        for key in sorted({entry.stem for entry in parent.iterdir()}):
            if only not in (None, key):
                continue
            lock = folder_lock(parent / f"{key}.lock")
            if try_lock(lock):
                shutil.rmtree(parent / key, ignore_errors=True)
                drop_lock(lock)
                gone.append(key)
        return gone

    @contextmanager
    def _held(
        self, parent: Path, key: str, on_wait: Callable[[], None], *, keep: bool = False
    ) -> Iterator[Path]:
        """The folder `key`, held by its lock; waits for whoever holds it. Removed in the end,
        unless it is to be kept.

        Locks of folders are taken and deleted only under the writer lock, so none can be taken
        while it goes away.
        """
        if not _KEY.fullmatch(key):
            raise InvalidArgumentError(f"{key[:80]!r} is no key", code="invalid_argument")
        folder, lock = parent / key, folder_lock(parent / f"{key}.lock")
        told = False
        while True:
            with self._writing():
                if try_lock(lock):
                    folder.mkdir(exist_ok=True)
                    break
            if not told:
                on_wait()
                told = True
            time.sleep(POLL_S)
        try:
            yield folder
        finally:
            try:
                if not keep:
                    with self._writing():
                        shutil.rmtree(folder, ignore_errors=True)
                        drop_lock(lock)
            finally:
                lock.release()

    def _has_objects(self) -> bool:
        return self._objects.is_dir() and any(self._objects.glob("*.edge"))

    def _unknown(self, reference: Reference) -> FormatError:
        names = sorted({str(found) for found, _ in self.index().references()})[:5]
        there = f"; it has {', '.join(names)}" if names else "; it is empty"
        message = f"the store has no {reference}{there} (edgellm list shows all)"
        return FormatError(message, code="store_unknown")


class _Change:
    """The index while it is being changed."""

    def __init__(self, index: Index) -> None:
        self.index = index
