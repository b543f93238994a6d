"""How figures look: one colour, marker and line per method everywhere, colour-blind-safe, in paper style."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import seaborn

INK = "#1b1c1d"
"""Text and axes. The page replaces it by the text colour of the reader's light or dark theme."""
FAINT = "#c7c8c9"
"""Grid lines; the page makes them translucent text colour."""


@dataclass(frozen=True)
class Look:
    """How one method is drawn: colour as ``#rrggbb``, matplotlib's marker and line style."""

    colour: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]


_COLOURS: list[str] = [str(colour) for colour in seaborn.color_palette("colorblind").as_hex()]
_BLUE, _ORANGE, _GREEN, _RED, _PINK, _BROWN, _, _GREY, _, _SKY = _COLOURS
_PURPLE = "#8d6cc0"
_OURS = {
    "dreamer": Look(_GREY, "o", "-"),
    "wpt": Look(_BLUE, "s", "-"),
    "wpt-no-guidance": Look(_ORANGE, "^", "-"),
    "wpt-pretrain-only": Look(_GREEN, "D", "-"),
    "wpt-no-rehearsal": Look(_PINK, "v", "-"),
    "wpt-no-pretrain": Look(_RED, "P", "-"),
    "wpt-rehearsal-only": Look(_BROWN, "X", "-"),
    "wpt-guidance-only": Look(_SKY, "<", "-"),
    "wpt-random-replay": Look(_PURPLE, ">", "-"),
}
_OTHER_COLOURS = ["#cc6677", "#44aa99", "#999933", "#aa4499", "#7f8fd9", "#b06a2c"]
_OTHER_MARKERS = "os^Dv<>PX*"
_OTHER_LINES: list[str | tuple[float, tuple[float, ...]]] = ["-.", (0, (6, 1.5)), (0, (4, 1, 1, 1, 1, 1))]


def look(method: str) -> Look:
    """How ``method`` is drawn: fixed for ours, and for any other a function of its name alone.

    Other methods' lines are broken, so that none can be taken for one of ours; two of them may share a colour but
    seldom marker and line as well.
    """
    if method in _OURS:
        return _OURS[method]
    number = int.from_bytes(hashlib.sha256(method.encode()).digest()[:6], "big")
    number, colour = divmod(number, len(_OTHER_COLOURS))
    number, marker = divmod(number, len(_OTHER_MARKERS))
    return Look(_OTHER_COLOURS[colour], _OTHER_MARKERS[marker], _OTHER_LINES[number % len(_OTHER_LINES)])


def settings(salt: str) -> dict[Any, Any]:
    """Matplotlib settings of every figure; ``salt`` makes the identifiers in its SVG its own and repeatable."""
    return {
        **seaborn.axes_style("ticks"),
        **seaborn.plotting_context("paper"),
        "axes.edgecolor": INK,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "figure.constrained_layout.use": True,
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans", "Arial", "sans-serif"],
        "font.size": 9,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": INK,
        "ytick.color": INK,
    }
