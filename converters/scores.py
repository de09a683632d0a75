"""What the runtime makes of a few tokens of the finished file, for the file: `edgellm doctor` runs
the same tokens where the file is used and compares bits.

`python -m edgellm.converters.scores FILE N_THREADS` prints the blob.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgellm import _native
from edgellm.edgefile import EdgeWriter
from edgellm.errors import EdgeError, MemoryBudgetError, NumericError, UnsupportedError

N_TOKENS = 16
N_BEST = 8
# A larger file is run by a process of its own: as long as it is mapped it would count as memory of
# the conversion, which stays bounded.
MAX_OWN_BYTES = 64 << 20


def append_scores(writer: EdgeWriter, n_threads: int) -> str | None:
    """Appends the blob "scores" to what was added so far. Where the runtime cannot run the model
    here, says why instead."""
    path = writer.readable()
    try:
        large = path.stat().st_size > MAX_OWN_BYTES
        blob = _by_another_process(path, n_threads) if large else scores_blob(path, n_threads)
    except (MemoryBudgetError, UnsupportedError, NumericError) as error:
        return f"no scores for doctor to compare with: {error}".replace(f"{path}: ", "")
    writer.append("scores", "scores", blob)
    return None


def scores_blob(path: Path, n_threads: int) -> bytes:
    """docs/FORMAT.md says what it holds."""
    model = _native.Model.load(str(path), n_threads=n_threads, verify="never", kv_format="F16")
    try:
        n_tokens = min(N_TOKENS, model.n_ctx_train)
        step = max(1, model.n_vocab // n_tokens)
        ids = [at * step % model.n_vocab for at in range(n_tokens)]
        session = _native.Session(model, n_tokens)
        session.append(ids)
        digest = hashlib.sha256()
        while session.pending:
            rows = session.run_with_logits(1e9)
            digest.update(rows.astype("<f4", copy=False).tobytes())
    finally:
        model.close()
    last = rows[-1]
    best = np.argsort(-last, kind="stable")[:N_BEST]
    value = {
        "ids": ids,
        "sha256": digest.hexdigest(),
        "best": [[int(at), float(last[at])] for at in best],
        "version": _native.version(),
    }
    return json.dumps(value, separators=(",", ":")).encode()


def _by_another_process(path: Path, n_threads: int) -> bytes:
    command = [sys.executable, "-m", __spec__.name, str(path), str(n_threads)]
    run = subprocess.run(command, capture_output=True, check=False)
    if run.returncode != 0:
        lines = run.stderr.decode(errors="replace").splitlines() or [f"exit {run.returncode}"]
        raise UnsupportedError(lines[-1][:500], code="feature_unsupported")
    return run.stdout


def _main(arguments: list[str]) -> int:
    try:
        sys.stdout.buffer.write(scores_blob(Path(arguments[0]), int(arguments[1])))
    except EdgeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
