"""`Adapter`: a LoRA adapter beside a loaded model; make it with `Model.load_adapter()`.

Takes the file that `edgellm convert --base` writes, or a PEFT directory, which is converted into a
temporary file first. Knows nothing of how its matrices are used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import IntegrityError, InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from . import _native
    from .signature import Signers


@dataclass(frozen=True)
class AdapterInfo:
    """What a loaded adapter is and what it costs. `rank`: the largest of its matrices.
    `scratch_bytes`: what steps need besides, once for all adapters of a model. `source`: what it
    was converted from."""

    path: str
    rank: int
    n_parameters: int
    file_bytes: int
    scratch_bytes: int
    root: str
    source: dict[str, Any]


class Adapter:
    """Low-rank changes of a model's matrices, y = W x + B (A x), never merged into them.

    Give it to `generate()`, `stream()`, `chat()` of the model it was loaded with; threads and
    generations may share it. Its memory is given back with the last reference to it.
    """

    def __init__(
        self, model: _native.Model, path: Path, model_path: Path, signers: Signers | None = None
    ) -> None:
        from . import _native

        self._path = path
        if signers is not None:
            self._native = _signed(model, path, signers)
            return
        if not path.is_dir():
            self._native = _native.Adapter.load(model, path)
            return
        from tempfile import TemporaryDirectory

        # A mapped file needs no name; Windows alone keeps it until temporary files are cleared.
        with TemporaryDirectory(prefix="edgellm-adapter-", ignore_cleanup_errors=True) as folder:
            file = Path(folder) / "adapter.edge"
            _convert(path, file, model_path)
            self._native = _native.Adapter.load(model, file)

    @property
    def root(self) -> str:
        """The identity of its content: KV computed with one root is never used with another."""
        return self._native.root

    def info(self) -> AdapterInfo:
        """What this adapter is, where it came from and what it costs."""
        native = self._native
        return AdapterInfo(
            path=str(self._path),
            rank=native.rank,
            n_parameters=native.n_parameters,
            file_bytes=native.file_bytes,
            scratch_bytes=native.scratch_bytes,
            root=native.root,
            source=json.loads(native.metadata.get("edgellm.source", "{}")),
        )


def native_adapter(adapter: Adapter | None) -> _native.Adapter | None:
    """What the native runtime knows it as."""
    if adapter is None:
        return None
    if not isinstance(adapter, Adapter):
        message = f"adapter must be what load_adapter() returns, not {type(adapter).__name__}"
        raise InvalidArgumentError(message, code="invalid_argument")
    return adapter._native


def _signed(model: _native.Model, path: Path, signers: Signers) -> _native.Adapter:
    from . import _native
    from .signature import signed_file

    if path.is_dir():
        message = (
            f"{path}: must be signed, and a directory cannot be; convert it (edgellm convert "
            "--base MODEL) and sign the file"
        )
        raise IntegrityError(message, code="signature_required")
    with signed_file(path, signers) as signed:
        adapter = _native.Adapter.load(model, signed.path)
        if adapter.metadata["edgellm.header_sha256"] != signed.header_sha256:
            message = f"{path}: another file than was signed; nothing of it is used"
            raise IntegrityError(message, code="signature_digest")
        return adapter


def _convert(directory: Path, out: Path, model_path: Path) -> None:
    try:
        from edgellm.converters.adapter import convert_adapter
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("edgellm"):
            raise
        message = f"converting needs {error.name}: pip install 'edgellm[convert]'"
        raise UnsupportedError(message, code="feature_unsupported") from error
    convert_adapter(directory, out, base=model_path)
