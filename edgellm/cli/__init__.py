"""The command line: one file per verb, imported only when that verb is called.

`run_command_line` parses, runs one verb and turns every failure into one line and an exit code.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import EdgeError
from ..sanitize import visible_line
from .exits import EXIT_CODES_HELP, Exit, exit_for
from .output import print_error, print_json_error

if TYPE_CHECKING:
    from typer import Typer

# Verb -> one line of help. The verb's module is edgellm.cli.<verb>, its function `command`.
VERBS = {
    "convert": "Turn a Hugging Face checkpoint into one compact .edge file.",
    "prune": "Cut a checkpoint down: layers, heads, channels, vocabulary, as a recipe says.",
    "train": "Train a checkpoint, or refine a compressed file, as a recipe says.",
    "compress": "Prune, heal, quantize and refine a checkpoint, as a recipe of steps says.",
    "fleet": "Make, sign and ship many models for many devices; every action has --json.",
    "export": "Write a checkpoint for other programs: FP8, or int8 for onnxruntime.",
    "pull": "Get a model from the hub, and convert it into the store.",
    "list": "Show the models of the store, and what they take.",
    "show": "Show one model of the store.",
    "tag": "Give a model of the store another name, a version or an alias.",
    "rm": "Remove names from the store, and models that have none left.",
    "run": "Continue a prompt; the text streams to stdout.",
    "chat": "Talk to a model, in the terminal.",
    "serve": "Answer OpenAI's API on this machine: chats, completions, embeddings.",
    "embed": "Turn texts into vectors, one JSON line each.",
    "inspect": "Show what a .edge file holds, without loading it.",
    "verify": "Hash a .edge file and compare with the hashes inside.",
    "plan": "Say what a model takes on a device, if it fits and how fast it will be.",
    "bench": "Measure prefill and decode speed on this machine.",
    "eval": "Judge a model by texts and questions, alone or against another.",
    "completion": "Print what bash, zsh or fish needs to complete all this.",
    "doctor": "Check this installation and this machine, and a model if one is given.",
}


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code is one of `exits.Exit`."""
    _write_what_the_terminal_can_show()
    verb = arguments[0] if arguments else "--help"
    as_json = "--json" in arguments
    if verb not in (*VERBS, "-h", "--help"):
        import difflib

        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        message = f"there is no verb {visible_line(verb)!r}; {hint}verbs: {', '.join(VERBS)}"
        print_error(message)
        return Exit.USAGE
    try:
        if verb in VERBS:
            code = _run_verb(verb, [*arguments[1:]])  # list is a verb here
        else:
            sys.stdout.write(_overview())
            code = Exit.OK if arguments else Exit.USAGE
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output is gone (`edgellm run ... | head`): end quietly.
        _discard_stdout()
        return Exit.BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("EDGELLM_DEBUG"):
            raise
        code = exit_for(error)
        message = _message(error, verb)
        print_error(message)
        if as_json:
            print_json_error(verb, error, message)
        _flush_or_discard_stdout()
        return code


def _write_what_the_terminal_can_show() -> None:
    """An ASCII or Latin-1 terminal gets \\u2026 for what it cannot show, not a crash half-way."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush_or_discard_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # a full disk or a closed pipe: the error has been reported
        _discard_stdout()


def _discard_stdout() -> None:
    """Keep the interpreter from complaining about unwritten output when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_verb(verb: str, arguments: list[str]) -> int:
    app = parser_of(verb)
    try:
        code = app(args=arguments, prog_name=f"edgellm {verb}", standalone_mode=False)
    except _Carried as carried:
        raise carried.error from None
    return code if isinstance(code, int) else Exit.OK


def parser_of(verb: str) -> Typer:
    """Of a verb: its module has a function `command`, or ACTIONS, by the names of the actions."""
    import typer

    module = importlib.import_module(f".{verb}", __package__)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    epilog = "Exit codes: " + EXIT_CODES_HELP
    if not hasattr(module, "ACTIONS"):
        app.command(name=verb, help=VERBS[verb], epilog=epilog)(_guarded(module.command))
        return app
    app.callback(help=VERBS[verb], epilog=epilog)(lambda: None)
    for name, action in module.ACTIONS.items():
        app.command(name=name, epilog=epilog)(_guarded(action))
    return app


class _Carried(Exception):
    """Brings an error past the parser, which has its own idea of Ctrl-C and closed pipes."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def guarded(*args: object, **options: object) -> None:
        try:
            command(*args, **options)
        except (KeyboardInterrupt, OSError) as error:
            raise _Carried(error) from error

    return guarded


def _message(error: BaseException, verb: str) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if hasattr(error, "format_message"):  # usage errors of the parser
        return f"{error.format_message()} (see: edgellm {verb} --help)"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    if isinstance(error, EdgeError):
        return str(error)
    return f"internal: {type(error).__name__}: {error} (EDGELLM_DEBUG=1 shows where)"


def _overview() -> str:
    width = max(len(verb) for verb in VERBS)
    verbs = "".join(f"  {verb:<{width}}  {line}\n" for verb, line in VERBS.items())
    return (
        "usage: edgellm VERB [OPTIONS] ...\n\n"
        f"{verbs}\n"
        "Every verb has --help and --json. edgellm --version prints the version.\n"
        f"Exit codes: {EXIT_CODES_HELP}\n"
    )
