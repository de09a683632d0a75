"""Runs the steps of a graph on an engine: order, failures that stay where they are, time left.

Knows no engine: one is given steps that may begin, and tells what became of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgellm.errors import EdgeError

from .graph import Graph
from .node import Node, write_node
from .step import done_step

DONE, FAILED, SKIPPED = "done", "failed", "skipped"


@dataclass(frozen=True)
class Told:
    """What an engine tells of a step: how far it is, or how it ended. result: of Done.to_dict().
    error: why it failed."""

    digest: str
    what: str = ""
    n_done: int = 0
    n_total: int = 0
    result: dict[str, Any] | None = None
    error: EdgeError | None = None

    @property
    def has_ended(self) -> bool:
        return self.result is not None or self.error is not None


class Engine(Protocol):
    """Where steps run. has_room: whether one more may begin beside those that run. wait: what is
    told next; blocks, and is called only while something runs. close: ends what runs."""

    def has_room(self, node: Node) -> bool: ...

    def start(self, node: Node) -> None: ...

    def wait(self) -> Told: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What became of a step. state: DONE, FAILED or SKIPPED (a step that it needs failed).
    was_done: before this build."""

    node: Node
    state: str
    was_done: bool = False
    seconds: float = 0.0
    figures: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    path: Path | None = None
    peak_rss_bytes: int | None = None
    error: EdgeError | None = None


@dataclass(frozen=True)
class FleetProgress:
    """Passed to the progress callback. label: of the step that said something, or ended; what,
    n_done, n_total: of its own work. n_steps_done of n_steps; eta_s: of what is left, None before
    anything ended."""

    label: str
    what: str
    n_done: int
    n_total: int
    n_steps_done: int
    n_steps: int
    eta_s: float | None


ProgressFn = Callable[[FleetProgress], None]


class Schedule:
    def __init__(self, work: Path, graph: Graph, progress: ProgressFn | None) -> None:
        self._work, self._graph, self._progress = work, graph, progress
        self.outcomes: dict[str, Outcome] = {}
        self._waiting = dict(graph.nodes)
        self._running: dict[str, Node] = {}
        self._seconds = self._estimated = 0.0  # of steps that ended in this build
        self._n_at_once = 1
        for node in graph.nodes.values():
            write_node(work, node)

    def find_done(self) -> None:
        """Takes what earlier builds have done, without an engine."""
        for digest, node in list(self._waiting.items()):
            done = done_step(self._work, node)
            if done is not None:
                self._ended(node, done.to_dict())
                del self._waiting[digest]

    @property
    def is_finished(self) -> bool:
        return not self._waiting and not self._running

    def run(self, engine: Engine) -> None:
        """Until nothing is left that can be done."""
        try:
            while not self.is_finished:
                self._skip()
                for node in list(self._ready()):
                    if engine.has_room(node):
                        engine.start(self._begin(node))
                if self._running:
                    self._take(engine.wait())
        finally:
            engine.close()

    def _begin(self, node: Node) -> Node:
        self._running[node.digest] = self._waiting.pop(node.digest)
        self._n_at_once = max(self._n_at_once, len(self._running))
        return node

    def _ready(self) -> Iterator[Node]:
        """The longest first: it is what a build waits for in the end."""
        ready = [
            node
            for node in self._waiting.values()
            if all(self._is_done(one) for one in node.inputs)
            and all(one in self.outcomes for one in node.after)
        ]
        return iter(sorted(ready, key=lambda node: (-node.seconds, node.digest)))

    def _is_done(self, digest: str) -> bool:
        outcome = self.outcomes.get(digest)
        return outcome is not None and outcome.state == DONE

    def _skip(self) -> None:
        """Steps that need one that failed; in order, so that one pass finds all."""
        for digest, node in list(self._waiting.items()):
            for one in node.inputs:
                outcome = self.outcomes.get(one)
                if outcome is not None and outcome.state != DONE:
                    del self._waiting[digest]
                    self.outcomes[digest] = Outcome(node, SKIPPED, error=outcome.error)
                    break

    def _take(self, told: Told) -> None:
        node = self._running[told.digest]
        if told.has_ended:
            del self._running[told.digest]
            if told.result is not None:
                self._ended(node, told.result)
                self._seconds += told.result["seconds"]
                self._estimated += node.seconds
            else:
                self.outcomes[told.digest] = Outcome(node, FAILED, error=told.error)
        self._show(node, told)

    def _ended(self, node: Node, result: dict[str, Any]) -> None:
        self.outcomes[node.digest] = Outcome(
            node,
            DONE,
            result["was_done"],
            result["seconds"],
            result["figures"],
            tuple(result["warnings"]),
            Path(result["path"]),
            result["peak_rss_bytes"],
        )

    def _show(self, node: Node, told: Told) -> None:
        if self._progress is None:
            return
        what = told.what
        if told.has_ended:
            what = "failed" if told.error is not None else "done"
        progress = FleetProgress(
            node.label,
            what,
            told.n_done,
            told.n_total,
            len(self.outcomes),
            len(self._graph.nodes),
            self._eta_s(),
        )
        self._progress(progress)

    def _eta_s(self) -> float | None:
        """Estimates of what is left, corrected by how wrong they were, over those at once."""
        if not self._estimated:
            return None
        left = sum(node.seconds for node in (*self._waiting.values(), *self._running.values()))
        return left * self._seconds / self._estimated / self._n_at_once
