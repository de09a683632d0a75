"""`edgellm plan`: will a model run on a device, and how fast; nothing is loaded. docs/PLAN.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ..device_plan import DevicePlan, plan_on
from ..edgefile import read_header
from ..errors import InvalidArgumentError
from ..locate import explained, resolve
from ..planner import mib
from ..profiles import find_profile, profile_names
from ..speed import Speed
from .defaults import size_bytes
from .exits import Exit
from .flags import JsonFlag, KvOption
from .output import print_json, print_table

_MEANING = {
    "file": "file, mapped",
    "scratch": "scratch of a step",
    "logits": "logits of texts",
    "kv": "KV of texts",
    "program": "the program itself",
    "kernel": "page tables",
    "gpu copy": "weights, for the GPU",
}


def command(
    model: Annotated[
        str | None, typer.Argument(help="A .edge file, a name (edgellm list) or demo.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="A class of devices, or a .toml file. Default: this machine, now."),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="List what --device knows, and end.")
    ] = False,
    context: Annotated[
        int | None, typer.Option(help="Tokens of a text. Default: the device's choice.", min=1)
    ] = None,
    kv: KvOption = None,
    parallel: Annotated[int, typer.Option(help="Texts at once.", min=1)] = 1,
    backend: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda-fp8. Default: the device's best.")
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Instead of what the device has: 800MiB, 2GB.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Exit code 6 where it does not fit, with what would."""
    if devices:
        _list_devices(json)
        return
    if model is None:
        message = "MODEL is missing: edgellm plan MODEL --device raspberry-pi-5"
        raise InvalidArgumentError(message, code="invalid_argument")
    limit_bytes = size_bytes(max_memory, "--max-memory")
    profile = None if device is None else find_profile(device)
    path = resolve(model)
    with explained(path):
        header = read_header(path)
    plan = plan_on(
        header,
        profile,
        n_ctx=context,
        kv=kv,
        parallel=parallel,
        backend=backend,
        limit_bytes=limit_bytes,
    )
    if json:
        print_json("plan", {"path": str(path), **plan.to_dict()})
    else:
        print_table(_rows(plan))
    if plan.fits is False:
        raise typer.Exit(Exit.MEMORY)


def _list_devices(json: bool) -> None:
    profiles = [find_profile(name) for name in profile_names()]
    if json:
        rows = [{"name": one.name, "title": one.title, "kind": one.kind} for one in profiles]
        print_json("plan", {"devices": rows})
    else:
        print_table((one.name, one.title) for one in profiles)


def _rows(plan: DevicePlan) -> Iterator[tuple[str, Any]]:
    wish = plan.wish
    texts = "a text" if wish.parallel == 1 else f"{wish.parallel} texts"
    yield "device", f"{plan.device}, {plan.backend}"
    yield "for", f"{texts} of {wish.n_ctx:,} tokens, KV {wish.kv}"
    for name, n_bytes in plan.parts.items():
        yield _MEANING[name], mib(n_bytes)
    yield "memory at most", mib(plan.total_bytes)
    limit = "unknown" if plan.limit_bytes is None else mib(plan.limit_bytes)
    yield "may be used", f"{limit} ({plan.limit_source})"
    yield "fits", {True: "yes", False: "no", None: "unknown"}[plan.fits]
    if plan.host_layers != 0:
        yield "layers", _layers(plan.host_layers)
    for way in plan.ways:
        yield "would fit", f"{way.change}: {mib(way.total_bytes)}"
    if plan.fits is False and not plan.ways:
        yield "would fit", "nothing of this model: take a smaller one"
    given = [f"{name}={value!r}" for name, value in plan.load_arguments.items() if value]
    yield "load with", ", ".join(given)
    yield "decode", _speed(plan.decode, f"at the end of {wish.n_ctx:,} tokens")
    yield "prefill", _speed(plan.prefill, f"of {wish.n_ctx:,} tokens")
    yield "disk", mib(plan.disk_bytes)
    cold = "unknown" if plan.startup_s is None else f"{plan.startup_s:.1f} s from a cold disk"
    yield "start", f"{cold}; a few ms where the file is in the page cache"


def _layers(n_on_host: int | None) -> str:
    if n_on_host is None:
        return "none on the GPU: its memory is too short for the head alone; take backend cpu"
    return f"the first {n_on_host} on the CPU, the others on the GPU, whose memory is short"


def _speed(speed: Speed | None, what: str) -> str:
    if speed is None:
        return "unknown: no figures of this device (edgellm bench MODEL --write-profile FILE.toml)"
    low, middle, high = (_figure(one) for one in (speed.low, speed.tokens_per_s, speed.high))
    return f"{middle} tokens/s {what} ({low} to {high})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
