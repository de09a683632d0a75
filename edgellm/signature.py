"""Files that must be signed before they are opened: what `load(require_signature=)` asks for.

The bundle of a file stands beside it as FILE.sig, in the store, too. It is compared with every byte
of the file before the runtime sees one, and the runtime is given the file that was read, not a name
that may mean another by then. docs/SIGNING.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .edgefile import header_of
from .errors import (
    EdgeError,
    FormatError,
    IntegrityError,
    InvalidArgumentError,
    UnsupportedError,
)
from .fleet.bundle import (
    MAX_BUNDLE_BYTES,
    bundle_beside,
    only_file,
    open_itself,
    verify_bundle,
)
from .fleet.signed import key_id, public_key
from .hashed_files import HashedFile
from .small_files import read_small

FLEET = "fleet"
ONE_FILE = ("cpu", "cuda", "cuda-fp8", "metal", "vulkan")  # backends that open nothing besides
MAX_KEY_BYTES = 65536
RequireSignature = bool | str | os.PathLike[str] | None


@dataclass(frozen=True)
class Signers:
    """keys: of whom may sign files, id -> PEM. revoked: SHA-256 of files that may not be opened,
    whoever has signed them."""

    keys: Mapping[str, str]
    revoked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SignedFile:
    """path: opens the file that was checked. header_sha256: which stands for its bytes. is_bound:
    `path` is of the open file itself, not of its name."""

    path: Path
    header_sha256: str
    is_bound: bool


def signers_of(required: RequireSignature, backend: str = "cpu") -> Signers | None:
    """None where nothing is required. True or "fleet": who may sign files of the fleets whose roots
    this device trusts; else the one whose public key, ECDSA P-256 as PEM, is in that file.

    FormatError where it is no such key, IntegrityError where no root is trusted, UnsupportedError
    without `cryptography`, and for a `backend` that opens files of its own beside the model.
    """
    if required is None or required is False:
        return None
    if backend not in ONE_FILE:
        message = (
            f"backend {backend!r:.60} opens graphs beside the model, which no bundle signs; with "
            f"require_signature choose one of {', '.join(ONE_FILE)}"
        )
        raise UnsupportedError(message, code="backend_unsupported")
    if required is True or required == FLEET:
        return _of_fleets()
    if not isinstance(required, (str, os.PathLike)):
        kind = type(required).__name__
        message = f"require_signature must be the file of a public key or True, not a {kind}"
        raise InvalidArgumentError(message, code="invalid_argument")
    path = Path(required)
    try:
        pem = read_small(path, MAX_KEY_BYTES).decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: no public key: {error}", code="signature_key") from error
    public_key(pem, str(path))
    return Signers({key_id(pem): pem})


@contextmanager
def signed_file(
    path: Path, signers: Signers, *, n_threads: int | None = None, remembers: bool = False
) -> Iterator[SignedFile]:
    """A file that one of `signers` has signed, open until the block ends.

    n_threads: that hash it, None: one on each core. remembers: that it was hashed, and does not
    hash it again before somebody writes to it.
    IntegrityError: not signed by them, other bytes than were signed, or revoked. FormatError: no
    such file, a link, or no `.edge` file.
    """
    bundle = bundle_beside(path)
    with open_itself(path) as file:
        files = verify_bundle(_bundle(path, bundle), signers.keys, str(bundle))
        signed = only_file(files, path.name, str(bundle))
        hashed = HashedFile(file) if remembers else None
        if hashed is None or signed.claim not in hashed.claims:
            signed.check(file, path, str(bundle), n_threads)
            if hashed is not None:
                hashed.remember(signed.claim)
        if signed.sha256 in signers.revoked:
            message = f"{path}: is revoked by its fleet; take another version"
            raise IntegrityError(message, code="fleet_revoked")
        file.seek(0)
        identity = header_of(file, path).metadata["edgellm.header_sha256"]
        own = _own_name(file)
        try:
            yield SignedFile(own or path, identity, own is not None)
        except EdgeError as error:
            if own is None or str(own) not in error.message:
                raise
            message = error.message.replace(str(own), str(path))
            raise type(error)(message, code=error.code) from None


def _bundle(path: Path, bundle: Path) -> bytes:
    try:
        return read_small(bundle, MAX_BUNDLE_BYTES)
    except FormatError as error:
        if error.code != "file_not_found":
            raise
        message = f"{path}: must be signed, and there is no {bundle.name} beside it"
        raise IntegrityError(message, code="signature_required") from None


def _own_name(file: BinaryIO) -> Path | None:
    """A name of the open file that nobody can give to another one, where the system has such."""
    name = Path(f"/dev/fd/{file.fileno()}")
    try:
        is_own = os.path.samestat(name.stat(), os.fstat(file.fileno()))
    except OSError:
        return None
    return name if is_own else None


def _of_fleets() -> Signers:
    from .fleet.state import read_state
    from .fleet.trust import first_root
    from .store.store import Store

    keys: dict[str, str] = {}
    revoked: set[str] = set()
    for path in sorted((Store.default().directory / "fleets").glob("*.json")):
        state = read_state(path, "")
        if state.root is None:
            continue  # whoever serves it could revoke what others have signed
        # Expiry is for updates: a device that is offline goes on.
        keys |= first_root(state.root, str(path), None).keys_of("models")
        revoked |= set(state.revoked)
    if not keys:
        message = (
            "models must be signed, and this device trusts no fleet's root; give it: "
            "edgellm pull MODEL --index WHERE --root FILE, or name the file of a public key"
        )
        raise IntegrityError(message, code="signature_required")
    return Signers(keys, frozenset(revoked))
