"""`edgellm bench`: prefill and decode speed of one model here, and the share of what the machine
could do. Every figure is the median of the rounds; prefill, decode and reads take turns in each
round, so a slow spell of the machine hits all. Definitions of all keys: `_HELP`."""

from __future__ import annotations

import json as json_module
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from .. import _native
from ..adapter import Adapter, native_adapter
from ..edgefile import read_header
from ..edgeheader import tensor_bytes
from ..errors import ContextOverflowError
from ..opening import Opened
from ..options import DEFAULT_KV, LoadOptions
from ..work import TokenWork, work_of
from . import bench_profile
from .allocate import refuse_others
from .defaults import (
    AdapterOption,
    DraftLayersOption,
    DraftModelOption,
    RequireSignatureOption,
)
from .flags import BackendOption, JsonFlag, KvOption, ThreadsOption
from .output import note, note_placement, print_json, print_table
from .stored import model_file

_TEXTS_EACH = 4  # of each kind
_K_ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
_K_CONTEXT_TOKENS = 16  # tokens before the K rows, so that attention has something to read
_HELP: dict[str, str] = {
    "prefill_tokens_per_s": "prompt tokens per second, from an empty context",
    "decode_tokens_per_s": "new tokens per second, one at a time, from an empty context",
    "decode_gb_per_s": "decode speed times the weight bytes that one token needs",
    "read_bandwidth_gb_per_s": "plain reads of 256 MiB with the same threads, best of 5 a round",
    "read_bandwidth_share": "decode GB/s over those reads, round by round; far above 1: in cache",
    "int8_peak_gmac_per_s": "int8 multiply-adds on data in cache with the same threads",
    "int8_peak_share": "multiply-adds of the weights in prefill / that peak",
    "busiest_expert_share": "by layer with experts: tokens of the busiest expert / tokens of all",
}


def command(
    model: Annotated[str, typer.Argument(help="A file, a name (edgellm list) or demo.")],
    prefill: Annotated[int, typer.Option(help="Prompt tokens.", min=1)] = 512,
    decode: Annotated[int, typer.Option(help="New tokens.", min=1)] = 128,
    adapter: AdapterOption = None,
    threads: ThreadsOption = None,
    kv: KvOption = None,
    rounds: Annotated[int, typer.Option(help="Medians are over these.", min=1)] = 5,
    speculate: Annotated[
        bool, typer.Option("--speculate", help="What guessing ahead is worth, by kind of text.")
    ] = False,
    texts: Annotated[
        Path | None,
        typer.Option(help="With --speculate: JSON Lines of kind, prompt and continuation."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="With --speculate: a picture of speed by acceptance.")
    ] = None,
    draft_model: DraftModelOption = None,
    draft_layers: DraftLayersOption = 0,
    write_profile: Annotated[
        Path | None,
        typer.Option(help="Write what this machine can do to FILE.toml, for plan --device."),
    ] = None,
    calibrate_with: Annotated[
        list[Path] | None,
        typer.Option(help="With --write-profile: a report of bench --json of another model here."),
    ] = None,
    backend: BackendOption = "cpu",
    require_signature: RequireSignatureOption = None,
    json: JsonFlag = False,
) -> None:
    """Measure; nothing is generated: token ids are arbitrary, or of given texts."""
    path = model_file(model)
    reports = list(calibrate_with or [])
    if reports and write_profile is None:
        refuse_others({"calibrate_with": reports}, "only with --write-profile")
    if write_profile is not None:
        bench_profile.check_wishes(write_profile, {"adapter": adapter, "speculate": speculate})
    options = LoadOptions(
        threads=threads,
        kv=kv or DEFAULT_KV,
        verify="always",
        speculate=speculate,
        draft_model=draft_model,
        draft_layers=draft_layers,
        backend=backend,
        require_signature=require_signature,
    )
    if speculate:
        refuse_others({"adapter": adapter}, "not with --speculate")
        _speculate(path, texts, plot, replace(options, verify="once"), decode, json)
        return
    others = {
        "texts": texts,
        "plot": plot,
        "draft_model": draft_model,
        "draft_layers": draft_layers or None,
    }
    refuse_others(others, "only with --speculate")
    opened = Opened(path, options)
    loaded = opened.native
    try:
        note_placement(loaded)
        through = None
        if adapter is not None:
            through = native_adapter(Adapter(loaded, adapter, path, opened.signers))
        data = _measure(loaded, through, _work(path, through), prefill, decode, rounds)
    finally:
        opened.close()
    data = {"path": str(path), "file_bytes": path.stat().st_size, **data}
    if write_profile is not None:
        bench_profile.write(write_profile, data, reports)
    if json:
        print_json("bench", data)
        return
    shown = {name: value for name, value in data.items() if name != "work"}
    print_table((name, _figure(value)) for name, value in shown.items())
    for name, meaning in _HELP.items():
        note(f"{name}: {meaning}")


