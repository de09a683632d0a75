"""Two nodes of Ray on this machine, each a group of processes that can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 300


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Cluster:
    """address: of the head. Nodes see the same folders, as on a shared file system."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "ray.log").open("wb")
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self.head = self._start("--head", f"--port={self._port}", "--include-dashboard=false")
        try:
            self.second = self.start_second()
        except BaseException:
            kill_group(self.head)
            raise

    def start_second(self) -> subprocess.Popen[bytes]:
        return self._start(f"--address={self.address}")

    def kill_second(self) -> None:
        """As a machine that lost its power; another takes its place."""
        kill_group(self.second)
        self.second = self.start_second()

    def close(self) -> None:
        for one in (self.second, self.head):
            kill_group(one)
        self._log.close()

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        ray = Path(sys.executable).with_name("ray")
        places = ["--node-ip-address=127.0.0.1", "--num-cpus=2", f"--memory={4 << 30}"]
        places += [f"--object-store-memory={100 << 20}", "--disable-usage-stats"]
        process = subprocess.Popen(
            [str(ray), "start", "--block", *options, *places],
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        assert process.stdout is not None
        for line in process.stdout:
            if b"--block" in line:  # it runs, and says how to end it
                return process
        kill_group(process)
        raise AssertionError(f"ray did not start: {self._log.name} says why")


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Everything that was started from it."""
    for pid in reversed([process.pid, *_below(process.pid)]):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _below(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = [int(one) for one in task.read_text().split()]
        except OSError:
            continue
        for one in below:
            found += [one, *_below(one)]
    return found


@contextmanager
def cluster_in(folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.close()
