"""The sampling flags of the verbs that generate text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ..errors import InvalidArgumentError
from ..sampling import DRY_BREAKERS

_GROUP = "Penalties, bans and more filters"


def _flag(help: str, *names: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(*names, help=help, rich_help_panel=_GROUP)
    return option


Temperature = Annotated[float, typer.Option(help="0: always the most likely token.")]
TopK = Annotated[int, typer.Option(help="Keep the k most likely tokens; 0: all.")]
TopP = Annotated[float, typer.Option(help="Keep the most likely mass; 1: all.")]
MinP = Annotated[float, typer.Option(help="Drop below this share of the best; 0: none.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same text.")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")]
RepetitionPenalty = Annotated[
    float, _flag("Make tokens of prompt and output less likely; 1: off, usual 1.1.")
]
PenaltyWindow = Annotated[int, _flag("Last tokens that it looks at; 0: all.")]
PresencePenalty = Annotated[float, _flag("Off the score of every generated token; 0: off.")]
FrequencyPenalty = Annotated[float, _flag("Off it for each time it was generated; 0: off.")]
TypicalP = Annotated[float, _flag("Keep the tokens of typical surprise; 1: all.")]
DryMultiplier = Annotated[float, _flag("Against repeated passages (DRY); 0: off, usual 0.8.")]
DryBase = Annotated[float, _flag("How fast the penalty grows with the length of the repeat.")]
DryAllowedLength = Annotated[int, _flag("Repeats shorter than this are not penalised.")]
DryRange = Annotated[int, _flag("Last tokens in which repeats are looked for; 0: all.")]
DryBreaker = Annotated[
    list[str] | None,
    _flag('Text that ends a repeat; may be repeated. Default: newline, ":", double quote, "*".'),
]
XtcProbability = Annotated[
    float, _flag("How often to exclude the top choices (XTC); 0: never, usual 0.5.")
]
XtcThreshold = Annotated[float, _flag("Least probability of a top choice.")]
LogitBias = Annotated[
    list[str] | None,
    _flag("ID=BIAS: added to the score of a token, -inf bans it; may be repeated."),
]
MinTokens = Annotated[int, _flag("Do not end the text before so many tokens.")]
IgnoreEos = Annotated[bool, _flag("Never end the text by itself.", "--ignore-eos")]
Logprobs = Annotated[int, _flag("Report so many of the most likely tokens; needs --json.")]
Samples = Annotated[
    int, _flag("Texts for the same prompt, with the seeds that follow --seed.", "--samples")
]


def biases(items: list[str]) -> dict[int, float]:
    """`ID=BIAS` texts as the argument `logit_bias`."""
    parsed: dict[int, float] = {}
    for item in items:
        token_id, _, bias = item.partition("=")
        try:
            parsed[int(token_id)] = float(bias)
        except ValueError:
            message = f"--logit-bias must be ID=BIAS, such as 42=-inf, but is {item!r}"
            raise InvalidArgumentError(message, code="invalid_argument") from None
    return parsed


# Flags that go on as they are, under the same name.
_AS_GIVEN = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "repetition_penalty",
    "penalty_window",
    "presence_penalty",
    "frequency_penalty",
    "typical_p",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_range",
    "xtc_probability",
    "xtc_threshold",
    "min_tokens",
    "ignore_eos",
)


def chosen(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `Model.stream()` and `Chat.stream()` from those of a verb, which has all
    these flags under these names."""
    breakers = arguments["dry_breaker"]
    return {
        **{name: arguments[name] for name in _AS_GIVEN},
        "stop": arguments["stop"] or (),
        "dry_breakers": DRY_BREAKERS if breakers is None else breakers,
        "logit_bias": biases(arguments["logit_bias"] or []),
    }
