"""A device's place in a fleet: two slots of the store, updates, health checks and the way back.

The slots are two tags of a name: FLEET/MODEL:active and :previous, which change in one write of the
store's index. A model gets there whole, verified and tried: until the write the old one runs, from
the write on the new one does, wherever a process is killed. No file is ever replaced: the store
names files by what they hold, and a model in use stays what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import EdgeError, FormatError, IntegrityError
from ..store.locks import exclusive
from ..store.names import Reference
from ..store.store import Store, Stored
from .bundle import MAX_BUNDLE_BYTES, only_file, open_itself, verify_bundle
from .delta import Fetched, OnBytes, fetch_file
from .health import LEAST_SPEED, Health, check_health
from .index import FleetIndex, Release, Variant, parse_index
from .rollout import choose
from .signed_bytes import SignedBytes
from .source import Artefacts
from .state import Known, State, read_state, write_state
from .trust import Root, check_sequence, clock_now, first_root, next_root, trusted_index

ACTIVE, PREVIOUS, CANDIDATE = "active", "previous", "candidate"
MAX_ROOTS = 1024  # that are followed in one update
HealthFn = Callable[[Path, float | None, float], Health]


@dataclass(frozen=True)
class Updated:
    """What an update did. what: "new", "again" (the other slot), "same", "refused" (its health
    check failed; the old one runs on) or "none" (nothing is for this device). fetched: None where
    nothing was."""

    what: str
    active: str
    version: str
    notes: tuple[str, ...]
    fetched: Fetched | None = None
    health: Health | None = None


@dataclass(frozen=True)
class Signature:
    """A bundle from `where`, and what it signs."""

    bundle: bytes
    signed: SignedBytes
    where: str


class FleetDevice:
    """fleet: its name. device_id: for canaries; "": one is drawn once and kept. health: what
    decides whether a model may run; least_speed: of the planned speed, 0 to 1. require_signature:
    nothing is taken before a root is trusted; None: where any fleet of this store has one."""

    def __init__(
        self,
        store: Store,
        fleet: str,
        *,
        device_id: str = "",
        health: HealthFn = check_health,
        least_speed: float = LEAST_SPEED,
        require_signature: bool | None = None,
    ) -> None:
        self._store, self._fleet = store, fleet
        folder = store.directory / "fleets"
        self._path = folder / f"{fleet}.json"
        self._lock = folder / f"{fleet}.lock"
        self._require_signature = require_signature
        self._device_id, self._health, self._least_speed = device_id, health, least_speed

    @property
    def state(self) -> State:
        return read_state(self._path, self._device_id)

    def trust(self, data: bytes, where: str) -> Root:
        """Begins to require signatures: of what the root in this envelope says. Given by hand,
        once; IntegrityError where another one is trusted already."""
        with self._changing() as state:
            if state.root is not None and state.root != data:
                message = f"{where}: this device trusts another root of {self._fleet} already"
                raise IntegrityError(message, code="fleet_rolled_back")
            root = first_root(data, where, clock_now(state.seen))
            self._save(replace(state, root=data))
        return root

    def active(self, model: str) -> Stored | None:
        """What runs, None before the first update."""
        return self._slot(model, ACTIVE)

    def update(
        self,
        artefacts: Artefacts,
        device: str,
        model: str,
        *,
        memory_bytes: int,
        on_bytes: OnBytes = lambda *_: None,
    ) -> Updated:
        """Gets what the fleet's index has for this device class, tries it, and switches to it.

        memory_bytes: that a model may need. IntegrityError for what is not signed by whom it must
        be, has expired, is older than what was seen, or is not what the index says; also where what
        runs is revoked and nothing takes its place. Whatever is raised, what ran before runs.
        """
        with self._changing() as state:
            state, index, root, notes = self._index(artefacts, state)
            releases = index.releases(device, model)
            refused = {*index.revoked, *state.failed}
            chosen = choose(
                releases, state.device_id, model, memory_bytes=memory_bytes, refused=refused
            )
            notes += chosen.notes
            if chosen.release is None or chosen.variant is None:
                self._drop_revoked(model, state, index)
                return self._said("none", model, state, notes)
            done = self._move(
                artefacts, root, state, model, chosen.release, chosen.variant, on_bytes
            )
            self._drop_revoked(model, self.state, index)
            return replace(done, notes=tuple(notes))

    def check(self, model: str) -> Updated:
        """Tries what runs once more; where it fails, goes back to what ran before."""
        with self._changing() as state:
            stored = self._need(model)
            health = self._tried(state, stored.path, stored.model.digest)
            if not health.failure:
                return replace(self._said("same", model, self.state, []), health=health)
            return replace(self._rolled_back(model), health=health)

    def roll_back(self, model: str, why: str) -> Updated:
        """Goes back to what ran before; what runs now is not taken again."""
        with self._changing() as state:
            stored = self._need(model)
            self._need(model, PREVIOUS)
            self._fail(state, stored.model.digest, why)
            return self._rolled_back(model)

    def _move(
        self,
        artefacts: Artefacts,
        root: Root | None,
        state: State,
        model: str,
        release: Release,
        variant: Variant,
        on_bytes: OnBytes,
    ) -> Updated:
        digest = variant.header_sha256
        known = _known(release, variant, state.known.get(digest))
        active, previous = self._slot(model, ACTIVE), self._slot(model, PREVIOUS)
        # Also of what is here: by keys that are trusted now.
        signature = None if root is None else self._signature(artefacts, root, variant)
        if active is not None and active.model.digest == digest:
            self._keep(signature, active)
            return self._said("same", model, state, [])
        state = self._save(state.with_known(digest, known))
        if previous is not None and previous.model.digest == digest:
            self._keep(signature, previous)
            self._switch(model, digest)
            return self._said("again", model, state, [])
        fetched, stored = self._fetched(artefacts, model, variant, on_bytes)
        try:
            self._keep(signature, stored)
        except EdgeError:
            self._switch(model, None)
            raise
        health = self._tried(state, stored.path, digest)
        if health.failure:
            self._switch(model, None)
            return replace(self._said("refused", model, state, []), fetched=fetched, health=health)
        self._switch(model, digest)
        return replace(self._said("new", model, state, []), fetched=fetched, health=health)

    def _signature(self, artefacts: Artefacts, root: Root, variant: Variant) -> Signature:
        """The bundle of a variant, before a byte of the file is fetched: it must be for the SHA-256
        that the file must have. The one that is here is not fetched."""
        ref, where = variant.signature, f"{artefacts.location}: {variant.file.name}"
        if ref is None:
            raise IntegrityError(f"{where}: is not signed, and must be", code="signature_invalid")
        data = self._store.signature(variant.header_sha256)
        if data is None or hashlib.sha256(data).hexdigest() != ref.sha256:
            data = artefacts.small(ref, MAX_BUNDLE_BYTES)
        files = verify_bundle(data, root.keys_of("models"), where)
        signed = only_file(files, variant.file.name, where)
        signed.check_sha256(variant.file.sha256, variant.file.name, where)
        return Signature(data, signed, where)

    def _keep(self, signature: Signature | None, stored: Stored) -> None:
        """Beside the file, which it signs, for `load(require_signature=)`."""
        digest = stored.model.digest
        if signature is None or self._store.signature(digest) == signature.bundle:
            return
        if signature.signed.shards is not None:  # the whole is what was fetched
            with open_itself(stored.path) as file:
                signature.signed.check(file, stored.path, signature.where)
        self._store.sign(digest, signature.bundle)

    def _fetched(
        self, artefacts: Artefacts, model: str, variant: Variant, on_bytes: OnBytes
    ) -> tuple[Fetched, Stored]:
        """The file of a variant, in the store, as the candidate."""
        reference = Reference(self._name(model), CANDIDATE)
        key = hashlib.sha256(f"fleet {variant.file.sha256}".encode()).hexdigest()
        there = self._store.name_made(key, reference, artefacts.location)
        if there is not None:
            self._store.discard_pull(key)
            return Fetched(0, 0, variant.file.n_bytes, 0), there
        slots = [self._slot(model, tag) for tag in (ACTIVE, PREVIOUS)]
        others = [slot.path for slot in slots if slot is not None]
        with self._store.pulling(key, lambda: None) as folder:
            part = folder / "model.edge"
            fetched = fetch_file(artefacts, variant, part, others, on_bytes)
            stored = self._store.add(part, key, reference, artefacts.location)
        self._store.discard_pull(key)
        return fetched, stored

    def _index(
        self, artefacts: Artefacts, state: State
    ) -> tuple[State, FleetIndex, Root | None, list[str]]:
        """The index, as far as this device may trust it; what it saw is kept before it is used."""
        notes: list[str] = []
        where = artefacts.location
        if state.root is None:
            self._check_may_be_unsigned(where)
            index = parse_index(artefacts.index(), where)
            check_sequence(index, state.sequence, where)
            root = None
        else:
            now = clock_now(state.seen)
            if now is None:
                notes.append("the clock cannot be right: versions are enforced, expiry is not")
            state, root = self._roots(artefacts, state)
            index = trusted_index(artefacts.signed_index(), root, state.sequence, where, now)
            if now is not None:
                state = replace(state, seen=now.strftime("%Y-%m-%dT%H:%M:%SZ"))
        if index.name != self._fleet:
            message = f"{where}: the fleet {index.name}, not {self._fleet}"
            raise IntegrityError(message, code="fleet_swapped")
        state = replace(state, sequence=index.sequence, revoked=index.revoked)
        return self._save(state), index, root, notes

    def _check_may_be_unsigned(self, where: str) -> None:
        """Else another name would be a way around the root that a device trusts."""
        required = self._require_signature
        if required is None:
            states = self._path.parent.glob("*.json")
            required = any(read_state(path, "").root is not None for path in states)
        if required:
            message = (
                f"{where}: no root of the fleet {self._fleet} is trusted here, and this device "
                "requires signatures; give it: --root FILE"
            )
            raise IntegrityError(message, code="signature_required")

    def _roots(self, artefacts: Artefacts, state: State) -> tuple[State, Root]:
        """Follows the chain of roots from the trusted one. Only the last one may not have
        expired."""
        assert state.root is not None
        where = artefacts.location
        root = first_root(state.root, str(self._path), None)
        for _ in range(MAX_ROOTS):
            data = artefacts.root(root.version + 1)
            if data is None:
                break
            root = next_root(data, root, f"{where}: root {root.version + 1}", None)
            state = self._save(replace(state, root=data))
        return state, root

    def _tried(self, state: State, path: Path, digest: str) -> Health:
        """The health check; what it found is kept."""
        known = state.known.get(digest)
        planned = None if known is None else known.tokens_per_s
        try:
            health = self._health(path, planned, self._least_speed)
        except EdgeError as error:
            health = Health(f"{type(error).__name__}: {error}")
        if known is not None:
            found = replace(
                known, measured_tokens_per_s=health.tokens_per_s, failure=health.failure
            )
            self._save(state.with_known(digest, found))
        return health

    def _fail(self, state: State, digest: str, why: str) -> None:
        known = state.known.get(digest)
        if known is not None:
            self._save(state.with_known(digest, replace(known, failure=why or "rolled back")))

    def _rolled_back(self, model: str) -> Updated:
        previous = self._need(model, PREVIOUS)
        self._store.switch(self._name(model), {ACTIVE: previous.model.digest})
        return self._said("again", model, self.state, [])

    def _switch(self, model: str, digest: str | None) -> None:
        """To a model that has a tag already; None: the candidate goes. One write of the index."""
        active, previous = self._slot(model, ACTIVE), self._slot(model, PREVIOUS)
        tags: dict[str, str] = {}
        if digest is None:
            slots = {PREVIOUS: previous, ACTIVE: active}
            tags = {tag: slot.model.digest for tag, slot in slots.items() if slot is not None}
        else:
            if active is not None:
                tags[PREVIOUS] = active.model.digest
            tags[ACTIVE] = digest
        self._store.switch(self._name(model), tags)

    def _drop_revoked(self, model: str, state: State, index: FleetIndex) -> None:
        """Nothing that is revoked stays in a slot. IntegrityError where that was what ran."""
        slots = {tag: self._slot(model, tag) for tag in (PREVIOUS, ACTIVE)}
        there = {tag: slot.model.digest for tag, slot in slots.items() if slot is not None}
        gone = {
            tag
            for tag, digest in there.items()
            if (known := state.known.get(digest)) is not None and known.sha256 in index.revoked
        }
        if not gone:
            return
        kept = {tag: digest for tag, digest in there.items() if tag not in gone}
        if ACTIVE in gone and PREVIOUS in kept:
            kept = {ACTIVE: kept[PREVIOUS]}
        self._store.switch(self._name(model), kept)
        if ACTIVE in gone and ACTIVE not in kept:
            message = f"{self._name(model)}: what ran is revoked, and nothing takes its place"
            raise IntegrityError(message, code="fleet_revoked")

    def _said(self, what: str, model: str, state: State, notes: list[str]) -> Updated:
        active = self._slot(model, ACTIVE)
        digest = "" if active is None else active.model.digest
        known = state.known.get(digest)
        return Updated(what, digest, "" if known is None else known.version, tuple(notes))

    def _need(self, model: str, tag: str = ACTIVE) -> Stored:
        stored = self._slot(model, tag)
        if stored is None and tag == PREVIOUS and self._slot(model, ACTIVE) is not None:
            message = f"{self._name(model)}: there is nothing to go back to"
            raise FormatError(message, code="store_unknown")
        if stored is None:
            message = (
                f"{self._name(model)}: nothing of this fleet runs here; get it: "
                f"edgellm pull {model} --index WHERE --device CLASS (edgellm list: what is here)"
            )
            raise FormatError(message, code="store_unknown")
        return stored

    def _slot(self, model: str, tag: str) -> Stored | None:
        return self._store.find(Reference(self._name(model), tag))

    def _name(self, model: str) -> str:
        return f"{self._fleet}/{model}"

    @contextmanager
    def _changing(self) -> Iterator[State]:
        """One process at a time. What is yielded is what the file says, or a new state, kept."""
        try:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{self._lock.parent}: cannot be made: {error}"
            raise FormatError(message, code="file_write_failed") from error
        with exclusive(self._lock):
            state = self.state
            if not self._path.exists():
                self._save(state)
            yield state

    def _save(self, state: State) -> State:
        write_state(self._path, state)
        return state


def _known(release: Release, variant: Variant, before: Known | None) -> Known:
    """With what was measured when the same file was here before."""
    kl = None if variant.quality is None else variant.quality.kl
    file = variant.file.sha256
    known = Known(release.version, variant.recipe, file, variant.tokens_per_s, kl)
    if before is None:
        return known
    measured = before.measured_tokens_per_s
    return replace(known, measured_tokens_per_s=measured, failure=before.failure)
