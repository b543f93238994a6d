"""The eight combinations of WPT's switches as methods, and the random-replay control."""

from __future__ import annotations

from functools import partial

from wpt_bench.protocol import STEP_SIZES, Agent, AgentContext, DataAccess, Method, Range
from wpt_bench.wpt.settings import Settings

DREAMER = "Mastering Diverse Domains through World Models, arXiv 2301.04104"
PAPER = "Generalist World Model Pre-Training for Efficient Reinforcement Learning, arXiv 2502.19544"
VERSION = 4
PILOT_EVALUATIONS = 110
"""About ten pilot runs of seed 0 with eleven evaluations each chose the step sizes of ``quick``."""
SEARCH = {
    "model_lr": STEP_SIZES,
    "actor_critic_lr": STEP_SIZES,
    "entropy": Range(1e-5, 1e-2, log=True),
    "rehearsal": Range(0.05, 0.5),
}
"""One for all switches. Not k, the retrieved episodes: the comparators' methods work with as many."""


def _build(context: AgentContext, *, pretrain: bool, rehearsal: bool, guidance: bool, random_replay: bool) -> Agent:
    from wpt_bench.wpt.agent import Switches, WPTAgent  # listing methods must not load torch

    return WPTAgent(context, Switches(pretrain, rehearsal, guidance, random_replay))


def _updates_per_step(settings: Settings) -> float:
    return settings.updates_per_step


def _method(name: str, pretrain: bool, rehearsal: bool, guidance: bool, *, random_replay: bool = False) -> Method:
    scratch = not (pretrain or rehearsal or guidance)
    return Method(
        name=name,
        version=VERSION,
        family="From scratch" if scratch else "WPT",
        data_access=DataAccess.NONE if scratch else DataAccess.REWARD_FREE,
        observations=("state", "pixels"),
        paper=DREAMER if scratch else PAPER,
        build=partial(_build, pretrain=pretrain, rehearsal=rehearsal, guidance=guidance, random_replay=random_replay),
        settings=Settings,
        settings_name="wpt",
        updates_per_step=_updates_per_step,
        sequence="length",
        pretrained=not scratch,
        sequential=True,
        tuning="the authors' code at paper size; step sizes of small profiles on pilot runs, the same for all switches",
        tuning_evaluations=PILOT_EVALUATIONS,
        search=SEARCH,
    )


METHODS = (
    _method("dreamer", False, False, False),
    _method("wpt-pretrain-only", True, False, False),
    _method("wpt-rehearsal-only", False, True, False),
    _method("wpt-guidance-only", False, False, True),
    _method("wpt-no-guidance", True, True, False),
    _method("wpt-no-rehearsal", True, False, True),
    _method("wpt-no-pretrain", False, True, True),
    _method("wpt", True, True, True),
    _method("wpt-random-replay", True, True, True, random_replay=True),
)
