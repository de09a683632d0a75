"""What a vendor's writer makes of graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .ir import Graph


@dataclass(frozen=True)
class Written:
    """What a graph became: what its executor opens, and all files of it."""

    entry: Path
    files: tuple[Path, ...]


class GraphWriter(Protocol):
    """Writes the graphs of one bundle into its folder."""

    def write(self, graph: Graph, part: int) -> Written:
        """part: graphs of one part have the same constants."""

    def close(self) -> None:
        """Idempotent; all files are whole then."""
