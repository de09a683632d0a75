"""What the server counts, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from time import perf_counter
from weakref import WeakSet

from ..results import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TTFT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_INTER_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
Sample = tuple[str, float]  # labels as they are written, value


class Histogram:
    """Counts of values by upper bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """One value, in seconds."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> Iterator[str]:
        """As Prometheus has it: every bucket holds the ones below."""
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            text = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'{name}_bucket{{le="{text}"}} {total}'
        yield f"{name}_sum {self._sum:g}"
        yield f"{name}_count {total}"


class Metrics:
    """Since the server started. For the event loop only."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by route and status
        self.tokens: Counter[str] = Counter()  # prompt, cached, generated, drafted, accepted
        self.n_cancelled = 0
        self._ttft = Histogram(_TTFT_S)
        self._inter = Histogram(_INTER_S)
        self.last_alone: dict[str, Stats] = {}  # by model: the last text that shared no step
        self._under_way: WeakSet[TextWatch] = WeakSet()  # some never begin

    def watch(self, model: str) -> TextWatch:
        """For one text of a model, which begins now."""
        watch = TextWatch(self, model)
        for other in (*self._under_way, *([watch] if self._under_way else [])):
            other.is_alone = False
        self._under_way.add(watch)
        return watch

    def text(self, gauges: Iterable[tuple[str, str, list[Sample]]]) -> str:
        """The page; `gauges` are name, help and samples of what is measured when it is asked."""
        lines = [
            "# HELP edgellm_requests_total Answered requests.",
            "# TYPE edgellm_requests_total counter",
            *(
                f'edgellm_requests_total{{route="{route}",status="{status}"}} {count}'
                for (route, status), count in sorted(self.requests.items())
            ),
            "# HELP edgellm_tokens_total Tokens; cached ones of prompts were not computed.",
            "# TYPE edgellm_tokens_total counter",
        ]
        for kind in ("prompt", "cached", "generated", "drafted", "accepted"):
            lines.append(f'edgellm_tokens_total{{kind="{kind}"}} {self.tokens[kind]}')
        lines += [
            "# HELP edgellm_cancelled_total Texts whose client went away.",
            "# TYPE edgellm_cancelled_total counter",
            f"edgellm_cancelled_total {self.n_cancelled}",
        ]
        for name, told, histogram in (
            ("edgellm_time_to_first_token_seconds", "From its start.", self._ttft),
            ("edgellm_inter_token_seconds", "Between two tokens of a text.", self._inter),
        ):
            lines += [f"# HELP {name} {told}", f"# TYPE {name} histogram", *histogram.lines(name)]
        for name, told, samples in gauges:
            lines += [f"# HELP {name} {told}", f"# TYPE {name} gauge"]
            lines += [f"{name}{labels} {value:g}" for labels, value in samples]
        return "\n".join(lines) + "\n"


class TextWatch:
    """Of one text: when its tokens come."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self.is_alone = True
        self._last = perf_counter()
        self._is_first = True

    def token(self) -> None:
        """Another one is there."""
        now = perf_counter()
        histogram = self._metrics._ttft if self._is_first else self._metrics._inter
        histogram.add(now - self._last)
        self._last, self._is_first = now, False

    def end(self, stats: Stats | None) -> None:
        """The text is over, whole or not; None: it never began."""
        self._metrics._under_way.discard(self)
        if stats is None:
            return
        if self.is_alone:
            self._metrics.last_alone[self._model] = stats
        tokens = self._metrics.tokens
        tokens["prompt"] += stats.prompt_tokens
        tokens["cached"] += stats.reused_tokens
        tokens["generated"] += stats.generated_tokens
        tokens["drafted"] += stats.drafted_tokens
        tokens["accepted"] += stats.accepted_tokens


def label(**values: str) -> str:
    """Labels, escaped."""
    parts = []
    for name, value in values.items():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        parts.append(f'{name}="{escaped}"')
    return "{" + ",".join(parts) + "}"
