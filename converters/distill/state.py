"""What a run has done so far, on disk: a folder per saved step, the two newest of them.

A folder appears by renaming, and state.json has the SHA-256 of the files beside it: after
`kill -9` a step is there whole or not at all, and one that was damaged since is passed over for the
one before. No pickles. Knows no model.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgellm.errors import InvalidArgumentError

from ..calibrate.work import make_folder
from ..export.whole import whole_directory

VERSION = 1  # of the folder
N_KEPT = 2
_STEP = re.compile(r"step-(\d{8,12})")
_FILES = ("parameters.safetensors", "optimizer.safetensors")


@dataclass(frozen=True)
class State:
    """step: optimizer steps done. Where a run is in its data, and all that is drawn at random, is a
    function of the step and the recipe's seed."""

    step: int
    n_tokens: int
    parameters: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


class StateDir:
    """key: of all that decides what is learnt. InvalidArgumentError where the folder belongs to
    another key; FormatError where it cannot be written."""

    def __init__(self, root: Path, key: str) -> None:
        self.root, self._key = root, key
        make_folder(root)
        for folder in self._steps():
            found = _read_json(folder / "state.json")
            if found is not None and found.get("key") != key:
                raise InvalidArgumentError(
                    f"{root}: holds a run of another recipe, model, text, number of threads or "
                    "torch; remove it, or choose another `work`",
                    code="invalid_argument",
                )

    def newest(self) -> State | None:
        """Of the saved steps that are whole."""
        for folder in reversed(self._steps()):
            state = self._read(folder)
            if state is not None:
                return state
        return None

    def oldest_step(self) -> int:
        """From which a run may have to go on."""
        return min((int(path.name.partition("-")[2]) for path in self._steps()), default=0)

    def save(self, state: State) -> None:
        from safetensors.torch import save_file

        folder = self.root / f"step-{state.step:08d}"
        if folder.exists():  # damaged: what is whole is not made again
            shutil.rmtree(folder)
        with whole_directory(folder) as temporary:
            for name, tensors in zip(_FILES, (state.parameters, state.optimizer), strict=True):
                whole = {key: value.detach().contiguous() for key, value in tensors.items()}
                save_file(whole, temporary / name)
            value = {"version": VERSION, "key": self._key, "step": state.step}
            value |= {"n_tokens": state.n_tokens, "sha256": _digests(temporary)}
            (temporary / "state.json").write_text(json.dumps(value), encoding="utf-8")
        for old in self._steps()[:-N_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def _read(self, folder: Path) -> State | None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        value = _read_json(folder / "state.json")
        try:
            if value is None or value.get("version") != VERSION:
                return None
            if value.get("sha256") != _digests(folder):
                return None
            parameters, optimizer = (load_file(folder / name) for name in _FILES)
            return State(int(value["step"]), int(value["n_tokens"]), parameters, optimizer)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def _steps(self) -> list[Path]:
        found = [path for path in self.root.iterdir() if _STEP.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for name in _FILES:
        with (folder / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _read_json(path: Path) -> dict[str, Any] | None:
    """None where there is none, or it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
