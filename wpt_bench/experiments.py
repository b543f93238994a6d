"""Experiments: named variations of a profile, read from TOML. See ``suites/experiments/*.toml``.

An experiment asks one question. Each of its factors is something that is varied, each level of a factor a variation of
the profile; everything else stays as the profile has it, so that a run which several levels or the plain grid have in
common is made once.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from wpt_bench import profiles
from wpt_bench.profiles import Profile, refuse_sizes
from wpt_bench.protocol import UserError
from wpt_bench.records import Name


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One setting of a factor.

    Attributes:
        name: as people read it.
        value: its place on an axis, where levels are numbers.
        methods: by name; those of the factor without.
        profile: replaces parts of the profile, table by table. grid: the same for the suite's grid.
        times: numbers of the suite's grid to multiply, by name; they stay whole and at least one.
    """

    name: str
    value: float | None = None
    methods: tuple[str, ...] = ()
    profile: dict[str, Any] = {}
    grid: dict[str, Any] = {}
    times: dict[str, float] = {}


class Factor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is varied.

    Attributes:
        name, description: as people read them.
        levels: in order.
        reference: the level that the others are held against.
        methods: of the levels that name none.
        suites: where it can be varied; everywhere if empty.
    """

    name: str
    description: str
    levels: Annotated[tuple[Level, ...], msgspec.Meta(min_length=2)]
    reference: str
    methods: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One question and how it is put.

    Attributes:
        name: as typed on the command line.
        question: what it answers, in a sentence.
        factors: what is varied, one at a time.
        grids: by profile and suite, what replaces parts of the profile's grid for all levels: tasks, seeds, budget.
    """

    name: Name
    question: str
    factors: Annotated[tuple[Factor, ...], msgspec.Meta(min_length=1)]
    grids: dict[str, dict[str, dict[str, Any]]] = {}

    def varied(self, suite: str) -> tuple[Factor, ...]:
        """The factors that can be varied in a suite; UserError if there is none."""
        found = tuple(factor for factor in self.factors if not factor.suites or suite in factor.suites)
        if not found:
            raise UserError(f"The experiment {self.name!r} has nothing to vary in the suite {suite!r}.")
        return found

    def profile(self, base: Profile, suite: str) -> Profile:
        """The profile with the experiment's own grid."""
        return vary(base, suite, Level(name=self.name, grid=self.grids.get(base.name, {}).get(suite, {})))


def vary(profile: Profile, suite: str, level: Level) -> Profile:
    """The profile at one level of a factor, for one suite; UserError if the level does not fit."""
    own = msgspec.to_builtins(profile.grid(suite))
    try:
        times = {name: max(1, round(own[name] * share)) for name, share in level.times.items()}
        varied = _merge(msgspec.to_builtins(profile), {**level.profile, "grids": {suite: level.grid | times}})
        refuse_sizes(varied)
        return msgspec.convert(varied, Profile)
    except (ValueError, TypeError, KeyError, OverflowError, msgspec.ValidationError) as error:
        raise UserError(f"{level.name!r}, a variation of profile {profile.name!r}, does not fit: {error}.") from error


def _merge(base: Any, changes: Any) -> Any:
    """Tables are merged by name; anything else is replaced."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {name: _merge(base.get(name), change) for name, change in changes.items()}


def names() -> list[str]:
    """Names of the experiments that come with the suites."""
    return profiles.names("experiment")


def load(name: str) -> Experiment:
    """The experiment of this name, or of this ``.toml`` file; UserError if there is none or it does not fit."""

    def convert(plain: dict[str, Any]) -> Experiment:
        experiment = msgspec.convert(plain, Experiment)
        for factor in experiment.factors:
            _check(factor)
        return experiment

    return profiles.read("experiment", name, convert)


def _check(factor: Factor) -> None:
    """Raises ValueError for a factor that nothing could be made of."""
    levels = [level.name for level in factor.levels]
    if len(set(levels)) < len(levels):
        raise ValueError(f"two levels of the factor {factor.name!r} have the same name")
    if factor.reference not in levels:
        raise ValueError(f"the reference {factor.reference!r} is none of the levels of the factor {factor.name!r}")
    for level in factor.levels:
        for table, names in ((level.profile, ("name", "grids")), (level.grid, ("data", "tasks", "seeds", "methods"))):
            if fixed := [name for name in names if name in table]:
                raise ValueError(
                    f"the level {level.name!r} changes {', '.join(fixed)}, which all levels have in common"
                )
        if not level.methods and not factor.methods:
            raise ValueError(f"neither the level {level.name!r} nor its factor {factor.name!r} names methods")
