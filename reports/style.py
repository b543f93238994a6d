"""How figures look: one colour, marker and line per method everywhere, colour-blind-safe, in paper style."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import seaborn

INK = "#1b1c1d"
"""Text and axes. The page replaces it by the text colour of the reader's light or dark theme."""
FAINT = "#c7c8c9"
"""Grid lines; the page makes them translucent text colour."""
PUBLISHED = "#9aa0a6"
"""What others published, behind our curves."""
PUBLISHED_MARKERS = ("+", "x", "1", "2", "3", "4", "|", "_", (5, 2, 0), (6, 2, 0))
"""Thin markers, none of which is one of ours."""


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
_ONLINE_FAMILY: tuple[float, tuple[float, ...]] = (0, (5, 1))
_COMPARATOR: tuple[float, tuple[float, ...]] = (0, (3, 1, 1, 1))
_BASELINES = {
    # From scratch: greys, as dreamer.
    "sac": Look("#6b7280", "D", "-"),
    "drqv2": Look("#5d6b5f", "^", "-"),
    # Offline RL: olive. Without environment steps there is no curve: they are dashed lines at their score.
    "iql": Look("#8a7a00", "p", "--"),
    "td3-bc": Look("#b5a214", "d", "--"),
    "cql": Look("#6e6a2f", "h", "--"),
    # Multi-task, offline: earth colours.
    "mt-bc": Look("#a0522d", "H", "--"),
    "mt-iql": Look("#7d6b5d", "p", "--"),
    "mt-td3-bc": Look("#a68a74", "d", "--"),
    # Off2On RL: indigo. RLPD goes online from the start with the same data: the same line in crimson.
    "cal-ql": Look("#4356c0", "h", _ONLINE_FAMILY),
    "iql-finetune": Look("#5c7cfa", "p", _ONLINE_FAMILY),
    "awac": Look("#7a52c7", "X", _ONLINE_FAMILY),
    "rlpd": Look("#d6336c", "*", _ONLINE_FAMILY),
    # Reward-free comparators: teal.
    "uds": Look("#00838f", "v", _COMPARATOR),
    "explore": Look("#12a3a8", "<", _COMPARATOR),
    "jsrl-bc": Look("#5f9ea0", ">", _COMPARATOR),
}
"""One hue or one kind of line for each family, and a marker for each method of it."""
_SCALE = ["#2f86c9", "#7d70d2", "#b95fb4", "#d85f6f", "#d9822b"]
"""Levels along an axis; of a lightness that shows on light and dark alike."""
_PREDICTORS = {
    "world model": Look(_BLUE, "s", "-"),
    "persistence": Look(_ORANGE, "^", (0, (5, 1))),
    "mean": Look(_GREY, "o", (0, (2, 1))),
}
"""Of the next observations, in figures of their own."""
_OTHER_COLOURS = ["#cc6677", "#44aa99", "#999933", "#aa4499", "#7f8fd9", "#b06a2c"]
_OTHER_MARKERS = "os^Dv<>PX*"
_OTHER_LINES: list[str | tuple[float, tuple[float, ...]]] = ["-.", (0, (6, 1.5)), (0, (4, 1, 1, 1, 1, 1))]


def look(method: str) -> Look:
    """How ``method`` is drawn: fixed for ours, baselines and predictors, for any other a function of its name alone.

    Other methods have colours that none of ours has, and broken lines; two of them may share a colour but seldom marker
    and line as well.
    """
    if (known := (_OURS | _BASELINES | _PREDICTORS).get(method)) is not None:
        return known
    number = int.from_bytes(hashlib.sha256(method.encode()).digest()[:6], "big")
    number, colour = divmod(number, len(_OTHER_COLOURS))
    number, marker = divmod(number, len(_OTHER_MARKERS))
    return Look(_OTHER_COLOURS[colour], _OTHER_MARKERS[marker], _OTHER_LINES[number % len(_OTHER_LINES)])


def level_looks(levels: Sequence[tuple[str, float | None, bool]]) -> dict[str, Look]:
    """How the levels of one factor are drawn, by label: from blue to orange along an axis, else each its own colour.

    Args:
        levels: label, place on the axis or None, and whether it is the reference; one without a place is grey.
    """
    placed = sorted({value for _, value, _ in levels if value is not None})
    scale = dict(zip(placed, seaborn.blend_palette(_SCALE, max(len(placed), 2)).as_hex(), strict=False))
    colours = itertools.cycle([_BLUE, _ORANGE, _GREEN, _PINK, _RED, _SKY, _PURPLE, _BROWN])
    markers = itertools.cycle(_OTHER_MARKERS)
    return {
        label: Look(
            scale[value] if value is not None else _GREY if reference else next(colours),
            next(markers),
            (0, (5, 1)) if reference else "-",
        )
        for label, value, reference in levels
    }


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
        "figure.constrained_layout.w_pad": 0.09,  # browsers set some letters wider
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