def _speculate(
    path: Path,
    texts: Path | None,
    plot: Path | None,
    options: LoadOptions,
    n_tokens: int,
    json: bool,
) -> None:
    from . import bench_speculate, bench_texts

    bench_speculate.check_plot(plot)
    given = None if texts is None else bench_texts.from_file(texts)
    opened = Opened(path, options)
    try:
        if given is None:
            given = bench_texts.built_in(_TEXTS_EACH, n_tokens, opened.native.n_vocab)
        data = bench_speculate.measure(opened.native, given, n_tokens)
    finally:
        opened.close()
    data = {"path": str(path), "file_bytes": path.stat().st_size, **data}
    if plot is not None:
        bench_speculate.plot(data, plot)
    if json:
        print_json("bench", data)
        return
    print_table(bench_speculate.table(data))
    for name, meaning in bench_speculate.HELP.items():
        note(f"{name}: {meaning}")


def _measure(
    model: _native.Model,
    adapter: _native.Adapter | None,
    work: TokenWork,
    prefill: int,
    decode: int,
    rounds: int,
) -> dict[str, Any]:
    n_ctx = max(prefill, decode + 1, _K_CONTEXT_TOKENS + max(_K_ROWS))
    if n_ctx > model.n_ctx_train:
        message = (
            f"{n_ctx} tokens are needed and the context of this model is {model.n_ctx_train}; "
            "lower --prefill or --decode"
        )
        raise ContextOverflowError(message, code="context_overflow")
    session = _native.Session(model, n_ctx, adapter, reuse_prefix=False)
    try:
        _time_tokens(session, model, min(prefill, 32))  # touches every page once
        prefill_s, decode_s, read_bytes_per_s = [], [], []
        peak_rss_bytes = 0
        for n in range(rounds):
            note(f"round {n + 1} of {rounds}")
            prefill_s.append(_time_tokens(session, model, prefill))
            decode_s.append(_time_one_by_one(session, model, decode))
            # Before the machine is measured: that takes buffers of its own.
            peak_rss_bytes = peak_rss_bytes or _native.memory_figures()["peak_rss_bytes"]
            read_bytes_per_s.append(_native.measure_read_bandwidth(model.n_threads))
        k_rows_ms = _time_k_rows(session, model, rounds)
    finally:
        session.close()
    peak = _native.measure_int8_peak(model.n_threads)
    prefill_tokens_per_s = prefill / statistics.median(prefill_s)
    decode_bytes_per_s = [decode * work.weight_bytes / s for s in decode_s]
    pairs = zip(decode_bytes_per_s, read_bytes_per_s, strict=True)
    return {
        "isa": _native.active_isa(),
        "backend": model.backend,
        "threads": model.n_threads,
        "prefill_tokens": prefill,
        "decode_tokens": decode,
        "rounds": rounds,
        "prefill_tokens_per_s": prefill_tokens_per_s,
        "decode_tokens_per_s": decode / statistics.median(decode_s),
        "prefill_tokens_per_s_rounds": [prefill / s for s in prefill_s],
        "decode_tokens_per_s_rounds": [decode / s for s in decode_s],
        "weight_bytes_per_token": work.weight_bytes,
        "work": asdict(work),
        "ram_bytes": _native.memory_figures()["total_bytes"],
        "decode_gb_per_s": statistics.median(decode_bytes_per_s) / 1e9,
        "read_bandwidth_gb_per_s": statistics.median(read_bytes_per_s) / 1e9,
        "read_bandwidth_share": statistics.median(ours / read for ours, read in pairs),
        "int8_peak_gmac_per_s": peak / 1e9,
        "int8_peak_share": prefill_tokens_per_s * work.body_macs / peak,
        "k_rows_ms": k_rows_ms,
        "load_ms": model.load_ms,
        "kv_format": model.kv_format,
        "kv_bytes_per_token": model.kv_bytes_per_token,
        "peak_rss_bytes": peak_rss_bytes,
        **_expert_load(model),
    }


