"""What a required signature costs of a cold load: python benchmarks/verify_cost.py MODEL.edge.

Signs a copy of the file beside it with a key made for that, then loads it and makes one token:
plain, signed for the first time (every byte is hashed), and signed again (it is remembered that
nobody wrote to it since), in turn, each in a process of its own and with the file's pages dropped
from the cache first. Prints medians and what the signature adds; exit code 1 where that is more
than a fifth the first time. For a file of half a GB or more (of a small one it measures how long
Python takes to import cryptography) and a machine on which nothing else runs; takes the file's size
in DIR.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MOST_SHARE = 0.2
_SETTLED_S = 3.0  # a file that was just written is not remembered
_LOAD = """
import sys, time
import edgellm
begin = time.perf_counter()
verify = sys.argv[3]
with edgellm.load(sys.argv[1], require_signature=sys.argv[2] or None, verify=verify) as model:
    model.generate([0], max_tokens=1, stop_ids=[])
print(time.perf_counter() - begin)
"""


def drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold_seconds(path: Path, pem: str, cache: Path, verify: str = "once") -> float:
    """cache: where is remembered what was hashed."""
    drop_from_cache(path)
    command = [sys.executable, "-c", _LOAD, str(path), pem, verify]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("directory", type=Path, nargs="?", help="on the disk that counts")
    parser.add_argument("--rounds", type=int, default=7)
    wish = parser.parse_args()
    from edgellm.converters.fleet.sign import make_key, sign_beside

    with tempfile.TemporaryDirectory(dir=wish.directory) as scratch:
        path, key, cache = (Path(scratch) / one for one in ("model.edge", "key", "cache"))
        shutil.copyfile(wish.model, path)
        make_key(key)
        sign_beside(path, key)
        time.sleep(_SETTLED_S)
        plain, first, again = [], [], []
        cold_seconds(path, "", cache, "always")  # its own hashes are remembered from here on
        for _ in range(wish.rounds):
            plain.append(cold_seconds(path, "", cache))
            shutil.rmtree(cache / "edgellm" / "hashed", ignore_errors=True)
            first.append(cold_seconds(path, f"{key}.pub", cache))
            again.append(cold_seconds(path, f"{key}.pub", cache))
        size = path.stat().st_size / 1e6
    cold = statistics.median(plain)
    print(f"{wish.model.name}, {size:.1f} MB: {cold * 1e3:.1f} ms")
    for what, seconds in (("first", first), ("again", again)):
        share = statistics.median(s / p for s, p in zip(seconds, plain, strict=True)) - 1
        took = f"{statistics.median(seconds) * 1e3:.1f} ms"
        print(f"signed, {what}: {took}; it adds {share:.1%} (may be {MOST_SHARE:.0%})")
    sys.exit(statistics.median(s / p for s, p in zip(first, plain, strict=True)) - 1 > MOST_SHARE)


if __name__ == "__main__":
    main()
