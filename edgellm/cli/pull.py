"""`edgellm pull`: a model of the hub, through a resumed download, into the store."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import FormatError, InvalidArgumentError
from ..locate import Found
from ..planner import MemoryPlan, mib, plan_of_spec
from ..store import hub, pulls
from ..store.names import Reference, name_from, parse_hub_name, parse_reference
from ..store.store import Store, Stored
from .allocate import refuse_others
from .convert import converters
from .flags import JsonFlag
from .fleet_device import pull_from_index
from .output import note, print_json, print_text
from .progress import Progress, progress_bar
from .pull_plan import plan_of_file
from .stored import convert_into, say_waiting

_SHOWN_CONTEXT = 4096
_SPARE_DISK_BYTES = 64 << 20


@dataclass(frozen=True)
class _Needs:
    """Bytes that a pull takes. made_bytes: written beside what is fetched. memory_bytes: what the
    model needs, with a context of n_ctx tokens."""

    to_fetch_bytes: int
    here_bytes: int
    made_bytes: int
    kept_bytes: int
    free_bytes: int
    memory_bytes: int
    n_ctx: int
    available_bytes: int

    @property
    def disk_bytes(self) -> int:
        return self.to_fetch_bytes + self.made_bytes + _SPARE_DISK_BYTES

    @property
    def fits_disk(self) -> bool:
        return self.disk_bytes <= self.free_bytes

    @property
    def fits_memory(self) -> bool:
        return self.memory_bytes <= self.available_bytes

    def to_dict(self) -> dict[str, Any]:
        derived = {"disk_bytes": self.disk_bytes, "fits_disk": self.fits_disk}
        return {**vars(self), **derived, "fits_memory": self.fits_memory}

    def say(self, what: str) -> None:
        here = f", {mib(self.here_bytes)} are here already" if self.here_bytes else ""
        note(f"{what}: {mib(self.to_fetch_bytes)} to fetch{here}")
        fits = "fits" if self.fits_disk else "does not fit"
        disk = f"{mib(self.disk_bytes)} needed, {mib(self.kept_bytes)} in the end"
        note(f"disk: {disk}; {mib(self.free_bytes)} free: {fits}")
        fits = "fits" if self.fits_memory else "does not fit this machine"
        context = f"with a context of {self.n_ctx:,}"
        available = f"{mib(self.available_bytes)} available"
        note(f"memory: {mib(self.memory_bytes)} {context}; {available}: {fits}")

    def check_disk(self, folder: Path) -> None:
        if not self.fits_disk:
            message = (
                f"{folder}: needs {mib(self.disk_bytes)}, but {mib(self.free_bytes)} are free "
                "there; no weight was fetched: free space, or set EDGELLM_HOME to another disk"
            )
            raise FormatError(message, code="file_write_failed")


def command(
    model: Annotated[
        str,
        typer.Argument(help="OWNER/NAME[@REVISION] of the hub; with --index a model's name there."),
    ],
    file: Annotated[
        str | None, typer.Option(help="This .edge or .gguf file of it, where it has several.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="Of all weights, as in edgellm convert; default: by role.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", help="NAME:TAG to give it; default: OWNER/NAME:REVISION.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it takes and whether it fits; no weights.")
    ] = False,
    index: Annotated[
        str | None,
        typer.Option(help="Artefacts of a fleet instead of the hub: a folder or a URL of one."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="With --index: the device class of this machine.")
    ] = None,
    device_id: Annotated[
        str, typer.Option(help="With --index: for canaries; default: drawn once and kept.")
    ] = "",
    root: Annotated[
        Path | None,
        typer.Option(help="With --index: 1.dsse.json, whose signatures are required from now on."),
    ] = None,
    require_signature: Annotated[
        bool,
        typer.Option("--require-signature", help="With --index: nothing without a trusted root."),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Says what it takes before a weight is fetched, goes on where an earlier pull was cut off,
    checks every digest, and fetches safetensors, JSON, .edge and .gguf only: no pickles, no code.
    HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured."""
    of_hub = {"file": file, "format": format, "as": name, "dry_run": dry_run}
    of_index: dict[str, object] = {"device": device, "device_id": device_id, "root": root}
    of_index |= {"require_signature": require_signature}
    if index is not None:
        refuse_others(of_hub, "has no effect with --index")
        pull_from_index(index, device, model, device_id, root, require_signature, json)
        return
    refuse_others(of_index, "is for --index")
    hub_name = parse_hub_name(model)
    reference = _reference(hub_name.reference, name, file, format)
    found = hub.look_up(hub_name)
    pull = _Pull(Store.default(), found, pulls.choose(found, file), reference, format)
    needs, stored = pull.run(dry_run)
    data: dict[str, Any] = {"reference": str(reference), "commit": found.commit}
    data["needs"] = None if needs is None else needs.to_dict()
    data["model"] = None if stored is None else {**vars(stored.model), "path": str(stored.path)}
    if json:
        print_json("pull", data)
    elif stored is not None:
        size = mib(stored.model.n_bytes)
        print_text(f'{reference}, {size}; try: edgellm run {reference} "..."\n')


