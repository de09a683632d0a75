"""A device's side of a fleet: `edgellm pull --index`, and `edgellm fleet check` and `rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import FormatError, InvalidArgumentError
from ..fleet.device import FleetDevice, Updated
from ..fleet.index import parse_index
from ..fleet.signed import MAX_ENVELOPE_BYTES, parse_envelope
from ..fleet.source import Artefacts
from ..planner import mib
from ..small_files import read_small
from ..store.names import parse_reference
from ..store.store import Store
from .exits import Exit
from .flags import JsonFlag
from .output import note, print_json, print_text
from .progress import progress_bar

NameArgument = Annotated[str, typer.Argument(help="FLEET/MODEL, as pull --index has said.")]


def pull_from_index(
    location: str,
    device: str | None,
    model: str,
    device_id: str,
    root: Path | None,
    require_signature: bool,
    json: bool,
) -> None:
    """What `edgellm pull MODEL --index LOCATION` does."""
    from .. import _native

    if device is None:
        message = "--device CLASS is missing: which class of the index this machine is"
        raise InvalidArgumentError(message, code="invalid_argument")
    memory_bytes = _native.memory_figures()["available_bytes"]
    with Artefacts(location) as artefacts, progress_bar() as bar:
        given = None if root is None else read_small(root, MAX_ENVELOPE_BYTES)
        fleet = _fleet(artefacts, root)
        required = True if require_signature else None
        place = FleetDevice(Store.default(), fleet, device_id=device_id, require_signature=required)
        if given is not None:
            place.trust(given, str(root))
        if place.state.root is None and not require_signature:
            note("note: nothing of this fleet has to be signed (--root FILE begins to require it)")
        done = place.update(
            artefacts,
            device,
            model,
            memory_bytes=memory_bytes,
            on_bytes=lambda n_done, n_total: bar(model, n_done, n_total),
        )
    _tell(f"{fleet}/{model}", done, json)


def check(name: NameArgument, json: JsonFlag = False) -> None:
    """Try what runs: its own scores replayed, its speed against the plan. Where it fails, what ran
    before runs again."""
    fleet, model = _parts(name)
    _tell(name, FleetDevice(Store.default(), fleet).check(model), json)


def rollback(
    name: NameArgument,
    why: Annotated[str, typer.Option(help="Kept with the version that is left.")] = "rolled back",
    json: JsonFlag = False,
) -> None:
    """Go back to what ran before; what ran now is not taken again."""
    fleet, model = _parts(name)
    _tell(name, FleetDevice(Store.default(), fleet).roll_back(model, why), json)


def _fleet(artefacts: Artefacts, root: Path | None) -> str:
    """The name that the artefacts give themselves, signed or not: what this device knows of that
    fleet then says whether they are to be trusted. Those without a plain index are signed."""
    if root is None:
        try:
            return parse_index(artefacts.index(), artefacts.location).name
        except FormatError as error:
            if error.code != "file_not_found":
                raise
    try:
        signed = artefacts.signed_index()
    except FormatError as error:
        if error.code != "file_not_found":
            raise
        kind = "fleet" if root is None else "signed fleet (leave --root out, or sign it)"
        message = f"{artefacts.location}: no index of a {kind} is there ({error})"
        raise FormatError(message, code=error.code) from None
    envelope = parse_envelope(signed, artefacts.location)
    return parse_index(envelope.payload, artefacts.location).name


def _parts(name: str) -> tuple[str, str]:
    fleet, slash, model = parse_reference(name).name.partition("/")
    if not slash:
        message = f"{name}: write FLEET/MODEL, as edgellm list shows it"
        raise InvalidArgumentError(message, code="store_name")
    return fleet, model


def _tell(name: str, done: Updated, json: bool) -> None:
    for one in done.notes:
        note(f"note: {one}")
    failure = "" if done.health is None else done.health.failure
    if failure:
        note(f"its health check failed: {failure}")
    if json:
        print_json("fleet", _data(name, done))
    else:
        print_text(_line(name, done))
    if failure:
        raise typer.Exit(Exit.GATE_FAILED)


def _data(name: str, done: Updated) -> dict[str, Any]:
    fetched = None if done.fetched is None else vars(done.fetched)
    health = None if done.health is None else vars(done.health)
    return {**vars(done), "name": name, "fetched": fetched, "health": health}


def _line(name: str, done: Updated) -> str:
    if not done.active:
        return f"{name}: nothing for this device\n"
    how = {
        "new": "is new",
        "again": "runs again",
        "same": "is what runs",
        "refused": "runs on: the new one was refused",
        "none": "runs on: nothing else is for this device",
    }[done.what]
    fetched = ""
    if done.fetched is not None:
        here = mib(done.fetched.copied_bytes + done.fetched.kept_bytes)
        fetched = f"; {mib(done.fetched.fetched_bytes)} fetched, {here} were here"
    version = done.version or "an unknown version"
    return f'{name} {version} {how}{fetched}; try: edgellm run {name} "..."\n'
