"""How fast the model is on this machine, as it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from ..messages import Event, Measure, Measured, ReplyFailed
from ..widgets.plain import Plain
from .sheet import Sheet

_ROUNDS = 5
_SHARE = 4  # of the context is the prompt, and as much the reply, at most so many tokens:
_MAX_TOKENS = 128


class Bench(Sheet):
    """The chat stays as it is. `edgellm bench` measures more, and more exactly."""

    TITLE_TEXT: ClassVar[str] = "Bench"
    KEYS_TEXT: ClassVar[str] = " · Enter measure"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "measure", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self._points: list[Measured] = []
        self._figures = Plain(classes="figures")
        self._plot: Any = None
        self._is_measuring = False

    def body(self) -> Sequence[Widget]:
        """A curve, and figures under it."""
        try:
            from textual_plotext import PlotextPlot
        except ImportError:
            hint = "pip install textual-plotext draws a curve here"
            return Plain(hint, classes="body"), self._figures
        self._plot = PlotextPlot(classes="body")
        return self._plot, self._figures

    def on_mount(self) -> None:
        """Nothing is measured before it is asked for."""
        self._draw()
        n = self._n_tokens()
        self._figures.show(f"{_ROUNDS} rounds of {n} tokens to read and {n} to write")

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        if self._is_measuring:
            self.app.stop()

    def action_measure(self) -> None:
        """From the beginning."""
        if self.app.busy:
            self.say("something is under way")
            return
        self._points.clear()
        self._is_measuring = True
        n = self._n_tokens()
        self.say("measuring")
        self.app.ask(Measure(n, n, _ROUNDS), self._show)

    def _n_tokens(self) -> int:
        return max(1, min(_MAX_TOKENS, self.app.engine.card.n_ctx // _SHARE))

    def _show(self, event: Event) -> None:
        if isinstance(event, Measured):
            self._points.append(event)
            self._is_measuring = not event.is_last
        elif isinstance(event, ReplyFailed):
            self._is_measuring = False
            if self.is_mounted:
                self.say(event.message)
            return
        if self.is_mounted:
            self._draw()
            self._say_figures()

    def _say_figures(self) -> None:
        last = {point.n_round: point for point in self._points}
        prompt, reply = (
            _median([getattr(point, name) for point in last.values()])
            for name in ("prompt_tokens_per_s", "reply_tokens_per_s")
        )
        text = f"prompt {prompt:,.0f} · reply {reply:,.1f} tokens/s"
        self._figures.show(text, same_size=True)
        if not self._is_measuring:
            self.say(f"medians of {len(last)}; edgellm bench measures more")

    def _draw(self) -> None:
        if self._plot is None:
            return
        plot = self._plot.plt
        plot.clear_data()
        plot.title("tokens/s of the reply")
        plot.xfrequency(0)
        speeds = [point.reply_tokens_per_s for point in self._points]
        if speeds:
            plot.ylim(0, 1.15 * max(speeds))
            plot.plot(speeds, marker="braille")
        self._plot.refresh()


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
