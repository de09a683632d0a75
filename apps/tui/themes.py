"""The colours. Meaning never stands in colour alone: bars, words and brightness say it too."""

from __future__ import annotations

from textual.theme import Theme

# Okabe and Ito, "Color Universal Design" (2008): told apart with every kind of colour blindness.
_BLUE, _SKY, _ORANGE, _VERMILION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"


def themes() -> dict[str, Theme]:
    """By the names of the settings."""
    dark = {"background": "#11141a", "surface": "#1a1f28", "panel": "#222936", "dark": True}
    light = {"background": "#fbfaf7", "surface": "#f0eee8", "panel": "#e4e1d8", "dark": False}
    return {
        "dark": Theme(
            name="dark",
            primary="#7aa2f7",
            secondary="#9aa5ce",
            accent="#bb9af7",
            success="#9ece6a",
            warning="#e0af68",
            error="#f7768e",
            foreground="#d5daea",
            **dark,  # type: ignore[arg-type]
        ),
        "light": Theme(
            name="light",
            primary="#2f5fb3",
            secondary="#5a6478",
            accent="#7b3fa0",
            success="#3f7d20",
            warning="#96620a",
            error="#b3261e",
            foreground="#22252b",
            **light,  # type: ignore[arg-type]
        ),
        "colour-blind": Theme(
            name="colour-blind",
            primary=_SKY,
            secondary="#a8b0bf",
            accent="#CC79A7",
            success=_SKY,
            warning=_ORANGE,
            error=_VERMILION,
            foreground="#e4e7ee",
            **dark,  # type: ignore[arg-type]
        ),
        "colour-blind-light": Theme(
            name="colour-blind-light",
            primary=_BLUE,
            secondary="#59606c",
            accent="#8a3f6c",
            success=_BLUE,
            warning="#8a5f00",
            error="#a84400",
            foreground="#1d2026",
            **light,  # type: ignore[arg-type]
        ),
    }
