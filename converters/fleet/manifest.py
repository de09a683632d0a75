"""What a fleet is: fleet.toml -> FleetManifest. Every key is checked, unknown ones are refused.

Paths are relative to the file. Knows the steps of recipes by their table only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from edgellm.errors import EdgeError, FormatError, InvalidArgumentError

from ..compress.recipe import ChosenStep, TextOptions, check_steps, read_step, read_texts
from ..distill.recipe import check, check_one_of
from ..recipe_file import read_toml, refuse_unknown
from ..tables import read_table

LAYOUTS = ("directory", "oci")
KV_FORMATS = ("F16", "K8V8", "K8V4", "K6V4")
MAX_GPUS = 64  # of one step
MAX_NAMED = 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-[0-9A-Za-z.-]{{1,32}})?")
_EXPIRES = re.compile(r"\d{4}-(0\d|1[0-2])-([0-2]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")
T = TypeVar("T", "FleetModel", "FleetDevice", "FleetRecipe")


@dataclass(frozen=True)
class FleetModel:
    """source: a checkpoint directory or a GGUF file."""

    name: str
    source: Path


@dataclass(frozen=True)
class FleetDevice:
    """A device class. profile: of hardware_profiles/, or a file like those; what it knows of
    memory, context, KV format and bandwidth stands where nothing is given here. ram_mib, disk_mib:
    what the application may take, 0: not known, nothing is refused for it. context: tokens that
    must fit. read_gb_per_s: of its memory, for the speed that is predicted; 0: none is. formats: of
    matrices that it can run; none named: all. recipes: in order of preference; models: that it
    gets; none named: all, as they stand in the file."""

    name: str
    profile: str = ""
    ram_mib: int = 0
    disk_mib: int = 0
    context: int = 4096
    kv: str = "K8V8"
    read_gb_per_s: float = 0.0
    formats: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("ram_mib", "disk_mib"):
            check(0 <= getattr(self, key) <= 1 << 30, f"{key} is 0 to {1 << 30}")
        check(1 <= self.context <= 1 << 24, f"context is 1 to {1 << 24}")
        check(0 <= self.read_gb_per_s <= 1e6, "read_gb_per_s is 0 to 1000000")
        check_one_of("kv", self.kv, KV_FORMATS)


@dataclass(frozen=True)
class FleetRecipe:
    """steps: as of a compression. tables: the same as they stood in the file. gpus: how many each
    step is to have for itself."""

    name: str
    steps: tuple[ChosenStep, ...]
    tables: tuple[dict[str, Any], ...]
    gpus: tuple[int, ...]


@dataclass(frozen=True)
class _Head:
    """The keys of a fleet that are no tables."""

    name: str
    version: str
    out: Path
    sequence: int = 1
    work: Path | None = None
    layout: str = "directory"
    threads: int = 1
    canary_percent: int = 100
    expires: str = ""
    extends: Path | None = None

    def __post_init__(self) -> None:
        check(bool(_NAME.fullmatch(self.name)), _name_rule(self.name))
        is_version = bool(_VERSION.fullmatch(self.version))
        check(is_version, f"version {self.version!r:.80} is no semantic version, as 1.2.0 is")
        check(1 <= self.sequence < 1 << 31, "sequence is 1 to 2147483647")
        check(1 <= self.threads <= 1024, "threads is 1 to 1024")
        check(1 <= self.canary_percent <= 100, "canary_percent is 1 to 100")
        check_one_of("layout", self.layout, LAYOUTS)
        is_time = not self.expires or bool(_EXPIRES.fullmatch(self.expires))
        check(is_time, "expires is a time of UTC as 2027-01-31T00:00:00Z is")


@dataclass(frozen=True)
class FleetManifest(_Head):
    """version: of the models, semantic. sequence: of the index, which devices never let go down.
    out: the folder of artefacts; work: what a build keeps, default OUT.work. threads: of every
    step, part of what it gives. canary_percent: of the devices that get this version. expires: of
    the index. extends: the artefacts of earlier versions, which the others go on to get."""

    base: Path = Path()
    models: tuple[FleetModel, ...] = ()
    devices: tuple[FleetDevice, ...] = ()
    recipes: tuple[FleetRecipe, ...] = ()
    texts: TextOptions = field(default_factory=TextOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("models", "devices", "recipes"):
            _check_names(what, [one.name for one in getattr(self, what)])
        for device in self.devices:
            self.recipes_of(device)
            self.models_of(device)
        for recipe in self.recipes:
            try:
                check_steps(recipe.steps, self.texts)
            except InvalidArgumentError as error:
                message = f"recipe '{recipe.name}': {error}"
                raise InvalidArgumentError(message, code=error.code) from error
        check(
            self.canary_percent == 100 or self.extends is not None,
            "canary_percent below 100 leaves devices without a version: name what `extends` has",
        )

    @property
    def work_dir(self) -> Path:
        return self.work or self.out.with_name(self.out.name + ".work")

    def recipes_of(self, device: FleetDevice) -> list[FleetRecipe]:
        """In order of preference. InvalidArgumentError for a name that no recipe has."""
        return _named(self.recipes, device.recipes, f"device '{device.name}'")

    def models_of(self, device: FleetDevice) -> list[FleetModel]:
        """InvalidArgumentError for a name that no model has."""
        return _named(self.models, device.models, f"device '{device.name}'")


def read_fleet(path: Path) -> FleetManifest:
    """FormatError, or InvalidArgumentError for values, with the file and the key."""
    value = read_toml(path)
    where, base = str(path), path.parent
    refuse_unknown(value, tuple(f.name for f in fields(FleetManifest) if f.name != "base"), where)
    rows = {key: _rows(value, key, where) for key in ("models", "devices", "recipes")}
    texts = read_texts(value.pop("texts", {}), base, f"{where}: [texts]")
    rest = {key: item for key, item in value.items() if key not in rows}
    head = read_table({"name": path.stem, **rest}, _Head, base, where)
    models = tuple(read_table(row, FleetModel, base, at) for row, at in rows["models"])
    devices = tuple(_device(row, base, at) for row, at in rows["devices"])
    recipes = tuple(_recipe(row, base, at) for row, at in rows["recipes"])
    try:
        return FleetManifest(
            **vars(head), base=base, models=models, devices=devices, recipes=recipes, texts=texts
        )
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}: {error}", code=error.code) from error


def _rows(value: dict[str, Any], key: str, where: str) -> list[tuple[Any, str]]:
    found = value.get(key)
    if not isinstance(found, list) or not found:
        raise FormatError(f"{where}: no [[{key}]]; add at least one", code="json_missing_key")
    return [(row, f"{where}: [[{key}]] {number}") for number, row in enumerate(found, 1)]


def _device(row: Any, base: Path, where: str) -> FleetDevice:
    known: dict[str, Any] = {}
    if isinstance(row, dict) and isinstance(row.get("profile"), str):
        try:
            known = _from_profile(row["profile"], base)
        except EdgeError as error:
            raise type(error)(f"{where}: {error}", code=error.code) from error
        row = {**known, **row}
    return read_table(row, FleetDevice, base, where)


def _from_profile(name: str, base: Path) -> dict[str, Any]:
    """What a profile knows of the keys of a device."""
    from edgellm.profiles import find_profile

    profile = find_profile(str(base / name) if name.endswith(".toml") else name)
    reads, app_bytes = profile.memory.read_gb_per_s, profile.app_bytes
    known = {
        "ram_mib": None if app_bytes is None else app_bytes >> 20,
        "context": profile.defaults.n_ctx,
        "kv": profile.defaults.kv,
        "read_gb_per_s": None if reads is None else reads.value,
    }
    return {key: value for key, value in known.items() if value is not None}


def _recipe(row: Any, base: Path, where: str) -> FleetRecipe:
    """With [[recipes.steps]], or with the keys of a single step `quantize`."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise FormatError(f"{where}: needs a 'name'", code="json_missing_key")
    rest = {key: item for key, item in row.items() if key != "name"}
    tables = rest.pop("steps", None)
    if tables is None:
        tables = [{"do": "quantize", **rest}]
    else:
        refuse_unknown(rest, (), f"{where}: beside its steps")
    if not isinstance(tables, list) or not tables:
        raise FormatError(f"{where}: 'steps' must be tables", code="json_type")
    gpus = tuple(_gpus(one, f"{where}: step {n}") for n, one in enumerate(tables, 1))
    steps = tuple(read_step(one, base, f"{where}: step {n}") for n, one in enumerate(tables, 1))
    return FleetRecipe(row["name"], steps, tuple(tables), gpus)


def _gpus(table: Any, where: str) -> int:
    """Taken out of a step's table: where it runs is nothing to the step."""
    found = table.pop("gpus", 0) if isinstance(table, dict) else 0
    if type(found) is not int or not 0 <= found <= MAX_GPUS:
        message = f"{where}: 'gpus' is a whole number, 0 to {MAX_GPUS}"
        raise InvalidArgumentError(message, code="invalid_argument")
    return found


def _check_names(what: str, names: list[str]) -> None:
    for name in names:
        check(bool(_NAME.fullmatch(name)), f"{what}: {_name_rule(name)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    check(not twice, f"{what}: {', '.join(map(repr, twice))} stands twice")
    check(len(names) <= MAX_NAMED, f"{what}: more than {MAX_NAMED}")


def _name_rule(name: str) -> str:
    return f"name {name!r:.80} must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with no dot"


def _named(known: Sequence[T], wanted: tuple[str, ...], where: str) -> list[T]:
    by_name = {one.name: one for one in known}
    missing = [name for name in wanted if name not in by_name]
    check(not missing, f"{where}: {', '.join(map(repr, missing))} not known")
    return [by_name[name] for name in wanted] if wanted else list(known)
