"""Which of WPT's parts does it: main effects and interactions of its three switches, with intervals.

All eight combinations of pre-training, rehearsal and guidance are methods, so that each effect is a contrast of their
aggregates (a two-level factorial; Box, Hunter and Hunter, *Statistics for Experimenters*, chapter 5): the mean of the
arms on one side minus the mean of those on the other. Where arms are missing, single switches of the arms that are
there remain.

So many effects are so many chances to be lucky, for which their intervals make no allowance: ``allowed_for`` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wpt_bench.analysis.aggregate import TABLE_RESAMPLES, Estimate, contrast, sampled
from wpt_bench.analysis.bootstrap import Scores, p_value

Arm = tuple[bool, bool, bool]
PARTS = ("pre-training", "rehearsal", "guidance")
ARMS: dict[str, Arm] = {
    "dreamer": (False, False, False),
    "wpt-pretrain-only": (True, False, False),
    "wpt-rehearsal-only": (False, True, False),
    "wpt-guidance-only": (False, False, True),
    "wpt-no-guidance": (True, True, False),
    "wpt-no-rehearsal": (True, False, True),
    "wpt-no-pretrain": (False, True, True),
    "wpt": (True, True, True),
}
"""Which of ``PARTS`` each method has switched on."""
RANDOM_REPLAY = "wpt-random-replay"
"""The control: ``wpt`` with random episodes in place of the retrieved ones."""


TOGETHER = ("rehearsal and guidance", "wpt", "wpt-pretrain-only")
"""What fine-tuning with both of the parts that need the data online adds to the pre-trained weights alone."""


@dataclass(frozen=True)
class Effect:
    """What something changes in the aggregate.

    Attributes:
        name: a part, ``a x b`` for an interaction, or ``a: b against c`` for two arms.
        estimate: of the difference.
        arms: methods it rests on.
        p: chance of a difference as large, to either side, where there is none, by the corrected interval; None where
            that has no width.
        holm: the same, corrected for all effects of its kind by ``allowed_for``; None before, and where ``p`` is.
    """

    name: str
    estimate: Estimate
    arms: tuple[str, ...]
    p: float | None
    holm: float | None = None


@dataclass(frozen=True)
class Factorial:
    """Effects of the parts; ``missing`` are arms without an aggregate, for want of which there is no factorial.

    Attributes:
        effects: main effects and interactions; empty while an arm is missing.
        single: one part switched on, everything else equal, for every pair of arms that is there; and what rehearsal
            and guidance do together to the pre-trained agent, for parts that do nothing alone may do something.
        control: ``wpt`` against ``wpt-random-replay``; None unless both are there.
    """

    effects: tuple[Effect, ...]
    single: tuple[Effect, ...]
    control: Effect | None
    missing: tuple[str, ...]


def factorial(
    scores: Mapping[str, Scores],
    seeds: Mapping[str, tuple[int, ...]],
    name: str = "iqm",
    *,
    resamples: int = TABLE_RESAMPLES,
    seed: int = 0,
) -> Factorial:
    """Effects on one aggregate.

    Args:
        scores: float64 ``(seeds, tasks)`` by method, of complete methods; others than the arms are ignored.
        seeds: which seed each row is, by method. Arms of the same seeds are paired by them.
        name: key of ``METRICS``.
    """
    arms = {method: scores[method] for method in (*ARMS, RANDOM_REPLAY) if method in scores}
    streams = {its: stream for stream, its in enumerate(dict.fromkeys(seeds[method] for method in arms))}
    values = {
        method: sampled(matrix, name, resamples=resamples, seed=seed, stream=streams[seeds[method]])
        for method, matrix in arms.items()
    }

    def effect(label: str, weights: Mapping[str, float]) -> Effect:
        found = contrast([(weight, values[method]) for method, weight in weights.items()])
        p = None
        if found.corrected_high is not None and not found.flat:
            fewest = min(values[method].seeds for method in weights)
            p = p_value(found.value, found.corrected_high - found.value, fewest)
        return Effect(label, found, tuple(weights), p)

    missing = tuple(method for method in ARMS if method not in values)
    contrasts = [] if missing else [parts for size in (1, 2, 3) for parts in itertools.combinations(range(3), size)]
    return Factorial(
        effects=tuple(effect(" x ".join(PARTS[part] for part in parts), _contrast(parts)) for parts in contrasts),
        single=tuple(
            effect(f"{parts}: {on} against {off}", {on: 1.0, off: -1.0})
            for parts, on, off in (*_pairs(), TOGETHER)
            if on in values and off in values
        ),
        control=effect(f"retrieval: wpt against {RANDOM_REPLAY}", {"wpt": 1.0, RANDOM_REPLAY: -1.0})
        if "wpt" in values and RANDOM_REPLAY in values
        else None,
        missing=missing,
    )


def allowed_for(*measures: Factorial) -> tuple[Factorial, ...]:
    """The same effects on several aggregates of the same runs, each with its p-value corrected for all of its kind.

    A kind is what is read together: main effects and interactions, single switches, the control; on every aggregate.
    """
    effects = _corrected([one.effects for one in measures])
    single = _corrected([one.single for one in measures])
    control = _corrected([(one.control,) if one.control else () for one in measures])
    return tuple(
        replace(one, effects=effects[place], single=single[place], control=next(iter(control[place]), None))
        for place, one in enumerate(measures)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (Holm 1979): in rising order the k-th of m is multiplied by m - k + 1, and none falls.

    The chance that any of them is called separated where there is nothing stays below the level, however they hang
    together.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(np.minimum(np.asarray(p_values, np.float64)[order] * factors, 1.0))
    return corrected.tolist()


def _corrected(measures: Sequence[tuple[Effect, ...]]) -> list[tuple[Effect, ...]]:
    known = iter(holm([effect.p for effects in measures for effect in effects if effect.p is not None]))
    return [
        tuple(effect if effect.p is None else replace(effect, holm=next(known)) for effect in effects)
        for effects in measures
    ]


def _contrast(parts: tuple[int, ...]) -> dict[str, float]:
    """Weights of the arms: +1/4 where an even number of the parts is off, else -1/4."""
    return {
        method: float(np.prod([1 if switches[part] else -1 for part in parts])) / 4 for method, switches in ARMS.items()
    }


def _pairs() -> list[tuple[str, str, str]]:
    """Every part, arm with it and arm that differs in nothing else."""
    by_switches = {switches: method for method, switches in ARMS.items()}
    return [
        (PARTS[part], method, by_switches[_without(switches, part)])
        for part in range(3)
        for method, switches in ARMS.items()
        if switches[part]
    ]


def _without(switches: Arm, part: int) -> Arm:
    first, second, third = (on and place != part for place, on in enumerate(switches))
    return first, second, third
