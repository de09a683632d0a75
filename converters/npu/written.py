"""What a vendor's writer makes of graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgellm.npu.session import Runner

from .ir import Graph


@dataclass(frozen=True)
class Written:
    """What a graph became: what its executor opens, and all files of it. runner: what runs it on
    this machine, where nothing here opens the files. base: the folder that `entry` is in of every
    generation's, where there are several; None: the bundle's."""

    entry: Path
    files: tuple[Path, ...]
    runner: Runner | None = None
    base: Path | None = None


class GraphWriter(Protocol):
    """Writes the graphs of one bundle into its folder."""

    def write(self, part: int, graphs: Iterable[Graph]) -> Mapping[str, Written]:
        """All graphs of a part, by their names. They have the same constants, which are stored
        once. All files are whole when it returns."""
