"""A format compiled by llguidance, whose work has limits: of steps, of time and of its stack."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Lock, Thread, stack_size
from typing import TYPE_CHECKING, Any

from .constraint import grammar_error
from .errors import EdgeError, UnsupportedError
from .response_format import ResponseFormat
from .schema_rules import enforceable

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# Work that a grammar may cost: about 20 ms to compile a regular expression, 5 ms for a token.
_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_grammar_size": 500_000,
    "max_lexer_states": 50_000,
    "max_items_in_row": 2_000,
}
# It follows rules and references one inside the other: as deep as a format's length allows them to
# be needs about half of this.
_STACK_BYTES = 256 << 20
# What else takes long. It cannot be stopped then: until it is through, nothing new is compiled.
_MAX_S = 20.0
_one_at_a_time = Lock()


def compiled(tokenizer: LLTokenizer, wanted: ResponseFormat) -> LLMatcher:
    """At the beginning of a text. InvalidArgumentError, UnsupportedError."""
    outcome: list[LLMatcher | BaseException] = []

    def work() -> None:
        try:
            outcome.append(_compile(tokenizer, wanted))
        except BaseException as error:
            outcome.append(error)
        finally:
            _one_at_a_time.release()

    if _one_at_a_time.acquire(timeout=_MAX_S):
        _run(work)
    if not outcome:
        message = f"response_format is too complex: compiling takes longer than {_MAX_S:g} s"
        raise UnsupportedError(f"{message}; make it smaller", code="feature_unsupported")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _run(work: Callable[[], None]) -> None:
    """In a thread with a stack of its own, as long as it may take."""
    before = stack_size(_STACK_BYTES)
    try:
        thread = Thread(target=work, name="edgellm-grammar", daemon=True)
        thread.start()
    except BaseException:
        _one_at_a_time.release()
        raise
    finally:
        stack_size(before)
    thread.join(_MAX_S)


def _compile(tokenizer: LLTokenizer, wanted: ResponseFormat) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    where = f"as {wanted.kind.replace('_', ' ')}"
    try:
        grammar = _grammar_text(wanted)
    except EdgeError:
        raise
    except ValueError as error:
        raise grammar_error(str(error), where) from None
    limits = LLParserLimits(verbose_errors=False, **_LIMITS)
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()  # what is left to do for the first token
    if matcher.is_error():
        raise grammar_error(matcher.get_error(), where)
    return matcher


def _grammar_text(wanted: ResponseFormat) -> str:
    from llguidance import LLMatcher

    if wanted.kind == "regex":
        return LLMatcher.grammar_from_regex(wanted.text)
    if wanted.kind == "grammar":
        return LLMatcher.grammar_from_lark(wanted.text)
    schema = json.loads(wanted.text)
    if wanted.strict:
        schema = enforceable(schema)
    return LLMatcher.grammar_from_json_schema(
        json.dumps(schema),
        overrides={
            # As most JSON in texts of people is written; free white space is where models loop.
            "whitespace_flexible": False,
            "item_separator": ", ",
            "key_separator": ": ",
            "lenient": not wanted.strict,
            "coerce_one_of": not wanted.strict,
        },
    )
