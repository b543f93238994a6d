"""What a pre-trained world model predicts open loop: its error by horizon, trajectories of states, strips of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from wpt_bench.reports.figures.drawing import Drawing, Sketch, draw, small_multiples
from wpt_bench.reports.style import INK, look

MODEL, PERSISTENCE, MEAN = "world model", "persistence", "mean"
SHOWN = 4
"""State dimensions of a trajectory figure."""
STRIP = 5
"""Predicted frames of a filmstrip."""
FULL_DIFFERENCE = 128
"""Difference between two bytes that a filmstrip shows as white."""
_GAP, _EDGE = 4, 12  # between frames, and between context and prediction, in pixels of a frame


def error_by_horizon(errors: Mapping[str, Mapping[str, NDArray[np.float64]]], space: str) -> Drawing:
    """Small multiples, one per embodiment: error of the model and of two trivial predictors against agent steps ahead.

    Args:
        errors: by embodiment and predictor (``MODEL``, ``PERSISTENCE``, ``MEAN``), float ``(seeds, horizon)``:
            standardised mean squared errors, a row for each pre-training seed.
        space: that the model predicts in, and what errors are divided by, for the caption.
    """
    seeds = max(len(own[MODEL]) for own in errors.values())

    def make(sketch: Sketch) -> None:
        panels = small_multiples(sketch, list(errors), 2)
        for axes, own in zip(panels, errors.values(), strict=True):
            for predictor in (MEAN, PERSISTENCE, MODEL):
                steps = np.arange(1, own[predictor].shape[1] + 1)
                if len(own[predictor]) > 1:
                    for seed in own[predictor]:
                        sketch.faint(axes, predictor, steps, seed)
                sketch.curve(axes, predictor, steps, own[predictor].mean(0), markersize=3)
            _log_scale(axes)
            axes.set_xlim(0, len(steps) + 0.5)
        _label(panels, "error")
        sketch.legend(*panels, ncols=3)

    rows = -(-len(errors) // 2)
    caption = (
        "Open-loop prediction error against agent steps after the last observation seen, on held-out episodes, one "
        f"panel for each embodiment, on a log scale; lower is better. Mean squared error of {space}. Persistence "
        "repeats the last observation seen, mean predicts the training data's."
        + (f" Thick: mean of {seeds} pre-training seeds; thin: each." if seeds > 1 else " One pre-training seed.")
    )
    return draw("open-loop-error", caption, (4.6, 0.5 + 1.55 * rows), make)


def trajectories(
    embodiment: str,
    truth: NDArray[np.float32],
    predicted: NDArray[np.float32],
    dimension: NDArray[np.int64],
    seed: int | None,
) -> Drawing:
    """One held-out chunk of states and its open-loop prediction: the dimensions whose truth varies most.

    Args:
        embodiment: whose chunk it is.
        truth: standardised, ``(context + horizon, dims)``.
        predicted: the same for the last steps, ``(horizon, dims)``.
        dimension: which number of the state each of the ``dims`` is.
        seed: of the pre-training, which chose the chunk; None if not known.
    """
    horizon, context = len(predicted), len(truth) - len(predicted)
    chosen = np.sort(np.argsort(-truth.std(0), kind="stable")[:SHOWN])
    steps = np.arange(1 - context, horizon + 1)

    def make(sketch: Sketch) -> None:
        titles = [f"state dimension {dimension[column]}" for column in chosen]
        panels = small_multiples(sketch, titles, 2)
        for axes, column in zip(panels, chosen, strict=True):
            axes.axvspan(steps[0], 0, color=INK, alpha=0.09, linewidth=0, label="context")
            axes.plot(steps, truth[:, column], color=INK, linewidth=1.4, label="truth")
            axes.plot(
                steps[context:],
                predicted[:, column],
                color=look(MODEL).colour,
                linestyle=(0, (3, 1.2)),
                label="open-loop prediction",
            )
            axes.set_xlim(steps[0], horizon)
        _label(panels, "standard deviations")
        _name(sketch, embodiment)
        sketch.legend(*panels, ncols=3)

    caption = (
        f"{embodiment}: the world model sees {context} observations (shaded) and then only the actions. "
        f"The {len(chosen)} of {truth.shape[1]} state dimensions that vary most in this chunk: symlog of the state, in "
        f"standard deviations of the training data from its mean. {_chosen(seed)}"
    )
    return draw(f"open-loop-example-{embodiment}", caption, (4.6, 0.7 + 1.6 * -(-len(chosen) // 2)), make)


def filmstrip(embodiment: str, truth: NDArray[np.uint8], predicted: NDArray[np.uint8], seed: int | None) -> Drawing:
    """One held-out chunk of frames: the truth, its open-loop prediction, and how far they are apart.

    Args:
        embodiment: whose chunk it is.
        truth: ``(context + horizon, height, width, 3)``.
        predicted: of the last steps, ``(horizon, height, width, 3)``.
        seed: of the pre-training, which chose the chunk; None if not known.
    """
    horizon, context = len(predicted), len(truth) - len(predicted)
    every = -(-horizon // STRIP)
    before = [step for step in (-every, 0) if step > -context]
    ahead = list(range(every, horizon + 1, every))
    picture, columns = _strip(truth, predicted, before, ahead)
    height, width = truth.shape[1:3]
    inches = 4.6

    def make(sketch: Sketch) -> None:
        axes = sketch.figure.add_subplot()
        axes.imshow(picture, interpolation="none")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks([left + width / 2 for left in columns], [str(step) for step in (*before, *ahead)], fontsize=9)
        rows = [row * (height + _GAP) + height / 2 for row in range(3)]
        axes.set_yticks(rows, ["truth", "predicted", "difference"], fontsize=9)
        axes.set_xlabel("agent steps ahead", fontsize=9)
        edge = columns[len(before)] - (_GAP + _EDGE) / 2
        axes.axvline(edge, color=INK, linewidth=0.8, linestyle=":")
        for text, left, right in (("context", 0, edge), ("from the actions alone", edge, picture.shape[1])):
            axes.text((left + right) / 2, -8, text, ha="center", va="bottom", fontsize=9)
        _name(sketch, embodiment)

    caption = (
        f"{embodiment}: the world model sees {context} frames (left of the dotted line: the last of them) and then "
        f"only the actions. Frames of {height} x {width} pixels, every {every} agent steps; difference: mean over the "
        f"colours, from black (none) to white ({FULL_DIFFERENCE} of 255, or more). {_chosen(seed)}"
    )
    return draw(
        f"open-loop-example-{embodiment}", caption, (inches, inches * picture.shape[0] / picture.shape[1] + 0.6), make
    )


def _label(panels: Sequence[Axes], y: str) -> None:
    """Labels at the left and at the bottom of two columns."""
    for axes in panels[::2]:
        axes.set_ylabel(y)
    for axes in panels[(len(panels) - 1) // 2 * 2 :]:
        axes.set_xlabel("agent steps ahead")


def _name(sketch: Sketch, embodiment: str) -> None:
    """The embodiment above its figure, at the left."""
    sketch.figure.suptitle(embodiment, x=0.01, ha="left", fontsize=10)


def _log_scale(axes: Axes) -> None:
    """A logarithmic y-axis with numbers as one says them: every decade, and where there are few, between them."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0), numticks=6))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _strip(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], before: list[int], ahead: list[int]
) -> tuple[NDArray[np.uint8], list[int]]:
    """Three rows of frames as one picture ``(height, width, 4)``, see-through between them; left edges of its columns.

    Nothing is predicted for the steps ``before``: below them there is no frame.
    """
    context = len(truth) - len(predicted)
    height, width = truth.shape[1:3]
    columns = [index * (width + _GAP) + (_EDGE if step > 0 else 0) for index, step in enumerate((*before, *ahead))]
    picture = np.zeros((3 * height + 2 * _GAP, columns[-1] + width, 4), np.uint8)

    def put(row: int, left: int, frame: NDArray[Any]) -> None:
        top = row * (height + _GAP)
        picture[top : top + height, left : left + width, :3] = frame
        picture[top : top + height, left : left + width, 3] = 255

    for step, left in zip((*before, *ahead), columns, strict=True):
        real = truth[context - 1 + step]
        put(0, left, real)
        if step > 0:
            guess = predicted[step - 1]
            apart = np.abs(real.astype(np.float64) - guess).mean(-1, keepdims=True)
            put(1, left, guess)
            put(2, left, np.minimum(255, apart * 255 / FULL_DIFFERENCE))
    return picture, columns


def _chosen(seed: int | None) -> str:
    """How an example came to be shown."""
    by = "a seed" if seed is None else f"pre-training seed {seed}"
    return f"A held-out chunk picked by {by}, not by how well it is predicted."
