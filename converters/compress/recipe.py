"""What a compression is: TOML -> CompressRecipe. Every key is checked, unknown ones are refused.

Paths are relative to the file. Knows the steps by their table only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgellm.errors import FormatError, InvalidArgumentError

from ..calibrate.held_out import BUILTIN_TEXT
from ..distill.recipe import NOT_OF_BITS, TABLES, check
from ..recipe_file import read_toml, refuse_unknown
from ..tables import read_table
from .step import CHECKPOINT, EDGE, Step, Texts
from .steps import STEPS

MAX_STEPS = 64
BUILTIN = "builtin"  # the converter's own text


@dataclass(frozen=True)
class TextOptions:
    """train, valid, calibration: as in step.Texts. window_tokens, valid_windows: to measure on, at
    most so many windows of so many tokens."""

    train: tuple[Path, ...] = ()
    valid: tuple[Path, ...] = ()
    calibration: tuple[Path, ...] = ()
    window_tokens: int = 512
    valid_windows: int = 16

    def __post_init__(self) -> None:
        check(8 <= self.window_tokens <= 1 << 16, "window_tokens is 8 to 65536")
        check(1 <= self.valid_windows <= 1 << 16, "valid_windows is 1 to 65536")

    @property
    def files(self) -> Texts:
        return Texts(self.train, self.valid, self.calibration)


@dataclass(frozen=True)
class ChosenStep:
    """A step and the options of its table; name: as in STEPS."""

    name: str
    options: Any

    @property
    def step(self) -> Step:
        return STEPS[self.name]

    def digest(self, digest_of: Callable[[Path], str]) -> str:
        """SHA-256 of the settings, defaults included; a file that they name counts by what it
        holds, which digest_of() says."""
        value = _plain(asdict(self.options), digest_of)
        for key in NOT_OF_BITS:
            value.get("batch", {}).pop(key, None)
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CompressRecipe:
    """source: a checkpoint. out: the .edge file. work: what a run keeps; default OUT.work. threads:
    0 for all performance cores."""

    source: Path
    out: Path
    steps: tuple[ChosenStep, ...]
    texts: TextOptions
    name: str = ""
    work: Path | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        check(self.out.suffix == ".edge", f"out is a .edge file, not {self.out.name}")
        check(0 <= self.threads <= 1024, "threads is 0 to 1024")
        check(len(self.steps) <= MAX_STEPS, f"at most {MAX_STEPS} steps")
        check_steps(self.steps, self.texts)

    @property
    def work_dir(self) -> Path:
        return self.work or self.out.with_name(self.out.name + ".work")


def check_steps(steps: tuple[ChosenStep, ...], texts: TextOptions) -> None:
    """InvalidArgumentError where a step cannot take what the one before gives, has no text to learn
    from, or no .edge file comes out in the end."""
    kind = CHECKPOINT
    for number, chosen in enumerate(steps, start=1):
        step = chosen.step
        check(
            step.takes == kind,
            f"step {number}, '{chosen.name}', takes {_KINDS[step.takes]}, but is given "
            f"{_KINDS[kind]}; change the order of the steps",
        )
        for text in step.reads:
            # Without text a conversion rounds to nearest; what learns cannot do without.
            is_there = bool(getattr(texts, text)) or text == "calibration"
            check(is_there, f"step {number}, '{chosen.name}', needs [texts] {text} = [...]")
        kind = step.gives
    check(kind == EDGE, "the steps end without a .edge file; add a step 'quantize'")


def read_compress_recipe(path: Path) -> CompressRecipe:
    """FormatError, or InvalidArgumentError for values, with the file and the key."""
    value = read_toml(path)
    where, base = str(path), path.parent
    refuse_unknown(value, tuple(item.name for item in fields(CompressRecipe)), where)
    tables = value.pop("steps", None)
    if not isinstance(tables, list) or not tables:
        raise FormatError(f"{where}: no [[steps]]; add at least one", code="json_missing_key")
    steps = tuple(
        read_step(table, base, f"{where}: step {number}") for number, table in enumerate(tables, 1)
    )
    texts = read_texts(value.pop("texts", {}), base, f"{where}: [texts]")
    head = read_table({"name": path.stem, **value}, _Head, base, where)
    try:
        return CompressRecipe(steps=steps, texts=texts, **vars(head))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}: {error}", code=error.code) from error


@dataclass(frozen=True)
class _Head:
    """The keys of a recipe that are no tables."""

    source: Path
    out: Path
    name: str = ""
    work: Path | None = None
    threads: int = 0


_KINDS = {CHECKPOINT: "a checkpoint", EDGE: "a .edge file"}


def read_step(table: Any, base: Path, where: str) -> ChosenStep:
    """One of [[steps]]. base: of relative paths; where: named by errors."""
    if not isinstance(table, dict):
        raise FormatError(f"{where}: not a table", code="json_type")
    name = table.get("do")
    if not isinstance(name, str) or name not in STEPS:
        raise FormatError(
            f"{where}: do = {json.dumps(name, default=str)} is no step (steps: {', '.join(STEPS)})",
            code="json_unknown_key",
        )
    rest = {key: item for key, item in table.items() if key != "do"}
    return ChosenStep(name, _options(rest, STEPS[name].options, base, f"{where}, '{name}'"))


def _options(table: dict[str, Any], cls: type[Any], base: Path, where: str) -> Any:
    """With the tables of a training recipe that such options have."""
    inner = {item.name for item in fields(cls)} & TABLES.keys() & table.keys()
    read = {key: read_table(table[key], TABLES[key], base, f"{where}: [{key}]") for key in inner}
    rest = {key: item for key, item in table.items() if key not in inner}
    return read_table(rest, cls, base, where, read)


def read_texts(table: Any, base: Path, where: str) -> TextOptions:
    """The table [texts], with the converter's own text by its name."""
    texts = read_table(table, TextOptions, base, where)
    named = tuple(BUILTIN_TEXT if one == base / BUILTIN else one for one in texts.calibration)
    return TextOptions(**{**vars(texts), "calibration": named})


def _plain(value: Any, digest_of: Callable[[Path], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item, digest_of) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, digest_of) for item in value]
    return digest_of(value) if isinstance(value, Path) else value
