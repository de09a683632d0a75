"""Metadata of a GGUF file, read key by key: types checked, what would change the result refused.

Keys of a model begin with its architecture ("llama.block_count"); here they are named without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import FormatError, UnsupportedError

# Key -> the values under which it changes nothing. Families read some of them (Keys.take).
# How embeddings are pooled, by llama.cpp's numbers: as sentence-transformers calls it.
POOLINGS = {1: "mean", 2: "cls", 3: "lasttoken"}
HONOURED_ONLY_AS: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0.0,),
    "deepstack_mapping": ([],),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_gating_func": (0, 1),  # a softmax
    "expert_group_count": (0, 1),
    "expert_weights_scale": (0.0, 1.0),
    "final_logit_softcapping": (0.0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0.0, 1.0),
    "nextn_predict_layers": (0,),
    "pooling_type": (0, *POOLINGS),
    "residual_scale": (0.0, 1.0),
    "rope.dimension_sections": ([], [0, 0, 0, 0]),
    "rope.scaling.alpha": (0.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
}
# They say again what tensors and other keys say, or nothing about the result.
WITHOUT_EFFECT = frozenset(
    {
        "expert_used_count",
        "rope.scaling.finetuned",
        "rope.scaling.original_context_length",
        "tensor_data_layout",
        "use_parallel_residual",
        "vocab_size",
        "expert_feed_forward_length",
        "expert_shared_feed_forward_length",
    }
)


class Keys:
    """The keys of one architecture. Every key that is asked for counts as read."""

    def __init__(self, path: Path, metadata: Mapping[str, Any], arch: str) -> None:
        self.path, self.arch = path, arch
        prefix = f"{arch}."
        self._values = {
            key.removeprefix(prefix): value
            for key, value in metadata.items()
            if key.startswith(prefix)
        }
        self._read: set[str] = set()

    def integer(self, key: str, default: int | None = None) -> int:
        """FormatError where it is missing and has no default, or is no number of this kind. An
        array of one value for each layer will do where all are equal."""
        value = self._take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
            raise self._bad(key, value, "a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._take(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._bad(key, value, "a number")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self._bad(key, value, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self._bad(key, value, "a text")
        return value

    def period_or_flags(self, key: str, default: int, n: int) -> list[bool]:
        """Which of n layers are marked: all but every `period`-th, or as listed."""
        value = self._values.get(key, default)
        self._read.add(key)
        if isinstance(value, list):
            if len(value) < n or not all(isinstance(item, (bool, int)) for item in value):
                raise self._bad(key, value, f"a number or {n} flags")
            return [bool(item) for item in value[:n]]
        period = self.integer(key, default)
        return [period != 0 and index % period < period - 1 for index in range(n)]

    def by_layer(self, key: str, default: int, n: int) -> list[int]:
        """Of n layers, said once or one by one."""
        value = self._values.get(key, default)
        if not isinstance(value, list):
            return [self.integer(key, default)] * n
        self._read.add(key)
        is_good = len(value) == n and all(type(item) is int and item >= 0 for item in value)
        if not is_good:
            raise self._bad(key, value, f"a number or {n} of them")
        return value

    def has(self, key: str) -> bool:
        return key in self._values

    def check_honoured(self) -> list[str]:
        """UnsupportedError lists the keys that change the result and were not asked for. Returns
        the names of those that nobody knows."""
        left = {key: value for key, value in self._values.items() if key not in self._read}
        wrong = [
            f"{self.arch}.{key} = {str(value)[:40]}"
            for key, value in left.items()
            if key in HONOURED_ONLY_AS and value not in HONOURED_ONLY_AS[key]
        ]
        if wrong:
            raise UnsupportedError(
                f"{self.path}: {', '.join(wrong[:8])}: not supported with the architecture "
                f"'{self.arch}'; convert the Hugging Face directory if its family is supported",
                code="spec_unsupported",
            )
        return sorted(
            f"{self.arch}.{key}" for key in left.keys() - set(HONOURED_ONLY_AS) - WITHOUT_EFFECT
        )

    def same(self, key: str, value: float, of: str) -> None:
        """UnsupportedError unless a key that may be there says what another one does."""
        found = self.number(key, value)
        if found != value:
            raise UnsupportedError(
                f"{self.path}: {self.arch}.{key} is {found:g}, but {of} is {value:g}: they must "
                "be equal",
                code="spec_unsupported",
            )

    def _take(self, key: str, default: Any) -> Any:
        self._read.add(key)
        value = self._values.get(key, default)
        if value is None:
            raise FormatError(
                f"{self.path}: key '{self.arch}.{key}' is missing", code="json_missing_key"
            )
        if isinstance(value, list):
            if not value or any(item != value[0] for item in value):
                raise UnsupportedError(
                    f"{self.path}: key '{self.arch}.{key}' is {str(value)[:60]}: layers of several "
                    "sizes are not supported",
                    code="spec_unsupported",
                )
            return value[0]
        return value

    def _bad(self, key: str, value: object, what: str) -> FormatError:
        return FormatError(
            f"{self.path}: key '{self.arch}.{key}' is {str(value)[:60]}, it must be {what}",
            code="gguf_invalid",
        )


def architecture(path: Path, metadata: Mapping[str, Any], known: Collection[str]) -> str:
    """general.architecture; UnsupportedError lists those that are known."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise FormatError(
            f"{path}: key 'general.architecture' is missing: not a model", code="json_missing_key"
        )
    if name not in known:
        raise UnsupportedError(
            f"{path}: architecture '{name[:60]}' is not supported (supported: "
            f"{', '.join(sorted(known))})",
            code="spec_unsupported",
        )
    return name
