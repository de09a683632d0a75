"""What a required signature costs of a cold load: python benchmarks/verify_cost.py MODEL.edge.

Signs a copy of the file beside it with a key made for that, then loads it and makes one token, with
require_signature and without, in turn, each in a process of its own and with the file's pages
dropped from the cache first. Prints medians and what the signature adds; exit code 1 where that is
more than a fifth. For a file of half a GB or more (of a small one it measures how long Python takes
to import cryptography) and a machine on which nothing else runs; takes the file's size in DIR.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from edgellm.fleet.bundle import bundle_beside

MOST_SHARE = 0.2
_LOAD = """
import sys, time
import edgellm
begin = time.perf_counter()
with edgellm.load(sys.argv[1], require_signature=sys.argv[2] or None) as model:
    model.generate([0], max_tokens=1, stop_ids=[])
print(time.perf_counter() - begin)
"""


def drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold_seconds(path: Path, pem: str) -> float:
    drop_from_cache(path)
    command = [sys.executable, "-c", _LOAD, str(path), pem]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("directory", type=Path, nargs="?", help="on the disk that counts")
    parser.add_argument("--rounds", type=int, default=7)
    wish = parser.parse_args()
    from edgellm.converters.fleet.sign import make_key
    from model_signing import signing

    with tempfile.TemporaryDirectory(dir=wish.directory) as scratch:
        path, key = Path(scratch) / "model.edge", Path(scratch) / "key"
        shutil.copyfile(wish.model, path)
        make_key(key)
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
        signer.sign(path, bundle_beside(path))
        plain, signed = [], []
        cold_seconds(path, "")  # whose hashes are remembered from here on
        for _ in range(wish.rounds):
            plain.append(cold_seconds(path, ""))
            signed.append(cold_seconds(path, f"{key}.pub"))
        size = path.stat().st_size / 1e6
    cold, checked = statistics.median(plain), statistics.median(signed)
    share = statistics.median(s / p for s, p in zip(signed, plain, strict=True)) - 1
    print(f"{wish.model.name}, {size:.1f} MB: {cold * 1e3:.1f} ms, signed {checked * 1e3:.1f} ms")
    print(f"a signature adds {share:.1%} (may be {MOST_SHARE:.0%})")
    sys.exit(share > MOST_SHARE)


if __name__ == "__main__":
    main()
