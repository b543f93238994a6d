"""A grid small enough for tests, on the real cartpole."""

from pathlib import Path

import msgspec

from wpt_bench import profiles
from wpt_bench.profiles import Profile
from wpt_bench.records import Identity, read_episodes
from wpt_bench.running.plan import Layout, PretrainingIdentity, Selection, identities, select, stages

TASK = "cartpole-balance"


def profile(**grid: object) -> Profile:
    """The smoke profile on cartpole data alone; ``grid`` overrides its DMControl grid."""
    smoke = profiles.load("smoke")
    own = msgspec.structs.replace(
        smoke.grids["dmc"],
        tasks=(TASK,),
        data=msgspec.structs.replace(
            smoke.grids["dmc"].data, scenes=("cartpole",), curiosity=0, random_reward=0, pink_noise=4
        ),
        **grid,
    )
    return msgspec.structs.replace(smoke, name="small", grids={"dmc": own})


def selection(methods: tuple[str, ...] = ("wpt",), seeds: tuple[int, ...] = (0,), **grid: object) -> Selection:
    """The grid of some methods."""
    return select("dmc", profile(**grid), (), methods, seeds)


def identity(method: str, data: str | None, seed: int = 0, **grid: object) -> Identity:
    """One run."""
    return identities(selection((method,), (seed,), **grid), data)[0]


def stage(data: str, **pretraining: object) -> PretrainingIdentity:
    """The pre-training of the small grid; ``pretraining`` overrides its settings."""
    (made,) = stages(selection(), data)
    return msgspec.structs.replace(made, pretraining=made.pretraining | pretraining)


def outcome(layout: Layout, run_id: str) -> tuple[list[object], bytes]:
    """What must not depend on interruptions: all rows but their clock, and the final weights."""
    rows = [msgspec.structs.replace(row, wall_clock=0.0) for row in read_episodes(layout.runs / run_id)]
    return list(rows), (layout.runs / run_id / "weights.safetensors").read_bytes()


def silent(fraction: float, what: str = "") -> None:
    """No progress."""


def path(layout: Layout) -> Path:
    """The small grid's data."""
    return layout.data("dmc", "small")
