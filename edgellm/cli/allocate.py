"""What `edgellm convert` says and saves when it chooses the formats itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from ..durable import write_whole
from ..errors import InvalidArgumentError
from ..sanitize import visible_line
from .output import note
from .progress import progress_bar

TargetBpwOption = Annotated[
    float | None,
    typer.Option(help="Choose formats by measured divergence: 8 x tensor bytes / parameters."),
]
MaxSizeOption = Annotated[
    str | None, typer.Option(help="The same, for the whole file: bytes, 700MB, 1.5GiB.")
]
MaxKlOption = Annotated[
    float | None, typer.Option(help="The same: the smallest file within so many nats per token.")
]
MethodOption = Annotated[
    str | None, typer.Option(help="With a limit: how codes are chosen; default gptq.")
]
PassesOption = Annotated[
    int | None, typer.Option(help="With a limit: forward passes to measure with; default 64.")
]
SaveRecipeOption = Annotated[
    Path | None, typer.Option(help="With a limit: write what was chosen as TOML.")
]
PlotOption = Annotated[
    Path | None, typer.Option(help="With a limit: the Pareto front as FILE.png or FILE.svg.")
]
CacheDirOption = Annotated[
    Path | None, typer.Option(help="With a limit: where what was measured is kept.")
]

PLOT_SUFFIXES = (".png", ".svg")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([kKMGT]?)(i?)B?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Wishes:
    """The options that need a limit; None: not given."""

    method: str | None
    passes: int | None
    save_recipe: Path | None
    plot: Path | None
    cache_dir: Path | None

    def run(
        self,
        converters: ModuleType,
        src: Path,
        out: Path | None,
        limit: Any,
        calibration: tuple[Path, ...],
        n_threads: int,
    ) -> tuple[Any, str]:
        """The allocation and what to print of it. out: None with --dry-run."""
        if self.plot is not None:
            _check_plot(self.plot)
        options = converters.AllocateOptions(cache_dir=self.cache_dir)
        if self.method is not None:
            options = replace(options, method=converters.Method(self.method))
        if self.passes is not None:
            options = replace(options, max_passes=self.passes)
        with progress_bar() as bar:
            found = converters.convert_within(
                src,
                out,
                limit=limit,
                calibration=calibration,
                options=options,
                n_threads=n_threads,
                progress=shown_on(bar),
            )
        if self.save_recipe is not None:
            converters.write_recipe(found.recipe, self.save_recipe)
        if self.plot is not None:
            _save_plot(found, self.plot)
        text = _text(found)
        return found, text if found.conversion is None else text + summary(found.conversion)


def shown_on(bar: Callable[[str, int, int], None]) -> Callable[[Any], None]:
    """A progress callback of the converters, on a bar of the verb."""
    return lambda at: bar(f"{at.stage} {at.tensor}", at.n_weights_done, at.n_weights_total)


def summary(report: Any) -> str:
    """One line of a finished conversion."""
    return (
        f"{visible_line(str(report.path))}: {report.n_weights:,} weights in "
        f"{report.n_bytes / 1e6:.2f} MB ({report.bits_per_weight:.3f} bits each), "
        f"{report.seconds:.1f} s\n"
    )


def parse_size(text: str) -> int:
    """Bytes: 4000000, 3.8MB (10^6), 512MiB (2^20)."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise InvalidArgumentError(
            f"'{text}' is no size: bytes, or a number with MB, MiB, GB, GiB",
            code="invalid_argument",
        )
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].lower()])


def limit_of(
    converters: ModuleType, target_bpw: float | None, max_size: str | None, max_kl: float | None
) -> Any | None:
    """None where no limit is given; InvalidArgumentError where several are."""
    if target_bpw is None and max_size is None and max_kl is None:
        return None
    n_bytes = None if max_size is None else parse_size(max_size)
    return converters.Limit(target_bpw=target_bpw, max_bytes=n_bytes, max_kl=max_kl)


def refuse_others(names: Mapping[str, object], reason: str) -> None:
    """An option that would have no effect is refused."""
    given = [f"--{name.replace('_', '-')}" for name, value in names.items() if value]
    if given:
        raise InvalidArgumentError(f"{', '.join(given)}: {reason}", code="invalid_argument")


def _text(found: Any) -> str:
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Any) -> Iterator[str]:
    yield f"{'bits/weight':>11} {'MB':>10} {'KL, predicted':>14}"
    for point in found.front:
        if point.kl > 0:
            size = f"{point.n_tensor_bytes / 1e6:.2f}"
            yield f"{point.bits_per_weight:>11.3f} {size:>10} {point.kl:>14.6f}"
    yield ""
    counts: dict[str, int] = {}
    for format in found.formats.values():
        counts[format] = counts.get(format, 0) + 1
    yield f"chosen: {', '.join(f'{n} x {format}' for format, n in sorted(counts.items()))}"
    heavy = sorted(found.kl_alone.items(), key=lambda pair: -pair[1])[:5]
    shown = ", ".join(f"{name} {found.formats[name]} {kl:.6f}" for name, kl in heavy)
    yield f"most of the divergence: {shown}"
    yield (
        f"{found.bits_per_weight:.4f} bits per weight, {found.predicted_kl:.6f} nats per token "
        f"predicted from {found.n_passes} passes of {found.n_held_out_tokens:,} held-out tokens"
    )
    conversion = found.conversion
    if conversion is not None and conversion.divergence is not None:
        yield (
            f"measured: {conversion.divergence.kl:.6f} nats per token, "
            f"{100 * conversion.divergence.top1:.2f} % same top token"
        )


def _save_plot(found: Any, path: Path) -> None:
    """FILE.png or FILE.svg, whole or not at all."""
    from ..evaluation.plots import front_image

    conversion = found.conversion
    kl = found.predicted_kl if conversion is None else conversion.divergence.kl
    points = [(point.bits_per_weight, point.kl) for point in found.front]
    image = front_image(points, (found.bits_per_weight, kl), path.suffix[1:])
    write_whole(path, image)
    note(f"plot: {path}")


def _check_plot(path: Path) -> None:
    if path.suffix not in PLOT_SUFFIXES:
        raise InvalidArgumentError(
            f"{path}: a plot is FILE.png or FILE.svg", code="invalid_argument"
        )
