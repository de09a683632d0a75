"""`edgellm fleet ACTION`: many models for many devices. docs/FLEET.md."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import EdgeError
from .convert import converters
from .defaults import size_bytes
from .exits import Exit, exit_for
from .flags import JsonFlag
from .fleet_device import check, rollback
from .fleet_report import summary, write_fleet_reports
from .fleet_sign import key, root, sign
from .output import note, print_json, print_text
from .progress import progress_bar

_TOOLS = "edgellm.converters.fleet"
EngineOption = Annotated[str, typer.Option(help="local: processes of this machine; ray.")]
AddressOption = Annotated[
    str | None, typer.Option(help="Of a Ray cluster; default: one on this machine.")
]

ArtefactsOption = Annotated[
    str, typer.Option(help="A URL (s3://, sftp://, ...) for machines that share no folder.")
]


def build(
    manifest: Annotated[Path, typer.Argument(help="fleet.toml: models, devices, recipes.")],
    engine: EngineOption = "local",
    memory: Annotated[
        str | None, typer.Option(help="All steps at once, as 8GiB; default: most of what is free.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Steps at once; 0: as many as cores.")] = 0,
    address: AddressOption = None,
    artefacts: ArtefactsOption = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do, and what it may take.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Make what devices fetch. Interrupted, or after a failure, it goes on when called again."""
    tools = converters(_TOOLS)
    read = tools.read_fleet(manifest)
    if dry_run:
        plan = tools.plan_fleet(read)
        if json:
            print_json("fleet", plan.to_dict())
        else:
            print_text(_plan_text(plan))
        if plan.failures:
            raise typer.Exit(Exit.BAD_INPUT)
        return
    options = tools.EngineOptions(
        engine, size_bytes(memory, "--memory") or 0, workers, address or "", artefacts
    )
    with progress_bar() as bar:
        report = tools.build_fleet(
            read, options, progress=lambda at: bar(_doing(at), at.n_steps_done, at.n_steps)
        )
    for path in write_fleet_reports(report):
        note(f"report: {path}")
    for error in report.errors:
        note(f"failed: {error}")
    if json:
        print_json("fleet", report.to_dict())
    else:
        print_text(summary(report))
    if report.errors:
        raise typer.Exit(exit_for(report.errors[0]))


def step(
    digest: Annotated[str, typer.Argument(help="Of the step, 64 hex digits.")],
    work: Annotated[Path, typer.Option(help="The folder of the build that planned it.")],
    artefacts: ArtefactsOption = "",
    events: Annotated[
        bool, typer.Option("--events", hidden=True, help="Lines for the engine on stdout.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Do one step of a build, unless it was done: what engines, SLURM and Kubernetes jobs call."""
    tools = converters(_TOOLS)
    if events:
        tools.end_with_parent()
        _step_with_events(tools, lambda show: _run(tools, work, digest, artefacts, show))
        return
    with progress_bar() as bar:
        done = _run(tools, work, digest, artefacts, bar)
    if json:
        print_json("fleet", done.to_dict())
    else:
        how = "had been done" if done.was_done else f"done in {done.seconds:.1f} s"
        print_text(f"{done.path}: {how}\n")


ACTIONS = {
    "build": build,
    "step": step,
    "key": key,
    "root": root,
    "sign": sign,
    "check": check,
    "rollback": rollback,
}


def _run(tools: Any, work: Path, digest: str, artefacts: str, show: Any) -> Any:
    if artefacts:
        return tools.run_mirrored(work, digest, tools.Mirror(artefacts), show)
    return tools.run_step(work, digest, show)


def _step_with_events(tools: Any, run: Callable[[Any], Any]) -> None:
    """Failures go to the engine as they are, and end this process like any other's."""
    try:
        done = run(tools.say_events(_say))
    except EdgeError as error:
        told = {"type": type(error).__name__, "code": error.code, "message": str(error)}
        _say(json_module.dumps({"error": told}))
        raise
    _say(json_module.dumps({"result": done.to_dict()}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _doing(at: Any) -> str:
    left = "" if at.eta_s is None else f", about {at.eta_s / 60:.0f} min left"
    return f"{at.label}: {at.what}{left}"


def _plan_text(plan: Any) -> str:
    lines = [
        f"{plan.name}: {plan.n_steps} steps, {plan.n_done} of them done; one for every device "
        f"would be {plan.n_without_sharing}",
        f"left: about {plan.seconds / 60:.1f} min one by one, at least "
        f"{plan.longest_seconds / 60:.1f} min; the largest step takes about "
        f"{plan.memory_bytes / 2**20:.0f} MiB (estimates)",
    ]
    for one in plan.steps:
        how = "done" if one["is_done"] else f"{one['seconds']:.0f} s"
        lines.append(f"{one['digest'][:12]}  {how:>8}  {one['label']}")
    lines += [f"cannot be made: {why}" for why in plan.failures.values()]
    return "\n".join(lines) + "\n"
