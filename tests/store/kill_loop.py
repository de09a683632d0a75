"""Kills processes that change a store, and looks after every kill whether the store is sound.

`python kill_loop.py FOLDER CHECKPOINT N_KILLS` forks two writers at a time, kills one or both with
SIGKILL at a random moment, and checks: every name that a writer was told is there is there, unless
somebody began to remove it; every model that is named is whole. Prints counts as JSON. A process of
its own, because it forks: nothing here may start a thread before a fork.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

# Before any fork: a child imports nothing, and is in the middle of its work at once.
import edgellm.converters.encode
import edgellm.converters.tokenizer  # noqa: F401
from edgellm.converters import convert

from edgellm.edgefile import verify
from edgellm.store.names import Reference, parse_reference
from edgellm.store.store import Store

FORMATS = ("E4_16", "E4_32", "E8_32", "F16")
MAX_CHANGES = 5  # of both writers before they are killed; then they have a moment more
LONGEST_S = 0.2


def main(folder: Path, checkpoint: Path, n_kills: int) -> Counter[str]:
    store = Store(folder / "store")
    counts: Counter[str] = Counter()
    rng = random.Random(7)
    believed: dict[str, set[str]] = {}  # writer -> names it was told that it has
    while counts["kills"] < n_kills:
        pids = {}
        for writer in ("left", "right"):
            log = folder / f"{writer}.log"
            log.write_bytes(b"")
            pids[writer] = _fork(store, checkpoint, writer, log, rng.random())
        logs = [folder / f"{writer}.log" for writer in pids]
        _wait_for_changes(logs, rng.randrange(MAX_CHANGES), limit_s=120)
        time.sleep(rng.uniform(0.0, LONGEST_S))
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
            time.sleep(rng.uniform(0.0, LONGEST_S / 4))  # one cleans up what the other has left
        for writer, pid in pids.items():
            _, status = os.waitpid(pid, 0)
            if not os.WIFSIGNALED(status):
                raise AssertionError(f"{writer} ended by itself with {status}")
            counts["kills"] += 1
            _replay(folder / f"{writer}.log", believed.setdefault(writer, set()), counts)
        _check(store, believed, deep=counts["kills"] % 20 == 0)
    _check(store, believed, deep=True)
    return counts


def _wait_for_changes(logs: list[Path], n_changes: int, limit_s: float) -> None:
    """Until the writers have made so many between them: how long that takes depends on what else
    this machine does."""
    end = time.monotonic() + limit_s
    while sum(log.read_bytes().count(b"\n") for log in logs) < n_changes:
        if time.monotonic() > end:
            raise AssertionError(f"no {n_changes} changes in {limit_s} s")
        time.sleep(0.002)


def _fork(store: Store, checkpoint: Path, writer: str, log: Path, seed: float) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        with log.open("ab", buffering=0) as out:
            _write(store, checkpoint, writer, out, random.Random(seed))
    except BaseException as error:
        sys.stderr.write(f"{writer}: {type(error).__name__}: {error}\n")
        sys.stderr.flush()
    os._exit(1)


def _write(store: Store, checkpoint: Path, writer: str, out, rng: random.Random) -> None:
    """Changes the store until it is killed. A line says what is begun, or done: "+" has a name,
    "-" is about to lose it."""
    name = f"{writer}/model"
    while True:
        action = rng.choice(("convert", "tag", "alias", "rm"))
        tag = f"{rng.randrange(4)}.0.{rng.randrange(3)}"
        names = [ref for ref, _ in store.index().references() if ref.name == name]
        if action == "convert" or not names:
            format = rng.choice(FORMATS)
            reference = Reference(name, f"made-{format}")
            # The key is shared by both writers: one of them waits for the other.
            store.make(
                format, lambda path, f=format: convert(checkpoint, path, format=f), reference, "x"
            )
            out.write(f"convert + {reference}\n".encode())
        elif action == "tag":
            new = Reference(name, f"tag-{tag}")
            store.tag(rng.choice(names), new)
            out.write(f"tag + {new}\n".encode())
        elif action == "alias":
            store.alias(f"{writer}-alias", Reference(name))
            out.write(b"alias . \n")
        else:
            gone = rng.choice(names)
            out.write(f"rm - {gone}\n".encode())
            store.remove([gone])


def _replay(log: Path, names: set[str], counts: Counter[str]) -> None:
    for line in log.read_text(encoding="ascii").splitlines():
        action, sign, name = line.split(" ", 2)
        counts[action] += 1
        counts["changes"] += 1
        if sign == "+":
            names.add(name)
        elif sign == "-":
            names.discard(name)


def _check(store: Store, believed: dict[str, set[str]], *, deep: bool) -> None:
    """deep: hash every model, after a writer has cleaned up, of which nothing may be left."""
    if deep:
        store.discard_unfinished()
        assert list((store.directory / "work").iterdir()) == []
        stems = {path.stem for path in (store.directory / "objects").iterdir()}
        assert stems == set(store.index().models)
    index = store.index()
    for names in believed.values():
        for name in names:
            assert index.find(parse_reference(name)) is not None, f"{name} is lost"
    for model in index.models.values():
        path = store.path(model.digest)
        assert path.stat().st_size == model.n_bytes, f"{path} is not whole"
        if deep:
            assert verify(path).metadata["edgellm.header_sha256"] == model.digest


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
