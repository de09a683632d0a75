"""What verifying a signature costs beside a cold load: python benchmarks/verify_cost.py MODEL.edge.

Signs the file with a key made for it, then times, each in a process of its own and with the file's
pages dropped from the cache first: (a) require_signature(), (b) load() with verify="always" and one
token. Prints medians of five and their quotient; the promise is a quotient of at most 0.2.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

N_RUNS = 5
_VERIFY = """
import sys, time
from pathlib import Path
from edgellm.fleet.bundle import require_signature
file, bundle, pem = map(Path, sys.argv[1:])
begin = time.perf_counter()
require_signature(file, bundle, pem.read_text())
print(time.perf_counter() - begin)
"""
_LOAD = """
import sys, time
import edgellm
begin = time.perf_counter()
with edgellm.load(sys.argv[1], verify="always") as model:
    model.generate([0], max_tokens=1, stop_ids=[])
print(time.perf_counter() - begin)
"""


def drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(script: str, path: Path, *arguments: Path) -> float:
    times = []
    for _ in range(N_RUNS):
        drop_from_cache(path)
        command = [sys.executable, "-c", script, str(path), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(float(done.stdout))
    return statistics.median(times)


def main(path: Path) -> None:
    from edgellm.converters.fleet.sign import make_key
    from model_signing import signing

    with tempfile.TemporaryDirectory() as scratch:
        key, bundle = Path(scratch) / "key", Path(scratch) / "bundle.json"
        make_key(key)
        signing.Config().use_elliptic_key_signer(private_key=key).sign(path, bundle)
        verify_s = seconds(_VERIFY, path, bundle, key.with_name("key.pub"))
        load_s = seconds(_LOAD, path)
    size = path.stat().st_size / 1e6
    share = verify_s / load_s
    print(f"{path.name}, {size:.1f} MB: verify {verify_s * 1e3:.1f} ms, load {load_s * 1e3:.1f} ms")
    print(f"share {share:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
