"""A request as a stranger sends it, read field by field: each has its type, or is refused by name.

Ranges are checked where the values are used (`GenerateOptions`, `SamplingRules`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..errors import InvalidArgumentError
from ..options import GenerateArguments

# Taken as GenerateArguments has them.
_NUMBERS = (
    *("temperature", "top_p", "min_p", "typical_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "dry_multiplier", "dry_base", "xtc_probability", "xtc_threshold"),
)
_COUNTS = (
    *("top_k", "penalty_window", "dry_allowed_length", "dry_range", "min_tokens", "priority"),
)
_FLAGS = ("ignore_eos", "speculate")
# Say nothing about the text: of accounts, billing and storage.
_IGNORED = (
    *("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "verbosity", "reasoning_effort"),
)
_MAX_STOPS = 16
_MAX_STOP_CHARS = 1000
_MAX_N = 128


def wrong(message: str) -> InvalidArgumentError:
    """A field that is not what it must be."""
    return InvalidArgumentError(message, code="invalid_argument")


class Fields:
    """Of one object of a request. What was not asked for by its end is refused; None is absent."""

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        self._values = {str(name): value for name, value in values.items() if value is not None}
        self._where = where

    def take(self, name: str, kinds: type | tuple[type, ...], what: str) -> Any:
        """The value of `name`, one of `kinds`; None if there is none. bool is no number."""
        value = self._values.pop(name, None)
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        if value is None or (
            isinstance(value, wanted) and (not isinstance(value, bool) or bool in wanted)
        ):
            return value
        raise wrong(f"{self._where}{name} must be {what}, but is {value!r:.60}")

    def text(self, name: str) -> str | None:
        """A string that UTF-8 can hold."""
        value = cast("str | None", self.take(name, str, "a text"))
        return None if value is None else sound(value, f"{self._where}{name}")

    def count(self, name: str, least: int = 0, most: int = 2**31 - 1) -> int | None:
        """A whole number."""
        value = cast("int | None", self.take(name, int, "a whole number"))
        if value is not None and not least <= value <= most:
            raise wrong(f"{self._where}{name} must be in {least}..{most}, but is {value}")
        return value

    def flag(self, name: str) -> bool | None:
        """True or false."""
        return cast("bool | None", self.take(name, bool, "true or false"))

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        """An object."""
        return cast("Mapping[str, Any] | None", self.take(name, Mapping, "an object"))

    def items(self, name: str) -> list[Any] | None:
        """An array."""
        value = self.take(name, (list, tuple), "an array")
        return None if value is None else list(value)

    def end(self) -> None:
        """Refuse what is left."""
        for name in _IGNORED:
            self._values.pop(name, None)
        if self._values:
            names = ", ".join(sorted(self._values)[:5])
            raise wrong(f"{self._where}unknown or unsupported here: {names:.200}")


def sound(text: str, where: str) -> str:
    """`text`, which holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise wrong(f"{where} holds half of a surrogate pair at {error.start}") from None
    return text


def generate_arguments(fields: Fields) -> GenerateArguments:
    """How text is drawn; `max_tokens` is left to the caller. Without a seed, one that nobody
    knows: as OpenAI's API has it, and so that a question asked again may get another answer."""
    found: dict[str, Any] = {}
    for name in _NUMBERS:
        found[name] = fields.take(name, (int, float), "a number")
    for name in _COUNTS:
        found[name] = fields.count(name, least=-(2**31) if name == "priority" else 0)
    for name in _FLAGS:
        found[name] = fields.flag(name)
    found["namespace"] = fields.text("namespace")
    found["stop"] = _stops(fields)
    found["logit_bias"] = _biases(fields.mapping("logit_bias"))
    found["response_format"] = fields.mapping("response_format")
    found["seed"] = fields.count("seed", least=-(2**63), most=2**64 - 1)
    found["seed"] = secrets.randbits(63) if found["seed"] is None else found["seed"] % 2**64
    return cast("GenerateArguments", {k: v for k, v in found.items() if v is not None})


def answers(fields: Fields) -> int:
    """`n`: how many texts for one prompt."""
    return fields.count("n", least=1, most=_MAX_N) or 1


def includes_usage(fields: Fields) -> bool:
    """`stream_options`."""
    options = Fields(fields.mapping("stream_options") or {}, "stream_options.")
    wanted = options.flag("include_usage")
    options.flag("include_obfuscation")
    options.end()
    return wanted is True


def _stops(fields: Fields) -> list[str] | None:
    stop = fields.take("stop", (str, list, tuple), "a text or an array of texts")
    if stop is None:
        return None
    each: Sequence[Any] = [stop] if isinstance(stop, str) else stop
    if len(each) > _MAX_STOPS:
        raise wrong(f"stop may hold {_MAX_STOPS} texts, but holds {len(each)}")
    for text in each:
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_STOP_CHARS:
            raise wrong(
                f"stop must hold texts of 1..{_MAX_STOP_CHARS} characters, not {text!r:.60}"
            )
        sound(text, "stop")
    return list(each)


def _biases(given: Mapping[str, Any] | None) -> dict[int, float] | None:
    """Ids come as JSON has them, as texts. -100 bans a token, and 100 is as good as certain."""
    if given is None:
        return None
    found: dict[int, float] = {}
    for name, bias in given.items():
        try:
            token_id = int(name)
        except (TypeError, ValueError):
            raise wrong(f"logit_bias must map token ids to numbers, not {name!r:.60}") from None
        if not isinstance(bias, (int, float)) or isinstance(bias, bool) or not -100 <= bias <= 100:
            raise wrong(f"logit_bias[{token_id}] must be a number in -100..100, not {bias!r:.60}")
        found[token_id] = float("-inf") if bias == -100 else float(bias)
    return found
