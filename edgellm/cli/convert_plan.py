"""What `edgellm convert --dry-run` shows: the plan, and the memory that its file will take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..planner import MemoryPlan, mib, plan_of_spec

SHOWN_CONTEXTS = (4096, 32768)  # beside the whole one


@dataclass(frozen=True)
class ShownPlan:
    """plan: converters.ConvertPlan. Nothing of it is read from weights."""

    plan: Any

    @property
    def warnings(self) -> tuple[str, ...]:
        found: tuple[str, ...] = self.plan.warnings
        return found

    def to_dict(self) -> dict[str, Any]:
        memory = self._memory()
        return {
            **self.plan.to_dict(),
            "memory": {
                "kv_bytes_per_token": memory.kv_bytes_per_token,
                "kv_groups": [asdict(group) for group in memory.kv_groups],
                "scratch_bytes": memory.scratch_bytes,
                "session_bytes": memory.session_bytes,
                "n_ctx_train": memory.n_ctx_train,
                "kv_bytes_by_context": {str(n): memory.kv_bytes_at(n) for n in _contexts(memory)},
                "bytes_by_context": {str(n): memory.bytes_at(n) for n in _contexts(memory)},
            },
        }

    def text(self) -> str:
        memory = self._memory()
        lines = [
            self.plan.table(),
            f"file: {mib(memory.file_bytes)} and its tokenizer",
            memory.kv_text,
        ]
        for n_ctx in _contexts(memory):
            whole = " (all of it)" if n_ctx == memory.n_ctx_train else ""
            kv = f"of it KV {mib(memory.kv_bytes_at(n_ctx))}"
            lines.append(
                f"memory with a context of {n_ctx:,}{whole}: {mib(memory.bytes_at(n_ctx))}, {kv}"
            )
        return "\n".join(lines) + "\n"

    def _memory(self) -> MemoryPlan:
        acts = {(tensor.role, tensor.act) for tensor in self.plan.tensors}
        return plan_of_spec(self.plan.spec.to_dict(), acts, self.plan.file_bytes, limit_bytes=0)


def _contexts(memory: MemoryPlan) -> list[int]:
    shorter = [n for n in SHOWN_CONTEXTS if n < memory.n_ctx_train]
    return [*shorter, memory.n_ctx_train]
