"""`edgellm doctor`: is this installation whole, what can this machine do, is this model sound."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..doctor import Check, check_installation
from ..doctor_model import check_model
from .defaults import MaxMemoryOption, RequireSignatureOption, size_bytes
from .exits import Exit, exit_for
from .flags import JsonFlag
from .output import print_json, print_text

_VERDICTS = ("ok", "warning", "failure")  # best first


def command(
    model: Annotated[
        str | None, typer.Argument(help="A .edge file, a name or demo; left out: the machine.")
    ] = None,
    max_memory: MaxMemoryOption = None,
    require_signature: RequireSignatureOption = None,
    json: JsonFlag = False,
) -> None:
    """Every line says ok, warning or failure; the last two say what to do. Exit code 0 unless
    something failed, then the code of the first failure."""
    limit_bytes = size_bytes(max_memory, "--max-memory")
    checks: list[Check] = []
    for check in check_installation():
        checks.append(check)
        _show(check, json)
    if model is not None and not any(check.verdict == "failure" for check in checks):
        for check in check_model(model, limit_bytes, require_signature):
            checks.append(check)
            _show(check, json)
    if json:
        print_json("doctor", _report(checks, model))
    else:
        print_text(_summary(checks))
    code = _exit_code(checks)
    if code != Exit.OK:
        raise typer.Exit(code)


def _show(check: Check, as_json: bool) -> None:
    """At once: on a machine that hangs, the line before says where."""
    if as_json:
        return
    fix = f"\n         -> {check.fix}" if check.fix else ""
    text = f"{check.name}: {check.found}".replace("\n", " ")
    print_text(f"{check.verdict:<8} {text}{fix}\n")


def _report(checks: list[Check], model: str | None) -> dict[str, Any]:
    return {
        "model": model,
        "verdict": _worst(checks),
        "checks": [check.to_dict() for check in checks],
    }


def _summary(checks: list[Check]) -> str:
    counts = {v: sum(check.verdict == v for check in checks) for v in _VERDICTS}
    return f"\n{counts['ok']} ok, {counts['warning']} warnings, {counts['failure']} failures\n"


def _worst(checks: list[Check]) -> str:
    return max((check.verdict for check in checks), key=_VERDICTS.index)


def _exit_code(checks: list[Check]) -> Exit:
    for check in checks:
        if check.verdict == "failure":
            return Exit.INTERNAL if check.error is None else exit_for(check.error)
    return Exit.OK