def _expert_load(model: _native.Model) -> dict[str, Any]:
    """Of all tokens of this run; nothing for a model without experts."""
    load = {str(at): layer for at, layer in enumerate(model.expert_load) if layer}
    shares = {at: max(layer) / max(1, sum(layer)) for at, layer in load.items()}
    return {"expert_load": load, "busiest_expert_share": shares} if load else {}


def _work(path: Path, adapter: _native.Adapter | None) -> TokenWork:
    """Of an adapter the bytes count; its multiply-adds are not int8."""
    work = work_of(read_header(path))
    return replace(work, weight_bytes=work.weight_bytes + _adapter_bytes(adapter))


def _adapter_bytes(adapter: _native.Adapter | None) -> int:
    if adapter is None:
        return 0
    tensors = json_module.loads(adapter.metadata["edgellm.tensors"]).values()
    return sum(tensor_bytes(t["format"], *t["shape"]) for t in tensors if t["format"] != "U8")


def _ids(n_tokens: int, n_vocab: int) -> list[int]:
    """Arbitrary ids, spread over the vocabulary, the same every time."""
    return [(7919 * t + 13) % n_vocab for t in range(n_tokens)]


def _run(session: _native.Session) -> None:
    while not session.run():
        pass


def _timed(work: Callable[[], None]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def _time_tokens(session: _native.Session, model: _native.Model, n_tokens: int) -> float:
    """Seconds for one prompt of n_tokens, from an empty context."""
    session.rewind(0)
    session.append(_ids(n_tokens, model.n_vocab))
    return _timed(lambda: _run(session))


def _time_one_by_one(session: _native.Session, model: _native.Model, n_tokens: int) -> float:
    """Seconds for n_tokens steps of one token each, after one untimed token."""
    first, *others = _ids(n_tokens + 1, model.n_vocab)
    session.rewind(0)
    session.append([first])
    _run(session)

    def steps() -> None:
        for token_id in others:
            session.append([token_id])
            _run(session)

    return _timed(steps)


def _time_k_rows(session: _native.Session, model: _native.Model, rounds: int) -> dict[str, float]:
    """Median milliseconds of one step over K tokens, for each K, at the same context length."""
    samples: dict[int, list[float]] = {k: [] for k in _K_ROWS}
    ids = _ids(_K_CONTEXT_TOKENS + max(_K_ROWS), model.n_vocab)
    session.rewind(0)
    session.append(ids[:_K_CONTEXT_TOKENS])
    _run(session)
    for _ in range(3 * rounds):
        for k, times in samples.items():
            session.rewind(_K_CONTEXT_TOKENS)
            session.append(ids[_K_CONTEXT_TOKENS : _K_CONTEXT_TOKENS + k])
            times.append(1e3 * _timed(lambda: _run(session)))
    return {str(k): statistics.median(times) for k, times in samples.items()}


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, list):
        return ", ".join(_figure(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_figure(item)}" for name, item in value.items())
    return str(value)
