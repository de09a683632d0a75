"""`edgellm run`: continue a prompt, text to stdout as it comes, timings to stderr.

The prompt is raw text, also for a model with a chat template; `--chat` makes it a user's message.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ContextOverflowError, InvalidArgumentError
from ..model import Model, load
from ..options import DEFAULT_KV
from ..results import Generation, Stats
from ..stream import TokenStream
from . import sampling as flags
from .defaults import (
    AdapterOption,
    DraftLayersOption,
    DraftModelOption,
    GovernFlag,
    KvCacheDirOption,
    KvCacheSizeOption,
    MaxMemoryOption,
    RequireSignatureOption,
    kv_cache,
    model_and_prompt,
    size_bytes,
)
from .flags import BackendOption, JsonFlag, KvOption, ThreadsOption
from .output import note, note_placement, print_json, print_text
from .progress import PromptBar
from .prompt import whole_prompt
from .stored import model_file
from .structured import GrammarFile, JsonObject, Regex, SchemaFile, response_format

_DEFAULT_MAX_TOKENS = 256


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="A file or a name (edgellm list). Left out, or demo: built in."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Argument(help="The text to continue; - reads stdin, @FILE a file, @@ is an @."),
    ] = None,
    model_option: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Instead of MODEL: all else is the prompt, and so is a pipe."
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", help="A text to stand before the prompt; - is stdin."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", "-n", help="Default: 256, or what the context has left if less."
        ),
    ] = None,
    temperature: flags.Temperature = 0.0,
    top_k: flags.TopK = 0,
    top_p: flags.TopP = 1.0,
    min_p: flags.MinP = 0.0,
    seed: flags.Seed = 0,
    stop: flags.Stop = None,
    special: Annotated[
        bool, typer.Option("--special", help="Read special tokens written out in the prompt.")
    ] = False,
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
    logprobs: flags.Logprobs = 0,
    samples: flags.Samples = 1,
    json_object: JsonObject = False,
    schema: SchemaFile = None,
    regex: Regex = None,
    grammar: GrammarFile = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask it as a user, through the chat template.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="With --chat: the system prompt.")] = None,
    template: Annotated[
        str | None,
        typer.Option(help="With --chat: chatml or a template file instead of the model's own."),
    ] = None,
    adapter: AdapterOption = None,
    threads: ThreadsOption = None,
    kv: KvOption = None,
    kv_cache_dir: KvCacheDirOption = None,
    kv_cache_size: KvCacheSizeOption = None,
    max_memory: MaxMemoryOption = None,
    draft_model: DraftModelOption = None,
    draft_layers: DraftLayersOption = 0,
    require_signature: RequireSignatureOption = None,
    govern: GovernFlag = False,
    backend: BackendOption = "cpu",
    context: Annotated[
        int | None,
        typer.Option(
            help="The longest context meant, for which there must be memory. Default: all the "
            "model can, or its graphs for an NPU: behind those the CPU goes on.",
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Load, generate, report."""
    options = {**flags.chosen(locals()), "logprobs": logprobs}
    options["response_format"] = response_format(json_object, schema, regex, grammar)
    _check_flags(chat, system, template, special, samples)
    if logprobs > 0 and not json:
        raise InvalidArgumentError("--logprobs needs --json", code="invalid_argument")
    name, text = _asked(model, prompt, model_option, list(files or []))
    limit_bytes = size_bytes(max_memory, "--max-memory")
    path = model_file(name)
    with ExitStack() as stack:
        loaded = stack.enter_context(
            load(
                path,
                threads=threads,
                kv=kv or DEFAULT_KV,
                max_memory=limit_bytes,
                n_ctx=context,
                draft_model=draft_model,
                draft_layers=draft_layers,
                backend=backend,
                require_signature=require_signature,
                **kv_cache(kv_cache_dir, kv_cache_size),
            )
        )
        if backend != "cpu":
            note_placement(loaded.info())
        if govern:
            from ..governor import Governor

            stack.enter_context(Governor(loaded))
        options["on_prefill"] = stack.enter_context(PromptBar())
        through = None if adapter is None else loaded.load_adapter(adapter)
        if chat:
            from ..chat_template import CHATML_NAME

            named = template if template in (None, CHATML_NAME) else Path(str(template))
            talk = stack.enter_context(loaded.chat(system, template=named, adapter=through))
            _print_one(name, talk.stream(text, max_tokens=max_tokens, **options), json)
            return
        ids = loaded.tokenize(text, special=special)
        options["max_tokens"] = _room(loaded, len(ids)) if max_tokens is None else max_tokens
        if samples == 1:
            _print_one(name, loaded.stream(ids, adapter=through, **options), json)
        else:
            results = loaded.generate_n(ids, samples, adapter=through, **options)
            _print_several(name, results, json)