class _Pull:
    """One pull, from the hub's answer to the model in the store."""

    def __init__(
        self,
        store: Store,
        model: hub.HubModel,
        choice: pulls.Choice,
        reference: Reference,
        format: str | None,
    ) -> None:
        if format is not None and choice.kind == "edge":
            message = "--format is for what has to be converted; a .edge file is taken as it is"
            raise InvalidArgumentError(message, code="invalid_argument")
        self._store = store
        self._model = model
        self._choice = choice
        self._reference = reference
        self._wishes = {} if format is None else {"format": format}
        self._key = choice.key(self._wishes)

    def run(self, dry_run: bool) -> tuple[_Needs | None, Stored | None]:
        """What it takes and what came of it; no needs if it was there, no model if only asked."""
        download = self._choice.key({})
        if not dry_run:
            there = self._store.name_made(self._key, self._reference, self._model.origin)
            if there is not None:
                commit = self._model.commit[:12]
                note(f"note: {self._model.hub_name}, commit {commit}, is here already")
                self._store.discard_pull(download)
                return None, there
        with self._store.pulling(download, say_waiting) as folder:
            self._get_small(folder)
            needs = self._needs(folder)
            needs.say(f"{self._model.hub_name}, commit {self._model.commit[:12]}")
            if dry_run:
                return needs, None
            needs.check_disk(folder)
            self._get(self._choice.weights, folder)
            stored = self._into_store(folder)
        self._store.discard_pull(download)
        return needs, stored

    def _get_small(self, folder: Path) -> None:
        """Everything but weights, and from it which weights there are."""
        self._get(self._choice.small, folder)
        index = folder / pulls.INDEX_NAME
        if any(file.name == pulls.INDEX_NAME for file in self._choice.small):
            self._choice = pulls.shards(self._choice, index)

    def _get(self, files: tuple[hub.HubFile, ...], folder: Path) -> None:
        for file in files:
            with progress_bar() as bar:
                hub.fetch(self._model, file, folder, partial(_show, bar, file))
            if file in self._choice.weights:
                note(f"{file.name}: {mib(file.n_bytes)}, digest checked")

    def _needs(self, folder: Path) -> _Needs:
        from .. import _native

        here = sum(_n_here(self._model, file, folder) for file in self._choice.weights)
        whole = sum(file.n_bytes for file in self._choice.weights)
        plan = self._plan(folder)
        n_ctx = min(plan.n_ctx_train, _SHOWN_CONTEXT)
        is_edge = self._choice.kind == "edge"
        return _Needs(
            to_fetch_bytes=whole - here,
            here_bytes=here,
            made_bytes=0 if is_edge else plan.file_bytes,
            kept_bytes=plan.file_bytes,
            free_bytes=shutil.disk_usage(folder).free,
            memory_bytes=plan.bytes_at(n_ctx),
            n_ctx=n_ctx,
            available_bytes=_native.memory_figures()["available_bytes"],
        )

    def _plan(self, folder: Path) -> MemoryPlan:
        """Of a checkpoint from its config.json, of a file from its first bytes."""
        if self._choice.kind != "checkpoint":
            file = self._choice.weights[0]
            return plan_of_file(self._model, file, self._choice.kind, folder, self._wishes)
        tools = converters("edgellm.converters")
        plan = tools.plan_conversion(folder / "config.json", **self._wishes)
        acts = {(tensor.role, tensor.act) for tensor in plan.tensors}
        return plan_of_spec(plan.spec.to_dict(), acts, plan.file_bytes, limit_bytes=0)

    def _into_store(self, folder: Path) -> Stored:
        source = folder
        if self._choice.kind != "checkpoint":
            source = folder / self._choice.weights[0].name
        if self._choice.kind == "edge":
            stored = self._store.add(source, self._key, self._reference, self._model.origin)
            self._store.sign_as(stored.model.digest, source)
            return stored
        found = Found(source, True, self._reference, self._model.origin)
        return convert_into(self._store, found, self._key, self._wishes)


def _show(bar: Progress, file: hub.HubFile, n_bytes: int) -> None:
    bar(file.name, n_bytes, file.n_bytes)


def _n_here(model: hub.HubModel, file: hub.HubFile, folder: Path) -> int:
    """Bytes of a file that an earlier pull has fetched, or that the Hugging Face cache has."""
    if hub.cached(model, file) is not None:
        return file.n_bytes
    for path in (folder / file.name, folder / f"{file.name}.part"):
        if path.is_file():
            return min(path.stat().st_size, file.n_bytes)
    return 0


def _reference(
    default: Reference, name: str | None, file: str | None, format: str | None
) -> Reference:
    """What to call the model; a file or a format that was chosen shows in the tag."""
    if name is None:
        chosen = [default.tag, file and name_from(file.rpartition(".")[0]), format]
        return Reference(default.name, "-".join(filter(None, chosen))[:96])
    reference = parse_reference(name)
    if reference.tag is None:
        message = f"--as {name} needs a tag, as in {name}:1.0.0"
        raise InvalidArgumentError(message, code="store_name")
    return reference
