"""A bundle: a folder with graphs of one model for one target, and a description, `bundle.json`.

Files are named by the description and hashed; all is untrusted until it is checked. Writing is
here, too, so that both halves of the format stand beside each other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, IntegrityError, InvalidArgumentError
from ..strict_json import parse_json
from . import DESCRIPTION as DESCRIPTION
from .facts import HOST, NPU, PLACEMENTS, Facts, GraphFacts, LayerFacts
from .host import Rotation

TOKENIZER = "tokenizer.bin"
GENERATION = "htp_arch"  # the setting that names one
VERSION = 1
_MAX_DESCRIPTION_BYTES = 16 << 20
_MAX_SIZE = 1 << 24
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_CHUNK_BYTES = 1 << 20
_MAX_NAMES = 16  # of generations


@dataclass(frozen=True)
class BundleFile:
    """A file of the bundle. name: relative, parts of it joined by "/"."""

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """target: as `edgellm convert --target` names it. entry: of each graph, the file or folder
    that its executor opens. report: what the conversion measured. generations: of a vendor's NPUs,
    where each has graphs of its own for them, in a folder; the setting `htp_arch` says which."""

    target: str
    facts: Facts
    graphs: tuple[GraphFacts, ...]
    entry: Mapping[str, str]
    files: tuple[BundleFile, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    generations: tuple[str, ...] = ()

    def for_generation(self, name: str) -> Bundle:
        """With the graphs and files of one generation. InvalidArgumentError: it has none of it."""
        if not self.generations:
            return self
        if name not in self.generations:
            known = ", ".join(f"{self.target}-v{one}" for one in self.generations)
            raise InvalidArgumentError(
                f"graphs for several generations of {self.target}: name one of {known}, such as "
                f"backend='npu:{self.target}-v{self.generations[0]}' of load(), or the setting "
                "'htp_arch'",
                code="invalid_argument",
            )
        others = tuple(f"{generation_folder(one)}/" for one in self.generations if one != name)
        on_host = {graph.name for graph in self.graphs if graph.placement == HOST}
        entry = {
            graph: path if graph in on_host else f"{generation_folder(name)}/{path}"
            for graph, path in self.entry.items()
        }
        files = tuple(one for one in self.files if not one.name.startswith(others))
        settings = {**self.settings, GENERATION: name}
        return replace(self, entry=entry, files=files, settings=settings, generations=())


def generation_folder(name: str) -> str:
    """In the bundle's."""
    return f"v{name}"


def write_description(directory: Path, bundle: Bundle) -> None:
    facts = bundle.facts
    model = {
        "n_vocab": facts.n_vocab,
        "d_model": facts.d_model,
        "n_positions": facts.n_positions,
        "kv_dtype": facts.kv_dtype,
        "masked": facts.masked,
        "stateful": int(facts.stateful),
        "eos_ids": list(facts.eos_ids),
        "layers": [vars(layer) for layer in facts.layers],
        "rotations": {
            name: {"factor": one.factor, "inv_freq": [float(x) for x in one.inv_freq]}
            for name, one in facts.rotations.items()
        },
    }
    value = {
        "version": VERSION,
        "target": bundle.target,
        "model": model,
        "graphs": [{**vars(one), "entry": bundle.entry[one.name]} for one in bundle.graphs],
        "files": [vars(one) for one in bundle.files],
        "settings": dict(bundle.settings),
        "report": dict(bundle.report),
    }
    if bundle.generations:
        value["generations"] = list(bundle.generations)
    (directory / DESCRIPTION).write_text(json.dumps(value, indent=1), encoding="utf-8")


def hashed(directory: Path, paths: Iterable[Path]) -> tuple[BundleFile, ...]:
    """Files of a folder as a bundle lists them."""
    return tuple(
        BundleFile(path.relative_to(directory).as_posix(), path.stat().st_size, _digest(path))
        for path in paths
    )


def read_bundle(directory: Path, generation: str = "") -> Bundle:
    """FormatError: no bundle, or a broken one. IntegrityError: a file is not what was written.
    generation: see Bundle.for_generation(); files of others need not be there."""
    bundle = read_description(directory).for_generation(generation)
    for one in bundle.files:
        _check_file(directory, one)
    return bundle


def read_description(directory: Path) -> Bundle:
    """As read_bundle(), but reads none of the files that are listed."""
    path = directory / DESCRIPTION
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_DESCRIPTION_BYTES + 1)
    except OSError as error:
        raise FormatError(
            f"{directory}: no bundle of graphs: {error}", code="file_not_found"
        ) from error
    if len(data) > _MAX_DESCRIPTION_BYTES:
        raise FormatError(f"{path}: too large", code="header_too_large")
    bundle = _parse(_Fields(parse_json(data, str(path)), str(path)))
    for generation in bundle.generations or ("",):
        _check_entries(bundle.for_generation(generation), path)
    return bundle


def _check_entries(bundle: Bundle, path: Path) -> None:
    for name, entry in bundle.entry.items():
        if not any(f"{one.name}/".startswith(f"{entry}/") for one in bundle.files):
            raise FormatError(
                f"{path}: graph '{name[:80]}' is in no file that is listed", code="tensor_missing"
            )


