"""The report's section on the world model: what it predicts open loop, in a table, a sentence and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wpt_bench.reports.figures.drawing import Drawing
from wpt_bench.reports.figures.world_model import MEAN, MODEL, PERSISTENCE, error_by_horizon, filmstrip, trajectories
from wpt_bench.reports.table import NOTHING

BY_STEP = {MODEL: "by_step", PERSISTENCE: "persistence_by_step", MEAN: "mean_by_step"}
SPACES = {
    "state": "symlog of the state, each dimension in variances of the training data",
    "pixels": "pixels / 255, in the mean variance of a pixel in the training data",
}


@dataclass(frozen=True)
class OpenLoopRow:
    """Errors of one embodiment under one pre-training (its seed, None where not said), means over the steps ahead.

    ``ahead``: the agent step from which on the model beats both trivial predictors at every step, ``never``, or a dash
    where errors by step are not known.
    """

    embodiment: str
    seed: int | None
    model: float
    persistence: float
    mean: float
    ahead: str

    @property
    def better(self) -> bool:
        """Whether the model beats both trivial predictors on average."""
        return self.model < min(self.persistence, self.mean)


@dataclass(frozen=True)
class OpenLoop:
    """Open-loop prediction errors, the sentence above them, figures, and what there is no figure of."""

    rows: tuple[OpenLoopRow, ...]
    sentence: str
    by_horizon: Drawing | None
    examples: tuple[Drawing, ...]
    gaps: tuple[str, ...]

    @property
    def seeds(self) -> set[int | None]:
        """Seeds of the pre-trainings."""
        return {row.seed for row in self.rows}

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """All figures."""
        return (*([self.by_horizon] if self.by_horizon else []), *self.examples)


def open_loop(extras: Mapping[str, Any]) -> tuple[OpenLoop | None, list[str]]:
    """The section, None without usable errors; what is unusable or damaged becomes a problem on the page.

    Args:
        extras: ``open_loop``: rows with ``embodiment``, ``model``, ``persistence``, ``mean`` (errors), and if known
            ``seed`` (of the pre-training), ``observation``, ``context`` and ``horizon`` (agent steps), ``by_step``,
            ``persistence_by_step`` and ``mean_by_step``. ``open_loop_examples``: for each pre-training ``stage``,
            ``seed``, ``damage`` (a sentence, or empty) and ``embodiments``: by name arrays ``truth``, ``predicted``
            and, of states, ``dimension``.
    """
    try:
        rows = extras.get("open_loop") or ()
        errors, sentence, by_horizon = _rows(rows), _sentence(rows), _by_horizon(rows)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return None, [f"The open-loop prediction errors cannot be shown: {type(error).__name__} {error}."]
    if not errors:
        return None, []
    try:
        examples, gaps, problems = _examples(extras.get("open_loop_examples") or ())
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        problem = f"The open-loop examples cannot be shown: {type(error).__name__} {error}."
        examples, gaps, problems = (), (), [problem]
    return OpenLoop(errors, sentence, by_horizon, examples, gaps), problems


def _rows(rows: Sequence[Mapping[str, Any]]) -> tuple[OpenLoopRow, ...]:
    return tuple(
        OpenLoopRow(
            embodiment=str(row["embodiment"]),
            seed=row.get("seed"),
            model=float(row["model"]),
            persistence=float(row["persistence"]),
            mean=float(row["mean"]),
            ahead=_ahead(row),
        )
        for row in rows
    )


def _ahead(row: Mapping[str, Any]) -> str:
    if not all(row.get(key) for key in BY_STEP.values()):
        return NOTHING
    model, *trivial = (np.array(row[key], np.float64) for key in BY_STEP.values())
    behind = np.flatnonzero(model >= np.min(trivial, axis=0))
    first = int(behind[-1]) + 2 if len(behind) else 1  # steps count from 1
    return str(first) if first <= len(model) else "never"


def _sentence(rows: Sequence[Mapping[str, Any]]) -> str:
    errors = _rows(rows)
    embodiments = {row.embodiment for row in errors}
    better = len(embodiments - {row.embodiment for row in errors if not row.better})
    settings = sorted({(row.get("horizon"), row.get("context")) for row in rows}, key=str)
    lengths = " or ".join(
        f"{horizon} agent steps after {context} of context" for horizon, context in settings if horizon and context
    )
    over, whose = (f" over {lengths}" if lengths else "", "embodiments" if len(embodiments) > 1 else "embodiment")
    return (
        f"On average{over}, the world model predicts better than both trivial predictors for {better} of "
        f"{len(embodiments)} {whose}.{_steps(errors)}"
    )


def _steps(errors: Sequence[OpenLoopRow]) -> str:
    """From which step on the model is ahead: a sentence on all rows that say, with the space before it."""
    known = [row.ahead for row in errors if row.ahead != NOTHING]
    firsts = sorted(int(first) for first in known if first != "never")
    if not known or known == ["1"] * len(known):
        return " Step by step it is ahead from the first on." if known else ""
    never = f"in {len(known) - len(firsts)} of {len(known)} cases never" if len(firsts) < len(known) else ""
    span = f"{firsts[0]}" + (f" to {firsts[-1]}" if firsts[-1] > firsts[0] else "") if firsts else ""
    when = " and ".join(part for part in (f"from step {span} on" if span else "", never) if part)
    return f" Step by step it is ahead of both {when}: before, a trivial predictor is as good or better."


def _by_horizon(rows: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """The figure of the rows that have every predictor's errors by step, None if none has."""
    whole = [row for row in rows if all(row.get(key) for key in BY_STEP.values())]
    if not whole:
        return None
    embodiments = dict.fromkeys(str(row["embodiment"]) for row in whole)
    errors = {
        embodiment: {
            predictor: np.array([row[key] for row in whole if str(row["embodiment"]) == embodiment], np.float64)
            for predictor, key in BY_STEP.items()
        }
        for embodiment in embodiments
    }
    kinds = sorted({SPACES[row["observation"]] for row in whole if row.get("observation")})
    return error_by_horizon(errors, " or ".join(kinds) or "what the model predicts")


def _examples(stages: Sequence[Mapping[str, Any]]) -> tuple[tuple[Drawing, ...], tuple[str, ...], list[str]]:
    """Figures of the first pre-training that kept examples; sentences on those that kept none, and on damaged files."""
    kept = [stage for stage in stages if stage["embodiments"]][:1]
    drawings = tuple(
        _example(embodiment, example, stage["seed"])
        for stage in kept
        for embodiment, example in stage["embodiments"].items()
    )
    gaps = tuple(
        f"Pre-training {stage['stage']} (seed {stage['seed']}) was made by a version that kept no example of what it "
        "predicts, nor the trivial predictors' errors by step; delete its folder and pre-train again to see them."
        for stage in stages
        if not stage["embodiments"] and not stage["damage"]
    )
    return drawings, gaps, [stage["damage"] for stage in stages if stage["damage"]]


def _example(embodiment: str, example: Mapping[str, NDArray[Any]], seed: int | None) -> Drawing:
    truth, predicted, dimension = example["truth"], example["predicted"], example.get("dimension")
    if truth.shape[1:] != predicted.shape[1:] or not 0 < len(predicted) < len(truth):
        raise ValueError(f"of {embodiment}, truth {truth.shape} and prediction {predicted.shape} do not fit together")
    if dimension is None:
        return filmstrip(embodiment, truth, predicted, seed)
    return trajectories(embodiment, truth, predicted, dimension, seed)
