"""`edgellm chat`: talk to a model, on a screen of its own or, where there is none, line by line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..chat import OverflowPolicy
from ..chat_template import CHATML_NAME
from ..errors import InvalidArgumentError
from ..locate import DEMO
from ..model import Model, load
from ..options import DEFAULT_KV, GenerateOptions, as_stops, uses_graphs
from ..sampling import SamplingArguments, SamplingRules
from . import sampling as flags
from .defaults import (
    AdapterOption,
    DraftLayersOption,
    DraftModelOption,
    KvCacheDirOption,
    KvCacheSizeOption,
    MaxMemoryOption,
    RequireSignatureOption,
    kv_cache,
    size_bytes,
)
from .flags import BackendOption, JsonFlag, KvOption, ThreadsOption
from .output import note, note_placement, print_json
from .stored import model_file

if TYPE_CHECKING:
    from edgellm.tui.model_engine import ModelEngine

_POLICIES: dict[str, OverflowPolicy | None] = {
    "error": None,
    "drop_oldest_turns": "drop_oldest_turns",
    "shift": "shift",
}
_DEMO_GREETING = (
    "No model given: this is the built-in demo, small and often wrong (yours: edgellm chat MODEL)"
)


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="A file or a name (edgellm list). Left out, or demo: built in."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    template: Annotated[
        str | None, typer.Option(help="chatml or a template file instead of the model's own.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="When the context is full: error, drop_oldest_turns, shift.")
    ] = "error",
    context: Annotated[
        int | None,
        typer.Option(
            help="Tokens that a chat may hold. Default: all the model can, or its graphs for an "
            "NPU, behind which the CPU goes on."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", "-n", help="Of one reply. Default: what the context has."),
    ] = None,
    temperature: flags.Temperature = 0.7,
    top_k: flags.TopK = 0,
    top_p: flags.TopP = 1.0,
    min_p: flags.MinP = 0.05,
    seed: flags.Seed = 0,
    stop: flags.Stop = None,
    repetition_penalty: flags.RepetitionPenalty = 1.0,
    penalty_window: flags.PenaltyWindow = 0,
    presence_penalty: flags.PresencePenalty = 0.0,
    frequency_penalty: flags.FrequencyPenalty = 0.0,
    typical_p: flags.TypicalP = 1.0,
    dry_multiplier: flags.DryMultiplier = 0.0,
    dry_base: flags.DryBase = 1.75,
    dry_allowed_length: flags.DryAllowedLength = 2,
    dry_range: flags.DryRange = 0,
    dry_breaker: flags.DryBreaker = None,
    xtc_probability: flags.XtcProbability = 0.0,
    xtc_threshold: flags.XtcThreshold = 0.1,
    logit_bias: flags.LogitBias = None,
    min_tokens: flags.MinTokens = 0,
    ignore_eos: flags.IgnoreEos = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="No screen: a line in, a reply out.")
    ] = False,
    adapter: AdapterOption = None,
    session: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the chat in this file, if there is one, and save it at the end."
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with a chat of the screen: words of it, or last."),
    ] = None,
    history: Annotated[
        bool, typer.Option(help="Keep chats and their KV on disk, for this user only.")
    ] = True,
    serve_web: Annotated[
        bool, typer.Option("--serve-web", help="The screen in a browser of this machine.")
    ] = False,
    threads: ThreadsOption = None,
    kv: KvOption = None,
    kv_cache_dir: KvCacheDirOption = None,
    kv_cache_size: KvCacheSizeOption = None,
    max_memory: MaxMemoryOption = None,
    draft_model: DraftModelOption = None,
    draft_layers: DraftLayersOption = 0,
    require_signature: RequireSignatureOption = None,
    backend: BackendOption = "cpu",
    json: JsonFlag = False,
) -> None:
    """Everything is checked before a screen appears."""
    sampling = {**flags.chosen(locals()), "max_tokens": max_tokens}
    _check(sampling)
    if policy not in _POLICIES:
        message = f"--policy must be error or drop_oldest_turns or shift, but is {policy!r}"
        raise InvalidArgumentError(message, code="invalid_argument")
    named = template if template in (None, CHATML_NAME) else Path(str(template))
    limit_bytes = size_bytes(max_memory, "--max-memory")
    _check_session(session, resume, system, context, policy)
    if serve_web:
        _serve_web()
        return
    reason = _why_no_screen(plain, json)
    is_kept = history and session is None and reason is None
    cache = kv_cache(kv_cache_dir, kv_cache_size)

    def opened(name: str) -> Model:
        return load(
            model_file(name),
            threads=threads,
            kv=kv or DEFAULT_KV,
            max_memory=limit_bytes,
            n_ctx=context if uses_graphs(backend) else None,
            draft_model=draft_model,
            draft_layers=draft_layers,
            backend=backend,
            require_signature=require_signature,
            **cache,
        )

    with ExitStack() as stack:
        from edgellm.tui.model_engine import ModelEngine

        library = None
        if reason is None:
            from edgellm.tui.run import kv_directory, open_library

            library = open_library(is_kept)
            stack.callback(library.close)
            if is_kept and not cache:
                cache = {"kv_cache_dir": kv_directory()}
        loaded = stack.enter_context(opened(model or DEMO))
        if backend != "cpu":
            note_placement(loaded.info())
        through = None if adapter is None else loaded.load_adapter(adapter)
        options: dict[str, Any] = {
            "template": named,
            "n_ctx": context,
            "policy": _POLICIES[policy],
            "adapter": through,
        }
        chat = None
        if session is not None:
            is_there = session.exists()
            chat = (
                loaded.restore(session, template=named, adapter=through)
                if is_there
                else loaded.chat(system, **options)
            )
            stack.enter_context(chat)
        engine = ModelEngine(
            loaded,
            _name(model),
            sampling,
            options=options,
            chat=chat,
            save_to=session,
            open_model=opened if session is None else None,
        )
        stack.callback(engine.close)
        greeting = _DEMO_GREETING if model is None else None
        if library is None:
            _line_by_line(engine, system, reason, greeting, json)
        else:
            from edgellm.tui.run import found_chat, run_screen

            which = None if resume is None else found_chat(library, resume)
            run_screen(engine, library, greeting=greeting, chat=which, system=system)


def _why_no_screen(plain: bool, json: bool) -> str | None:
    """None: there is one. Empty: none was wanted."""
    if plain or json:
        return ""
    from edgellm.tui.capability import why_no_screen

    reason: str | None = why_no_screen()
    return reason


def _line_by_line(
    engine: ModelEngine, system: str | None, reason: str | None, greeting: str | None, json: bool
) -> None:
    if greeting is not None:
        note(f"note: {greeting}")
    if reason:
        note(f"note: no screen, because {reason}")
    from edgellm.tui.line_mode import converse

    exchanges = converse(engine, system=system, silent=json)
    if json:
        turns = [{"message": said.message, **asdict(said.reply)} for said in exchanges]
        print_json("chat", {"model": engine.card.name, "turns": turns})


def _serve_web() -> None:
    """This very command in a browser, without --serve-web."""
    from edgellm.tui.web import serve

    serve([one for one in sys.argv[1:] if one != "--serve-web"])


def _check_session(
    session: Path | None, resume: str | None, system: str | None, context: int | None, policy: str
) -> None:
    if session is not None and resume is not None:
        message = "--session and --resume name two chats; leave one out"
        raise InvalidArgumentError(message, code="invalid_argument")
    if session is not None and session.exists():
        _check_given(system, context, policy)


def _check_given(system: str | None, context: int | None, policy: str) -> None:
    """Refuse what a chat that goes on has already."""
    if system is not None or context is not None or policy != "error":
        message = (
            "--system, --context and --policy are those of the chat in --session; leave them out"
        )
        raise InvalidArgumentError(message, code="invalid_argument")


def _name(model: str | None) -> str:
    return DEMO if model is None or model == DEMO else Path(model).name


def _check(sampling: Mapping[str, Any]) -> None:
    """Refuse a flag now that every reply would refuse."""
    rules = {k: v for k, v in sampling.items() if k in SamplingArguments.__annotations__}
    rest = {k: v for k, v in sampling.items() if k not in rules}
    longest = max(1, sampling["min_tokens"])
    rest["max_tokens"] = longest if rest["max_tokens"] is None else rest["max_tokens"]
    rest["stop"] = as_stops(rest["stop"])
    GenerateOptions(**rest, rules=SamplingRules(**rules))
