"""Which files of a model on the hub are fetched, and what they will take. Opens no connection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FormatError, UnsupportedError
from ..fleet.bundle import MAX_BUNDLE_BYTES, bundle_beside
from ..planner import mib
from ..strict_json import parse_json
from .sources import MODULES_NAME, PART_FILE, WANTED_FILE, key_of

if TYPE_CHECKING:
    from .hub import HubFile, HubModel

INDEX_NAME = "model.safetensors.index.json"
WHOLE_NAME = "model.safetensors"
MAX_SMALL_BYTES = 64 << 20  # of a JSON file or a tokenizer
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Choice:
    """What to fetch. kind: "edge", "gguf" or "checkpoint"; weights after everything else."""

    kind: str
    small: tuple[HubFile, ...]
    weights: tuple[HubFile, ...]

    @property
    def files(self) -> tuple[HubFile, ...]:
        return (*self.small, *self.weights)

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file in self.files)

    def key(self, wishes: dict[str, str]) -> str:
        """Of what will be made of it, from the hub's digests: known before it is fetched."""
        names = {file.name: file.digest for file in self.files}
        if self.kind != "checkpoint":
            names = {"": self.weights[0].digest}
        return key_of({"kind": self.kind, **names}, wishes)


def choose(model: HubModel, wanted: str | None) -> Choice:
    """The file called `wanted`; else the one .edge file, a checkpoint, or the one GGUF file."""
    by_name = {file.name: file for file in model.files}
    if wanted is not None:
        file = by_name.get(wanted)
        if file is None or not wanted.endswith((".edge", ".gguf")):
            raise _no_choice(model, f"{wanted!r} is no .edge or .gguf file of its top folder")
        return _lone(file, by_name)
    for suffix in (".edge", ".safetensors", ".gguf"):
        files = [file for file in model.files if file.name.endswith(suffix)]
        if suffix == ".safetensors" and files and "config.json" in by_name:
            return _checkpoint(model, by_name)
        if suffix != ".safetensors" and len(files) == 1:
            return _lone(files[0], by_name)
        if suffix != ".safetensors" and files:
            raise _no_choice(model, f"it has {len(files)} {suffix} files")
    pickles = [file.name for file in model.files if file.name.endswith(_PICKLE_SUFFIXES)]
    if pickles:
        message = (
            f"{model.hub_name}: only pickled weights ({pickles[0]}), which can run code when read; "
            "nothing is fetched: look for a copy of this model in safetensors"
        )
        raise UnsupportedError(message, code="file_unreadable")
    message = f"{model.hub_name}: holds no model: neither .safetensors, .edge nor .gguf"
    raise FormatError(message, code="file_not_found")


def shards(choice: Choice, index: Path) -> Choice:
    """The choice with only those weights that the index names; the index has been fetched."""
    document = parse_json(index.read_bytes(), f"{index.name} of the hub")
    mapping = document.get("weight_map") if isinstance(document, dict) else None
    values = mapping.values() if isinstance(mapping, dict) else ()
    named = {str(name) for name in values}
    weights = tuple(file for file in choice.weights if file.name in named)
    missing = sorted(name[:200] for name in named - {file.name for file in weights})
    if missing or not weights:
        what = f"names {missing[0]!r}, which is not there" if missing else "names no weights"
        raise FormatError(f"{INDEX_NAME} of the hub {what}", code="file_not_found")
    return Choice(choice.kind, choice.small, weights)


def _lone(file: HubFile, by_name: dict[str, HubFile]) -> Choice:
    """A file of a whole model, and the bundle beside it, if there is one."""
    kind = file.name.rpartition(".")[2]
    bundle = by_name.get(bundle_beside(Path(file.name)).name)
    if kind != "edge" or bundle is None or bundle.n_bytes > MAX_BUNDLE_BYTES:
        return Choice(kind, (), (file,))
    return Choice(kind, (bundle,), (file,))


def _checkpoint(model: HubModel, by_name: dict[str, HubFile]) -> Choice:
    kinds = [WANTED_FILE, *([PART_FILE] if MODULES_NAME in by_name else [])]
    wanted = [file for file in model.files if any(kind.fullmatch(file.name) for kind in kinds)]
    small = tuple(file for file in wanted if not file.name.endswith(".safetensors"))
    large = next((file for file in small if file.n_bytes > MAX_SMALL_BYTES), None)
    if large is not None:
        message = f"{model.hub_name}: {large.name} has {mib(large.n_bytes)}; no such file is read"
        raise UnsupportedError(message, code="json_too_large")
    weights = tuple(file for file in wanted if file.name.endswith(".safetensors"))
    if INDEX_NAME not in by_name:
        if WHOLE_NAME not in by_name:
            names = ", ".join(file.name for file in weights[:4])
            message = f"{model.hub_name}: neither {WHOLE_NAME} nor {INDEX_NAME}; it holds {names}"
            raise FormatError(message, code="file_not_found")
        weights = (by_name[WHOLE_NAME],)
    return Choice("checkpoint", small, weights)


def _no_choice(model: HubModel, why: str) -> FormatError:
    files = [file for file in model.files if file.name.endswith((".edge", ".gguf"))]
    listed = ", ".join(f"{file.name} ({mib(file.n_bytes)})" for file in files[:20])
    message = f"{model.hub_name}: {why}; choose with --file: {listed or 'there is none'}"
    return FormatError(message, code="store_choice")
