"""What all figures have in common, as Plotly's JSON.

Colours are names of the page's CSS variables, as `var(--prefill)`: the page's script puts in what
they are in the light or the dark.
"""

from collections.abc import Iterable
from typing import Any

Figure = dict[str, Any]

_HEIGHT = 330
# Plotly's own labels of a logarithmic axis leave out the tens.
_TICKS = [digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5)]
_RULE = {"color": "var(--rule)", "width": 1.2, "dash": "dot"}
_NOTE_STYLE = {
    "showarrow": False,
    "font": {"size": 11.5, "color": "var(--soft)"},
    "bgcolor": "var(--card)",
    "borderpad": 1,
}


def plain_layout(x: str, y: str) -> Figure:
    """Axes called `x` and `y`. No template: its colours would be those of one theme only."""
    axis = {
        "gridcolor": "var(--grid)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "tickcolor": "var(--line)",
        "showline": True,
    }
    return {
        "height": _HEIGHT,
        "margin": {"l": 58, "r": 16, "t": 40, "b": 46},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "var(--font)", "size": 12, "color": "var(--soft)"},
        "xaxis": {**axis, "title": {"text": x, "standoff": 8}, "showgrid": False},
        "yaxis": {**axis, "title": {"text": y, "standoff": 10}, "showline": False},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
        },
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
        },
        "showlegend": True,
    }


def logarithmic_axis() -> Figure:
    """What makes an axis of a layout logarithmic."""
    ticks = {"tickvals": _TICKS, "ticktext": [f"{tick:,g}" for tick in _TICKS]}
    return {"type": "log", "tickmode": "array", **ticks}


def horizontal_rule(y: float) -> Figure:
    """A dotted line from left to right."""
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": _RULE}


def vertical_rule(x: float) -> Figure:
    """A dotted line from bottom to top."""
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": _RULE}


def note_left(y: float, text: str) -> Figure:
    """Words at the left end of a horizontal rule."""
    place = {"xref": "paper", "x": 0.01, "xanchor": "left", "y": y, "yanchor": "top"}
    return {**place, "text": text, **_NOTE_STYLE}


def note_below(x: float, text: str, anchor: str) -> Figure:
    """Words beside the foot of a vertical rule, on the side where no curve comes down.

    On a logarithmic axis `x` is the logarithm of the place, though not for the rule itself.
    """
    shift = 4 if anchor == "left" else -4
    place = {"x": x, "xanchor": anchor, "yref": "paper", "y": 0.02, "yanchor": "bottom"}
    return {**place, "xshift": shift, "text": text, **_NOTE_STYLE}


def rounded(values: Iterable[float]) -> list[float]:
    """Five significant digits: more cannot be seen, and would fill the page."""
    return [float(f"{value:.5g}") for value in values]
