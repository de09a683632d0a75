"""Steps as tasks of Ray, on this machine or a cluster that sees the same folder, or the same URL.

A thin adapter: Ray places tasks by cores, memory and GPUs and starts them again where a worker or a
node was lost; what a step is and when it may begin is decided elsewhere. Needs the extra "fleet".
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

from edgellm.errors import DeviceError, EdgeError, UnsupportedError

from .mirror import Mirror, run_mirrored
from .node import Node
from .schedule import Told
from .step import done_step, run_step

HINT = "the engine ray needs ray; install it with: pip install 'edgellm[fleet]'"
MAX_RETRIES = 100  # of a step whose worker or node was lost; its own failures are final
_MAX_AT_ONCE = 10_000
# Ray's switch for clusters, named after the systems where it is off. Off, it listens on loopback
# alone; given a loopback address it looks up another one in its place (seen with Ray 2.60).
_MANY_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_ALONE = {"address": "local", "include_dashboard": False}


class RayEngine:
    """address: of a cluster, as `ray start` prints it; "": one is started here, for this build.
    UnsupportedError without ray, DeviceError where the cluster does not answer."""

    def __init__(self, work: Path, address: str, artefacts: str = "") -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not address:
            os.environ[_MANY_MACHINES] = "0"
        try:
            import ray
        except ModuleNotFoundError:
            raise UnsupportedError(HINT, code="feature_unsupported") from None
        self._ray: Any = ray
        self._work, self._artefacts = work, artefacts
        self._mirror = Mirror(artefacts) if artefacts else None
        self._running: dict[Any, Node] = {}
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        # "local": not one that happens to run here.
        options |= {"address": address} if address else _ALONE
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = address or "this machine"
            message = f"Ray on {where} does not answer: {str(error)[:300]}"
            raise DeviceError(message, code="fleet_worker") from error
        if not address:
            self._check_loopback()
        self._task = ray.remote(max_retries=MAX_RETRIES)(run_task)
        self._refused: list[Told] = []
        self._most_bytes, self._most_gpus = self._most("memory"), self._most("GPU")

    def _most(self, resource: str) -> int:
        """That any node has of it: what asks for more would wait for ever."""
        nodes = [one["Resources"] for one in self._ray.nodes() if one["Alive"]]
        return max((int(one.get(resource, 0)) for one in nodes), default=0)

    def _check_loopback(self) -> None:
        """DeviceError where other machines could reach what was started here."""
        addresses = {str(one["NodeManagerAddress"]) for one in self._ray.nodes()}
        if all(ipaddress.ip_address(one).is_loopback for one in addresses):
            return
        self._ray.shutdown()
        message = (
            f"Ray listens on {', '.join(sorted(addresses))}, not on the loopback, because this "
            "process had imported it before; use `edgellm fleet build`, or give an address"
        )
        raise DeviceError(message, code="fleet_worker")

    def has_room(self, node: Node) -> bool:  # noqa: ARG002  # Ray queues what does not fit yet
        return len(self._running) < _MAX_AT_ONCE

    def start(self, node: Node) -> None:
        if node.gpus > self._most_gpus:
            has = f"no machine of Ray has more than {self._most_gpus}"
            message = f"{node.label}: is to have {node.gpus} GPUs, and {has}"
            error = DeviceError(message, code="fleet_worker")
            self._refused.append(Told(node.digest, error=error))
            return
        memory = min(node.memory_bytes, self._most_bytes)
        task = self._task.options(
            num_cpus=int(node.about["threads"]), memory=memory or None, num_gpus=node.gpus
        )
        self._running[task.remote(str(self._work), node.digest, self._artefacts)] = node

    def wait(self) -> Told:
        if self._refused:
            return self._refused.pop()
        (ended,), _ = self._ray.wait(list(self._running), num_returns=1)
        node = self._running.pop(ended)
        try:
            result, error = self._ray.get(ended)
        except self._ray.exceptions.RayError as lost:
            message = f"{node.label}: Ray gave up on it: {str(lost)[:300]}"
            return Told(node.digest, error=DeviceError(message, code="fleet_worker"))
        if self._mirror is None or result is None:
            return Told(node.digest, result=result, error=error)
        return self._fetched(node, result)

    def _fetched(self, node: Node, result: dict[str, Any]) -> Told:
        """What another machine made, here."""
        assert self._mirror is not None
        try:
            self._mirror.fetch_step(self._work, node)
            done = done_step(self._work, node)
        except EdgeError as error:
            return Told(node.digest, error=error)
        if done is None:
            message = f"{node.label}: done, but not at {self._artefacts}; start the build again"
            return Told(node.digest, error=DeviceError(message, code="fleet_worker"))
        return Told(node.digest, result={**result, "path": str(done.path)})

    def close(self) -> None:
        """Cancels what runs; a cluster that was there stays."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        self._ray.shutdown()


def run_task(
    work: str, digest: str, artefacts: str
) -> tuple[dict[str, Any] | None, EdgeError | None]:
    """A step, in a worker of Ray. What it raises on purpose is an answer, and not tried again."""
    try:
        if artefacts:
            return run_mirrored(Path(work), digest, Mirror(artefacts)).to_dict(), None
        return run_step(Path(work), digest).to_dict(), None
    except EdgeError as error:
        return None, error
