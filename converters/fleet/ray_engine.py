"""Steps as tasks of Ray, on this machine or a cluster that sees the same folder.

A thin adapter: Ray places tasks by cores and memory and starts them again where a worker or a node
was lost; what a step is and when it may begin is decided elsewhere. Needs the extra "fleet".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edgellm.errors import DeviceError, EdgeError, UnsupportedError

from .node import Node
from .schedule import Told
from .step import run_step

HINT = "the engine ray needs ray; install it with: pip install 'edgellm[fleet]'"
MAX_RETRIES = 100  # of a step whose worker or node was lost; its own failures are final
_MAX_AT_ONCE = 10_000


class RayEngine:
    """address: of a cluster, as `ray start` prints it; "": one is started here, for this build.
    UnsupportedError without ray, DeviceError where the cluster does not answer."""

    def __init__(self, work: Path, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError:
            raise UnsupportedError(HINT, code="feature_unsupported") from None
        self._ray: Any = ray
        self._work = str(work)
        self._running: dict[Any, Node] = {}
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if address:
            options["address"] = address
        else:  # not one that happens to run here
            options |= {"address": "local", "include_dashboard": False}
            options |= {"_node_ip_address": "127.0.0.1"}  # which Ray 2.60 does not keep to
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = address or "this machine"
            message = f"Ray on {where} does not answer: {str(error)[:300]}"
            raise DeviceError(message, code="fleet_worker") from error
        self._task = ray.remote(max_retries=MAX_RETRIES)(run_task)
        self._most_bytes = max(
            (int(one["Resources"].get("memory", 0)) for one in ray.nodes() if one["Alive"]),
            default=0,
        )

    def has_room(self, node: Node) -> bool:  # noqa: ARG002  # Ray queues what does not fit yet
        return len(self._running) < _MAX_AT_ONCE

    def start(self, node: Node) -> None:
        # More than the largest node has would wait for ever.
        memory = min(node.memory_bytes, self._most_bytes)
        task = self._task.options(num_cpus=int(node.about["threads"]), memory=memory or None)
        self._running[task.remote(self._work, node.digest)] = node

    def wait(self) -> Told:
        (ended,), _ = self._ray.wait(list(self._running), num_returns=1)
        node = self._running.pop(ended)
        try:
            result, error = self._ray.get(ended)
        except self._ray.exceptions.RayError as lost:
            message = f"{node.label}: Ray gave up on it: {str(lost)[:300]}"
            return Told(node.digest, error=DeviceError(message, code="fleet_worker"))
        return Told(node.digest, result=result, error=error)

    def close(self) -> None:
        """Cancels what runs; a cluster that was there stays."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        self._ray.shutdown()


def run_task(work: str, digest: str) -> tuple[dict[str, Any] | None, EdgeError | None]:
    """A step, in a worker of Ray. What it raises on purpose is an answer, and not tried again."""
    try:
        return run_step(Path(work), digest).to_dict(), None
    except EdgeError as error:
        return None, error