def _print_one(name: str, stream: TokenStream, json: bool) -> None:
    with stream:
        if not json:
            for token in stream:
                print_text(token.text)
        result = stream.result()
    if json:
        print_json("run", {"model": name, **asdict(result)})
    else:
        print_text("\n")
        note(_timings(result.stats, result.finish_reason))


def _asked(
    model: str | None, prompt: str | None, named: str | None, files: list[Path]
) -> tuple[str, str]:
    """The model and the whole prompt."""
    if named is None:
        if model is not None and prompt is None and files:
            return model, whole_prompt(None, files, reads_pipe=False)
        name, text = model_and_prompt(model, prompt)
        return name, whole_prompt(text, files, reads_pipe=False)
    if prompt is not None:
        message = f"with -m {named} there is one argument, the prompt, but there are two"
        raise InvalidArgumentError(message, code="invalid_argument")
    return named, whole_prompt(model, files, reads_pipe=True)


def _print_several(name: str, results: list[Generation], json: bool) -> None:
    """In JSON the data are {"model", "samples": [...]}; as text, one after the other."""
    if json:
        print_json("run", {"model": name, "samples": [asdict(result) for result in results]})
        return
    for at, result in enumerate(results):
        note(f"[sample {at + 1} of {len(results)}]")
        print_text(result.text + "\n")
        note(_timings(result.stats, result.finish_reason))


def _check_flags(
    chat: bool, system: str | None, template: str | None, special: bool, samples: int
) -> None:
    if not chat and (system is not None or template is not None):
        message = "--system and --template need --chat: without it the prompt is raw text"
        raise InvalidArgumentError(message, code="invalid_argument")
    if chat and special:
        message = (
            "--special is for raw prompts; with --chat only the template writes special tokens"
        )
        raise InvalidArgumentError(message, code="invalid_argument")
    if chat and samples > 1:
        message = "--samples is for raw prompts; leave --chat out"
        raise InvalidArgumentError(message, code="invalid_argument")


def _room(model: Model, n_prompt: int) -> int:
    """Tokens to generate when the caller did not say."""
    n_ctx = model.info().n_ctx
    if n_prompt == 0:
        raise InvalidArgumentError("the prompt is empty", code="invalid_argument")
    if n_prompt >= n_ctx:
        message = (
            f"the prompt has {n_prompt} tokens and the context of this model is {n_ctx}; "
            f"cut at least {n_prompt - n_ctx + 1} tokens"
        )
        raise ContextOverflowError(message, code="context_overflow")
    return min(_DEFAULT_MAX_TOKENS, n_ctx - n_prompt)


def _timings(stats: Stats, finish_reason: str) -> str:
    return (
        f"[{stats.prompt_tokens} prompt tokens at {stats.prefill_tokens_per_s:.0f}/s, "
        f"first token after {stats.ttft_ms:.1f} ms, "
        f"{stats.generated_tokens} tokens at {stats.tokens_per_s:.1f} tokens/s, "
        f"peak memory {stats.peak_rss_bytes / 2**20:.0f} MiB, finished: {finish_reason}]"
    )