def _check_file(directory: Path, one: BundleFile) -> None:
    path = directory / one.name
    try:
        same = path.stat().st_size == one.n_bytes and _digest(path) == one.sha256
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    if not same:
        raise IntegrityError(
            f"{path}: is not the file that was written; convert again", code="leaf_hash"
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _parse(root: _Fields) -> Bundle:
    if root.integer("version") != VERSION:
        raise FormatError(
            f"{root.where}: version {root.integer('version')}, this edgellm reads {VERSION}",
            code="json_type",
        )
    graphs = [_Fields(one, f"{root.where}: graphs") for one in root.items("graphs")]
    files = [_Fields(one, f"{root.where}: files") for one in root.items("files")]
    model = _Fields(root.value("model", dict), f"{root.where}: model")
    return Bundle(
        root.text("target"),
        _facts(model),
        tuple(_graph(one) for one in graphs),
        {one.text("name"): one.path("entry") for one in graphs},
        tuple(
            BundleFile(one.path("name"), one.integer("n_bytes", 1 << 50), one.text("sha256"))
            for one in files
        ),
        root.texts_by_name("settings"),
        root.value("report", dict),
        root.plain_names("generations"),
    )


def _facts(model: _Fields) -> Facts:
    layers = [_Fields(one, f"{model.where}: layers") for one in model.items("layers")]
    rotations = {
        name: _Fields(value, f"{model.where}: rotations")
        for name, value in model.value("rotations", dict).items()
    }
    kv_dtype = model.text("kv_dtype")
    if kv_dtype not in ("f16", "f32"):
        raise FormatError(f"{model.where}: 'kv_dtype' is '{kv_dtype[:40]}'", code="json_type")
    return Facts(
        model.integer("n_vocab"),
        model.integer("d_model"),
        tuple(
            LayerFacts(one.integer("n_kv_heads"), one.integer("head_dim"), one.integer("window"))
            for one in layers
        ),
        {
            name: Rotation(
                np.array([one.number(x) for x in one.items("inv_freq")], dtype=np.float32),
                one.number(one.value("factor", (int, float))),
            )
            for name, one in rotations.items()
        },
        tuple(model.checked_integer(x, "eos_ids") for x in model.items("eos_ids")),
        model.integer("n_positions"),
        kv_dtype,
        model.integer("stateful", 1) == 1,
        model.number(model.value("masked", (int, float))),
    )


def _graph(one: _Fields) -> GraphFacts:
    return GraphFacts(
        one.text("name"),
        one.integer("n_rows"),
        one.integer("n_past"),
        one.integer("part"),
        tuple(one.checked_text(x, "inputs") for x in one.items("inputs")),
        tuple(one.checked_text(x, "outputs") for x in one.items("outputs")),
        one.choice("placement", PLACEMENTS, NPU),
    )


class _Fields:
    """An object of the description, its fields checked as they are asked for."""

    def __init__(self, value: object, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise FormatError(f"{where}: must be an object", code="json_type")
        self._value = value

    def value(self, key: str, kind: type | tuple[type, ...]) -> Any:
        if key not in self._value:
            raise FormatError(f"{self.where}: '{key}' is missing", code="json_missing_key")
        value = self._value[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(key)
        return value

    def items(self, key: str) -> list[Any]:
        items: list[Any] = self.value(key, list)
        return items

    def integer(self, key: str, largest: int = _MAX_SIZE) -> int:
        return self.checked_integer(self.value(key, int), key, largest)

    def text(self, key: str) -> str:
        return self.checked_text(self.value(key, str), key)

    def choice(self, key: str, known: tuple[str, ...], default: str) -> str:
        """One of `known`; bundles of earlier versions do not have it."""
        text = self.text(key) if key in self._value else default
        if text not in known:
            raise self._wrong(key)
        return text

    def path(self, key: str) -> str:
        """A relative path that stays in the folder."""
        text = self.text(key)
        if not all(_PLAIN_NAME.fullmatch(part) for part in text.split("/")):
            raise self._wrong(key)
        return text

    def plain_names(self, key: str) -> tuple[str, ...]:
        """Parts of paths, each once; bundles without them do not have the key."""
        names = tuple(self.items(key)) if key in self._value else ()
        is_plain = all(isinstance(one, str) and _PLAIN_NAME.fullmatch(one) for one in names)
        if not is_plain or len(set(names)) < len(names) or len(names) > _MAX_NAMES:
            raise self._wrong(key)
        return names

    def texts_by_name(self, key: str) -> dict[str, str]:
        found = self.value(key, dict)
        return {name: self.checked_text(value, key) for name, value in found.items()}

    def checked_integer(self, value: object, key: str, largest: int = _MAX_SIZE) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
            raise self._wrong(key)
        return value

    def checked_text(self, value: object, key: str) -> str:
        if not isinstance(value, str) or len(value) > 256:
            raise self._wrong(key)
        return value

    def number(self, value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._wrong("number")
        return float(value)

    def _wrong(self, key: str) -> FormatError:
        return FormatError(
            f"{self.where}: '{key}' is of another type or outside its range", code="json_type"
        )
