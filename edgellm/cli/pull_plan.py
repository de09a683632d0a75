"""What a .edge or .gguf file of the hub will need, from its first bytes, before the rest comes.

Those bytes are the beginning of the download, which goes on behind them. A file that cannot be used
is refused here, and not after its gigabytes.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ..edgeheader import MAX_HEADER_BYTES, parse_header
from ..errors import EdgeError, FormatError
from ..planner import MemoryPlan, plan_of, plan_of_spec
from ..store import hub
from .convert import converters

_GGUF_BEGINNINGS = tuple(mib << 20 for mib in (1, 4, 16, 64))  # vocabularies differ in size


def plan_of_file(
    model: hub.HubModel, file: hub.HubFile, kind: str, folder: Path, wishes: dict[str, Any]
) -> MemoryPlan:
    """kind: "edge" or "gguf". Raises what reading such a file raises, and what fetching does."""
    if kind == "edge":
        return _plan_of_edge(model, file, folder)
    return _plan_of_gguf(model, file, folder, wishes)


def _plan_of_edge(model: hub.HubModel, file: hub.HubFile, folder: Path) -> MemoryPlan:
    prefix = _beginning(model, file, folder, 8)
    n_bytes = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or n_bytes > min(MAX_HEADER_BYTES, file.n_bytes):
        message = f"{file.name}: its first bytes are not those of a .edge file"
        raise FormatError(message, code="not_an_edge_file")
    raw = _beginning(model, file, folder, 8 + n_bytes)[8:]
    return plan_of(parse_header(Path(file.name), prefix, raw, file.n_bytes), limit_bytes=0)


def _plan_of_gguf(
    model: hub.HubModel, file: hub.HubFile, folder: Path, wishes: dict[str, Any]
) -> MemoryPlan:
    tools = converters("edgellm.converters")
    hollow = folder / f"plan-{Path(file.name).name}"

    def planned(beginning: bytes) -> MemoryPlan:
        """Read from a file of the right size with nothing behind its beginning."""
        try:
            with hollow.open("wb") as out:
                out.write(beginning)
                out.truncate(file.n_bytes)
            plan = tools.plan_conversion(hollow, **wishes)
        except EdgeError as error:
            message = error.message.replace(str(hollow), file.name)
            raise type(error)(message, code=error.code) from None
        finally:
            hollow.unlink(missing_ok=True)
        acts = {(tensor.role, tensor.act) for tensor in plan.tensors}
        return plan_of_spec(plan.spec.to_dict(), acts, plan.file_bytes, limit_bytes=0)

    for n_bytes in _GGUF_BEGINNINGS[:-1]:
        beginning = _beginning(model, file, folder, n_bytes)
        with suppress(EdgeError):  # the header may be longer
            return planned(beginning)
    return planned(_beginning(model, file, folder, _GGUF_BEGINNINGS[-1]))


def _beginning(model: hub.HubModel, file: hub.HubFile, folder: Path, n_bytes: int) -> bytes:
    with hub.fetch_beginning(model, file, folder, n_bytes).open("rb") as source:
        return source.read(n_bytes)
