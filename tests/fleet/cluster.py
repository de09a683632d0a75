"""Two nodes of Ray on this machine, each a group of processes that can be killed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MOST_STARTS = 10


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Cluster:
    """address: of the head. Nodes see the same folders, as on a shared file system."""

    def __init__(self, folder: Path, n_gpus: int) -> None:
        self._log = (folder / "ray.log").open("wb")
        self._port = free_port()
        self._n_gpus = n_gpus
        self.address = f"127.0.0.1:{self._port}"
        self.head = self._start(
            "--head", f"--port={self._port}", "--include-dashboard=false", "--num-gpus=0"
        )
        try:
            self.second = self.start_second()
        except BaseException:
            kill_group(self.head)
            raise

    def start_second(self) -> subprocess.Popen[bytes]:
        return self._start(f"--address={self.address}", f"--num-gpus={self._n_gpus}")

    def kill_second(self) -> None:
        """As a machine that lost its power; another takes its place."""
        kill_group(self.second)
        self.second = self.start_second()

    def kill_worker(self) -> bool:
        """A process that does a step, of any node; whether there was one."""
        for pid in [*below(self.head.pid), *below(self.second.pid)]:
            try:
                if b"run_task" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    return True
            except OSError:
                continue
        return False

    def close(self) -> None:
        for one in (self.second, self.head):
            kill_group(one)
        self._log.close()

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        """Ray gives a node 30 s to start, which a busy machine may not keep to."""
        for _ in range(MOST_STARTS):
            process = self._started(*options)
            if process is not None:
                return process
        raise AssertionError(f"ray did not start: {self._log.name} says why")

    def _started(self, *options: str) -> subprocess.Popen[bytes] | None:
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
        return None


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Everything that was started from it, also where it has ended itself."""
    for pid in reversed([process.pid, *below(process.pid)]):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def listening(pids: list[int]) -> list[str]:
    """Addresses that these processes listen on, as the kernel writes them."""
    sockets: set[str] = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(os.readlink(link))
            except OSError:
                continue
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                found.append(words[1].partition(":")[0])
    return found


def below(pid: int) -> list[int]:
    """Processes that were started from it."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            started = [int(one) for one in task.read_text().split()]
        except OSError:
            continue
        for one in started:
            found += [one, *below(one)]
    return found


@contextmanager
def cluster_in(folder: Path, n_gpus: int = 0) -> Iterator[Cluster]:
    """n_gpus: that the second node says to have."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        # Else whether nodes ask each other for one depends on what is in the user's folder.
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        cluster = Cluster(folder, n_gpus)
        try:
            yield cluster
        finally:
            cluster.close()
