"""Options that many verbs share. Apart from output.py, which every run imports and which needs no
parser."""

from __future__ import annotations

from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
KvOption = Annotated[
    str | None,
    typer.Option("--kv", help="Keep keys and values as F16, K8V8, K8V4 or K6V4. Default: K8V8."),
]
BackendOption = Annotated[
    str,
    typer.Option("--backend", help="cpu, cuda, cuda-fp8, metal, vulkan or npu (docs/backends.md)."),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", "-t", help="Default: physical performance cores.")
]
