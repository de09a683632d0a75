"""`edgellm serve`: OpenAI's API on this machine. docs/SERVER.md."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UnsupportedError
from ..options import DEFAULT_KV
from .defaults import (
    GovernFlag,
    KvCacheDirOption,
    KvCacheSizeOption,
    MaxMemoryOption,
    RequireSignatureOption,
    kv_cache,
    size_bytes,
)
from .flags import JsonFlag, KvOption, ThreadsOption
from .output import note, print_json, print_text
from .stored import model_file

TOKEN_VARIABLE = "EDGELLM_SERVE_TOKEN"
_HINT = "the server needs starlette and uvicorn; install them with: pip install 'edgellm[serve]'"


def command(
    models: Annotated[
        list[str] | None, typer.Argument(help="Files or names (edgellm list); demo: built in.")
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option("--models", help="Serve the .edge files in this directory, too.")
    ] = None,
    host: Annotated[str, typer.Option(help="Others than this machine need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: one that is free.")] = 8080,
    token: Annotated[
        str | None,
        typer.Option(help="Ask clients for it.", envvar=TOKEN_VARIABLE, show_envvar=True),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name that clients call this machine by.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Web pages that may ask, as https://example.org.")
    ] = None,
    slots: Annotated[int, typer.Option(help="Texts at once.")] = 16,
    queue: Annotated[int, typer.Option(help="Requests that may wait; more are answered 429.")] = 64,
    max_tokens: Annotated[
        int, typer.Option(help="Of an answer to a request that does not say.")
    ] = 4096,
    max_body: Annotated[str, typer.Option(help="Of a request.")] = "4MiB",
    keep_alive: Annotated[
        float | None, typer.Option(help="Unload models that nobody used for so many seconds.")
    ] = None,
    drain: Annotated[
        float, typer.Option(help="Seconds that texts have to end when the server stops.")
    ] = 4.0,
    threads: ThreadsOption = None,
    kv: KvOption = None,
    kv_cache_dir: KvCacheDirOption = None,
    kv_cache_size: KvCacheSizeOption = None,
    max_memory: MaxMemoryOption = None,
    require_signature: RequireSignatureOption = None,
    govern: GovernFlag = False,
    json: JsonFlag = False,
) -> None:
    """Load the first model, listen, and go on until SIGTERM or Ctrl-C."""
    try:
        from ..server.engine import Engine
        from ..server.run import listening_socket, serve
        from ..server.settings import ServerSettings
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("starlette", "uvicorn", "h11", "anyio"):
            raise UnsupportedError(_HINT, code="feature_unsupported") from None
        raise
    load_options: dict[str, Any] = {"threads": threads, "kv": kv or DEFAULT_KV}
    load_options |= kv_cache(kv_cache_dir, kv_cache_size)
    if require_signature is not None:
        load_options["require_signature"] = require_signature
    names = list(models or ([] if models_dir is not None else ["demo"]))
    settings = ServerSettings(
        models=tuple(_served(name) for name in names),
        models_dir=models_dir,
        max_memory=size_bytes(max_memory, "--max-memory"),
        keep_alive_s=keep_alive,
        host=host,
        port=port,
        token=token,
        hosts=tuple(allow_host or ()),
        origins=tuple(allow_origin or ()),
        slots=slots,
        queue=queue,
        max_tokens=max_tokens,
        max_body=size_bytes(max_body, "--max-body") or 0,
        drain_s=drain,
        load_options=load_options,
        govern=govern,
    )
    os.environ.pop(TOKEN_VARIABLE, None)  # nothing that this process starts needs it
    engine = Engine(settings)
    sock = listening_socket(settings)
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{sock.getsockname()[1]}"

    def said() -> None:
        served = sorted(engine.pool.paths())
        if json:
            print_json("serve", {"url": url, "models": served})
        else:
            print_text(f"{url}\n")
            note(f"note: serving {', '.join(served) or 'nothing yet'} at {url}/v1; Ctrl-C ends it")
        sys.stdout.flush()

    serve(engine, sock, said)


def _served(name: str) -> str:
    """What has to be converted is, once; a name stays what clients call the model."""
    from ..locate import find

    return str(model_file(name)) if find(name).is_source else name
