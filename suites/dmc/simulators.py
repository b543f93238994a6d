"""Builds the simulator of a task: dm_control's physics, its task, and how many physics steps make a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dm_control import suite
from dm_control.rl import control
from dm_control.suite import acrobot
from dm_control.suite import cheetah as public_cheetah
from dm_control.suite import walker as public_walker

from wpt_bench.suites.dmc import cheetah, quadruped, variants, walker


class Simulator(NamedTuple):
    """A dm_control physics and task. One frame, the benchmark's environment step, is ``substeps`` physics steps."""

    physics: Any
    task: Any
    substeps: int


def build(name: str) -> Simulator:
    """The simulator of one task of the suite, by its short name."""
    if name in _OURS:
        physics, task, timestep = _OURS[name]
        return _simulator(physics(), task(), timestep)
    domain, task_name = _public_name(name)
    environment = suite.load(domain, task_name)
    return _simulator(environment.physics, environment.task, environment.control_timestep())


def _simulator(physics: Any, task: Any, timestep: float | None) -> Simulator:
    step = physics.timestep()
    return Simulator(physics, task, control.compute_n_steps(timestep or step, step))


def _public_name(name: str) -> tuple[str, str]:
    """Short name to dm_control's domain and task: ``cup-catch`` is ``ball_in_cup``, ``catch``."""
    for short, domain in (("cup", "ball_in_cup"), ("point-mass", "point_mass")):
        if name.startswith(short + "-"):
            return domain, name.removeprefix(short + "-").replace("-", "_")
    domain, _, task = name.partition("-")
    return domain, task.replace("-", "_")


def _acrobot() -> Any:
    return acrobot.Physics.from_xml_string(*acrobot.get_model_and_assets())


# Name -> how to make physics and task, and seconds per frame (None: one physics step). dm_control's own tasks of walker
# and cheetah are here as well, because every task of a body stands on the same drawn floor, and of the quadruped also
# for its reset.
_OURS: dict[str, tuple[Callable[[], Any], Callable[[], Any], float | None]] = {
    "acrobot-swingup-hard": (_acrobot, lambda: variants.HardSwingup(sparse=False), None),
}
_OURS |= {
    f"walker-{task}": (walker.physics, make, walker.CONTROL_TIMESTEP)
    for task, make in {
        "stand": lambda: public_walker.PlanarWalker(move_speed=0),
        "walk": lambda: public_walker.PlanarWalker(move_speed=1),
        "run": lambda: public_walker.PlanarWalker(move_speed=8),
        "walk-hard": lambda: walker.HardWalk(move_speed=1),
        "walk-backwards": lambda: walker.Backwards(move_speed=1),
        "run-backwards": lambda: walker.Backwards(move_speed=8),
        "backflip": walker.Backflip,
    }.items()
}
_OURS |= {
    f"cheetah-{task}": (cheetah.physics, make, None)
    for task, make in {
        "run": public_cheetah.Cheetah,
        "run-hard": cheetah.HardRun,
        "run-backwards": cheetah.RunBackwards,
        "run-front": lambda: cheetah.RunOneFoot(raised="bfoot"),
        "run-back": lambda: cheetah.RunOneFoot(raised="ffoot"),
        "jump": cheetah.Jump,
    }.items()
}
_OURS |= {
    f"quadruped-{task}": (quadruped.physics, make, quadruped.CONTROL_TIMESTEP)
    for task, make in {
        "walk": lambda: quadruped.Move(desired_speed=quadruped.WALK_SPEED),
        "run": lambda: quadruped.Move(desired_speed=quadruped.RUN_SPEED),
        "stand": quadruped.Stand,
        "jump": quadruped.Jump,
        "roll": lambda: quadruped.Roll(desired_speed=quadruped.WALK_SPEED),
        "roll-fast": lambda: quadruped.Roll(desired_speed=quadruped.RUN_SPEED),
    }.items()
}
