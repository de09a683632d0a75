"""The vendors: what each takes, and how a graph is written for it. A line in TARGETS for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgellm.errors import InvalidArgumentError
from edgellm.npu.bundle import GENERATION, Bundle, generation_folder
from edgellm.npu.host import MASKED
from edgellm.npu.providers import PROVIDER, PROVIDERS, default_settings
from edgellm.npu.session import Runner

from .ir import KINDS
from .split import StepPlan
from .weights import NpuWeights
from .written import GraphWriter

GIB = 1 << 30
EMBED, HEAD = "embed", "head"
MASKED_INTEGERS = -64.0  # a step of 16 bits is then a thousandth, and exp(-64) is 0 in them


@dataclass(frozen=True)
class Writing:
    """What a writer is made from. bits: of weights. share: graphs of a part share their weights,
    where a target leaves the choice."""

    folder: Path
    weights: NpuWeights
    plan: StepPlan
    bits: int
    share: bool = False


# ImportError: the package of the writer is missing.
MakeWriter = Callable[[Writing], GraphWriter]


@dataclass(frozen=True)
class Target:
    """extra: the installation that writes it. kinds: the operators it has. max_bytes: of the
    constants of one graph. bits: of weights that it has. rounds: it rounds weights itself, from
    the source. masked: by the bits of weights. settings: what its executor is told, by those bits.
    on_host: stages that stay there unless a caller says otherwise; host_writer: of those, None: as
    the others. may_share: graphs of a part share their weights only if a caller says so; else they
    always do. generations: of NPUs, each of which has graphs of its own; none: all have the same.
    """

    name: str
    extra: str
    checked_by: str
    writer: MakeWriter
    kinds: frozenset[str] = KINDS
    max_bytes: int = 64 * GIB
    kv_dtype: str = "f16"
    bits: tuple[int, ...] = (4, 16, 32)
    rounds: bool = False
    masked: Callable[[int], float] = lambda _: MASKED
    settings: Callable[[int], Mapping[str, str]] = lambda _: {}
    check_settings: Mapping[str, str] = field(default_factory=dict)
    stateful: bool = False
    on_host: frozenset[str] = frozenset()
    host_writer: MakeWriter | None = None
    may_share: bool = False
    check_runners: Callable[[Path, Bundle], Mapping[str, Runner]] | None = None
    generations: tuple[str, ...] = ()


def _onnx(writing: Writing) -> GraphWriter:
    from .onnx_lowering import OnnxWriter

    return OnnxWriter(writing.folder, packed_tables=True)


def _provider(name: str) -> Target:
    """Float graphs for a provider that is in some packages of onnxruntime; checked on its CPU's."""
    return Target(
        f"ort-{name}",
        "npu",
        "onnxruntime's CPU provider",
        _plain_onnx,
        bits=(16, 32),
        settings=lambda _: default_settings(name),
        check_settings={PROVIDER: "cpu"},
        host_writer=_onnx,
    )


def _plain_onnx(writing: Writing) -> GraphWriter:
    from .onnx_lowering import OnnxWriter

    return OnnxWriter(writing.folder)


def _qualcomm(name: str, *archs: str) -> Target:
    """Of one generation of the HTP, or of several in one bundle."""
    is_one = len(archs) == 1

    def settings(bits: int) -> dict[str, str]:
        half = {"half": "1" if bits == 16 else "0"}
        return {GENERATION: archs[0], **half} if is_one else half

    def writer(writing: Writing) -> GraphWriter:
        from .qualcomm import QualcommWriter

        one, root = writing, writing.folder
        folders = {arch: root if is_one else root / generation_folder(arch) for arch in archs}
        chosen = settings(one.bits)
        return QualcommWriter(folders, one.weights, one.plan, one.bits, chosen, share=one.share)

    return Target(
        name,
        "npu,npu-qualcomm",
        f"Qualcomm's HTP simulator (v{archs[-1]}), or the chip",
        writer,
        max_bytes=3 * GIB,  # a context binary is mapped into 32-bit addresses of the HTP
        kv_dtype="f32",
        bits=(4, 8, 16),
        rounds=True,
        masked=lambda bits: MASKED if bits == 16 else MASKED_INTEGERS,
        settings=settings,
        check_settings={} if is_one else {GENERATION: archs[-1]},
        may_share=True,
        on_host=frozenset({EMBED}),  # looking up a row needs no NPU, and a table fills its memory
        host_writer=_onnx,
        generations=() if is_one else archs,
    )


def _apple(writing: Writing) -> GraphWriter:
    from .coreml import CoreMLWriter

    plan = writing.plan
    n_slots = plan.capacity + max(one.n_rows for one in plan.graph_facts)
    return CoreMLWriter(writing.folder, half=writing.bits != 32, n_slots=n_slots)


def _interpreted(folder: Path, bundle: Bundle) -> dict[str, Runner]:
    from .mil_interpreter import Package

    packages = {entry: Package(folder / entry) for entry in set(bundle.entry.values())}
    return {name: packages[entry].runner(name) for name, entry in bundle.entry.items()}


HTP_GENERATIONS = ("73", "75", "79", "81")
TARGETS = {
    target.name: target
    for target in (
        Target("ort", "npu", "onnxruntime's CPU provider", _onnx, host_writer=_onnx),
        *map(_provider, PROVIDERS),
        Target(
            "intel",
            "npu,npu-intel",
            "OpenVINO's CPU plugin",
            _plain_onnx,
            kv_dtype="f32",  # it drops roundings to half precision and back: say what it does
            check_settings={"device": "CPU"},
            host_writer=_onnx,
        ),
        Target(
            "apple",
            "coreml",
            "a numpy interpreter of the saved package",
            _apple,
            max_bytes=GIB,  # what Apple's compiler takes for the Neural Engine of a phone
            stateful=True,
            check_runners=_interpreted,
        ),
        *(_qualcomm(f"qualcomm-v{arch}", arch) for arch in HTP_GENERATIONS),
        _qualcomm("qualcomm", *HTP_GENERATIONS),
    )
}
PREFIX = "npu:"


def find_target(name: str) -> Target:
    """Of "npu:ort" and so on; InvalidArgumentError lists the names."""
    found = TARGETS.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    if found is None:
        known = ", ".join(PREFIX + one for one in TARGETS)
        raise InvalidArgumentError(
            f"target '{name}' is not known (known: {known})", code="invalid_argument"
        )
    return found
