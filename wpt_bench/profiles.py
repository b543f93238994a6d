"""Typed profiles: what a grid consists of and how large everything in it is, read from TOML.

A profile's tasks and seeds are fixed before results are seen. Every number of a run that is not the method's own
default stands here.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from wpt_bench.bounds import Count, Positive, Share, Size, Weight
from wpt_bench.protocol import UserError
from wpt_bench.records import Name
from wpt_bench.registry import nearest
from wpt_bench.world_model.config import WorldModelSize

LARGEST = 2**14
"""No size of a model, a batch or a grid needs more, and what asks for more asks for more memory than there is."""
MOST_COUNTS = 2**32
"""The same for what only takes time (updates, environment steps), and for seeds."""
MOST_BYTES = 2**20
"""Of a profile's file."""
_SOME = msgspec.Meta(min_length=1)
_COUNTS = ("updates", "budget", "minutes", "seed", "seeds")


T = TypeVar("T")

Inputs = Literal["scaled", "raw"]
Kind = Literal["profile", "experiment"]


class Pretraining(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Reward-free pre-training of the shared world model (paper defaults: Table 6).

    Attributes:
        updates, batch, length: gradient updates, sequences per batch, agent steps per sequence.
        learning_rate, weight_decay, adam_eps, grad_clip: Adam; the decay is multiplicative per update, not scaled by
            the step size (authors' code).
        held_out: share of each embodiment's episodes (scene's, on Meta-World) kept for validation.
        seeds: one model per seed is trained; a task run takes the one at (its seed modulo their number).
    """

    updates: Size = 200_000
    batch: Size = 16
    length: Annotated[int, msgspec.Meta(ge=2)] = 64
    learning_rate: Positive = 1e-4
    weight_decay: Share = 1e-6
    adam_eps: Positive = 1e-5
    grad_clip: Positive = 100.0
    held_out: Share = 0.1
    seeds: Annotated[tuple[int, ...], _SOME] = (0,)


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much offline data is collected.

    DMControl counts episodes stored per embodiment and collector, and episodes run by each collector that learns;
    Meta-World counts episodes per scene. ``scenes`` empty means those of all of the suite's paper tasks. ``pixels``
    records pictures beside the states.
    """

    scenes: tuple[str, ...] = ()
    pink_noise: Count = 0
    curiosity: Count = 0
    random_reward: Count = 0
    training_episodes: Count = 0
    updates_per_step: Weight = 0.5
    episodes: Count = 0
    pixels: bool = False
    seed: Count = 0


class Subset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Which of the collected episodes a grid has, as if the others had never been collected.

    Attributes:
        share: of the episodes of every scene and collector, evenly spread over the order they were recorded in.
        collectors: by name; empty for all.
        quality: lowest and highest recorded quality of an episode. Meta-World: standard deviation of the action noise;
            DMControl: how far the collector's training was, 0 to 1 (episodes without a quality are left out).
        foreign: share, again evenly spread, of the episodes of other scenes than the task's (on DMControl of other
            embodiments). Below one, every scene has a world model of its own.
        irrelevant: share of irrelevant episodes among the retrieved: a run then has k episodes in all, so many of
            them of other scenes with our dimensions. What the world model is pre-trained on is not touched.
    """

    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    collectors: tuple[str, ...] = ()
    quality: tuple[float, float] | None = None
    foreign: Share = 1.0
    irrelevant: Share | None = None


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One suite's part of a profile.

    Attributes:
        tasks: short names. seeds: run seeds. methods: by name.
        budget: environment steps of a run.
        evaluation_every: share of the budget between evaluations; evaluation also happens at step 0.
        evaluation_episodes: episodes per evaluation.
        retrieved: k, episodes retrieved for rehearsal and for the cloned prior.
        guidance: the share of the budget over which the guidance probability falls from 1 to 0.
        subset: of the data.
        sequence: whether one agent goes through the tasks in their order, with its weights and all it has seen, instead
            of a fresh one for each.
        tuning: short names of the tasks that settings are tuned on; none of a table of results.
    """

    tasks: Annotated[tuple[str, ...], _SOME]
    seeds: Annotated[tuple[int, ...], _SOME]
    methods: Annotated[tuple[str, ...], _SOME]
    budget: Size
    data: Data
    evaluation_every: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    evaluation_episodes: Annotated[int, msgspec.Meta(ge=1, le=200)] = 10
    retrieved: Size = 500
    guidance: Weight = 1 / 3
    subset: Subset = Subset()
    sequence: bool = False
    tuning: tuple[str, ...] = ()


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A named scale at which the whole suite runs. See ``suites/profiles/*.toml``.

    Attributes:
        precision: what matrix products and convolutions take: scores of two precisions are never mixed.
        inputs: states as methods see them: scaled by the suite's constants, or raw.
        settings: overrides of methods' settings, by their ``settings_group`` (applied first) or ``settings_name``.
        minutes, memory_gib, disk_gib: what its own grids take on its machine, data and pre-training included.
    """

    name: Name
    description: str
    observation: Literal["state", "pixels"]
    world_model: WorldModelSize
    pretraining: Pretraining
    grids: dict[str, Grid]
    precision: Literal["fp32", "bf16"] = "fp32"
    inputs: Inputs = "scaled"
    settings: dict[str, dict[str, Any]] = {}
    minutes: Weight
    memory_gib: Weight
    disk_gib: Weight

    def grid(self, suite: str) -> Grid:
        """The suite's part; UserError if the profile has none."""
        if suite not in self.grids:
            raise nearest(f"grid in profile {self.name!r} for the suite", suite, self.grids)
        return self.grids[suite]


def names(kind: Kind = "profile") -> list[str]:
    """Names of the profiles, or experiments, that come with the suites."""
    folder = files("wpt_bench.suites").joinpath(f"{kind}s")
    return sorted(path.name.removesuffix(".toml") for path in folder.iterdir())


def load(name: str) -> Profile:
    """The profile of this name, or of this ``.toml`` file; UserError if there is none or it does not fit the schema."""

    def convert(plain: dict[str, Any]) -> Profile:
        refuse_sizes(plain)
        grids = plain.get("grids")
        for suite, grid in grids.items() if isinstance(grids, dict) else ():
            try:
                msgspec.convert(grid, Grid)
            except msgspec.ValidationError as error:  # which names no key of a table of tables
                raise ValueError(f"{error} of [grids.{suite}]") from error
        return msgspec.convert(plain, Profile)

    return read("profile", name, convert)


def read(kind: Kind, name: str, convert: Callable[[dict[str, Any]], T]) -> T:
    """What ``convert`` makes of the TOML of this name, or of this ``.toml`` file.

    Raises:
        UserError: there is none, it is no TOML, or ``convert`` raises ValueError or ValidationError.
    """
    own = name.endswith(".toml")
    if not own and name not in names(kind):
        raise nearest(kind, name, names(kind))
    path = Path(name) if own else files("wpt_bench.suites").joinpath(f"{kind}s", f"{name}.toml")
    if own and not Path(name).is_file():
        raise UserError(f"There is no {kind} file {name}.")
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES} bytes")
        return convert(tomllib.loads(raw.decode()))
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:  # a TOMLDecodeError is a ValueError
        raise UserError(f"The {kind} {name!r} cannot be used: {error}.") from error


def refuse_sizes(plain: Any, name: str = "") -> None:
    """Raises ValueError naming a number of a profile, or of a method's settings, that nothing could be made of.

    What a number may be besides, the structs say that it becomes a part of.
    """
    if isinstance(plain, dict):
        for key, value in plain.items():
            refuse_sizes(value, f"{name}.{key}" if name else str(key))
    elif isinstance(plain, list | tuple):
        for value in plain:
            refuse_sizes(value, name)
    elif isinstance(plain, float):
        if not math.isfinite(plain):
            raise ValueError(f"{name} is {plain}, which nothing can be made of")
    elif isinstance(plain, int):
        most = MOST_COUNTS if name.endswith(_COUNTS) else LARGEST
        if plain < 0:
            raise ValueError(f"{name} is {str(plain)[:40]}, which is below 0")
        if plain > most:
            raise ValueError(f"{name} is {str(plain)[:40]}, and no more than {most} can be made")
