"""`edgellm completion`: what a shell needs to complete verbs, options and files."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ..errors import InvalidArgumentError
from .flags import JsonFlag
from .output import print_json

_BASH = """\
_edgellm() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} options=
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{verbs} --help --version" -- "$word"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  case $word in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}}
complete -o filenames -F _edgellm edgellm
"""
_ZSH = """\
#compdef edgellm
autoload -U +X bashcompinit && bashcompinit
{bash}"""
SHELLS = ("bash", "zsh", "fish")


def command(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")],
    json: JsonFlag = False,
) -> None:
    """Print a script: eval "$(edgellm completion bash)", or keep it where the shell looks."""
    options = {verb: _options(verb) for verb in _verbs()}
    if shell not in SHELLS:
        message = f"shell must be one of {', '.join(SHELLS)}, but is {shell!r:.60}"
        raise InvalidArgumentError(message, code="invalid_argument")
    script = _fish(options) if shell == "fish" else _bash(options)
    if shell == "zsh":
        script = _ZSH.format(bash=script)
    if json:
        print_json("completion", {"shell": shell, "script": script})
    else:
        sys.stdout.write(script)


def _verbs() -> dict[str, str]:
    from . import VERBS

    return VERBS


def _options(verb: str) -> list[str]:
    """Every option of a verb, those of its actions included, as its parser knows them."""
    from . import parser_of

    parser: Any = typer.main.get_command(parser_of(verb))
    actions = getattr(parser, "commands", {}).values()
    parameters = [one for command in (parser, *actions) for one in command.params]
    names = {name for one in parameters for name in (*one.opts, *one.secondary_opts)}
    return sorted({name for name in names if name.startswith("-")} | {"--help"})


def _bash(options: dict[str, list[str]]) -> str:
    cases = [f'    {verb}) options="{" ".join(names)}" ;;' for verb, names in options.items()]
    return _BASH.format(verbs=" ".join(options), cases="\n".join(cases))


def _fish(options: dict[str, list[str]]) -> str:
    lines = []
    for verb, line in _verbs().items():
        told = line.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"complete -c edgellm -n __fish_use_subcommand -a {verb} -d '{told}'")
    for verb, names in options.items():
        seen = f"'__fish_seen_subcommand_from {verb}'"
        for name in names:
            kind = "-l" if name.startswith("--") else "-s"
            lines.append(f"complete -c edgellm -n {seen} {kind} {name.lstrip('-')}")
    return "\n".join(lines) + "\n"
