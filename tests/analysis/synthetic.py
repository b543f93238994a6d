"""Made-up runs in the real format, written by the real writer, with every number chosen by the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wpt_bench.records import Episode, Identity, Run, append_episodes, digest, write_run

BUDGET = 10_000
GRANTS = {
    "dreamer": ("From scratch", "none"),
    "wpt-pretrain-only": ("WPT", "reward-free"),
    "wpt-no-guidance": ("WPT", "reward-free"),
    "wpt": ("WPT", "reward-free"),
    "td3-bc": ("Offline RL", "labelled"),
    "iql": ("Offline RL", "labelled"),
    "awac": ("Off2On RL", "labelled"),
    "mt-bc": ("MT IL", "demonstrations"),
    "sac": ("From scratch", "none"),
}


def identity(method: str, task: str, seed: int, **changes: Any) -> Identity:
    """The identity of one run of the quick profile; ``changes`` replaces fields."""
    grant = GRANTS.get(method, ("", "none"))[1]
    fields: dict[str, Any] = {
        "method": method,
        "method_version": 1,
        "suite": "dmc",
        "suite_version": 1,
        "task": task,
        "seed": seed,
        "profile": "quick",
        "observation": "state",
        "budget": BUDGET,
        "protocol": {"action_repeat": 2, "camera": task, "evaluation_episodes": 2},
        "settings": {"learning_rate": 3e-4},
        "data": None if grant == "none" else "d" * 16,
        "stage": "5" * 16 if method.startswith("wpt") else None,
    }
    return Identity(**{**fields, **changes})


def write(
    root: Path,
    method: str,
    task: str,
    seed: int,
    curve: dict[int, Sequence[float]],
    *,
    status: str = "done",
    error: str | None = None,
    score: str = "return",
    scale: float = 1000.0,
    online: bool = True,
    tuning_evaluations: int = 0,
    provenance: dict[str, Any] | None = None,
    guided: Sequence[float] = (0.0,),
    diagnostics: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    prior: Sequence[float] = (),
    forgotten: dict[str, Sequence[float]] | None = None,
    seconds: float | None = None,
    **changes: Any,
) -> Path:
    """One run whose evaluation episodes have the scores of ``curve`` (by environment step); returns its folder.

    ``guided``: share of the agent steps that a cloned prior chose, for each training episode. ``metrics``: of every
    evaluation episode. ``prior``: scores of episodes in which the prior acted alone. ``forgotten``: scores of the
    evaluation episodes on earlier tasks of a sequence when the run had ended.
    """
    its = identity(method, task, seed, **changes)
    family, grant = GRANTS.get(method, ("", "none"))
    run = Run(
        id=digest(its),
        identity=its,
        family=family,
        data_access=grant,
        tuning="the paper's; none here",
        embodiment=task.split("-")[0],
        score=score,
        score_scale=scale,
        episode_length=1000,
        online=online,
        tuning_evaluations=tuning_evaluations,
        status=status,
        error=error,
        provenance=provenance
        or {
            "git_revision": "0123abcd",
            "command": "wpt-bench run dmc --profile quick",
            "machine": {"processor": "x86_64", "cores": 2},
            "versions": {"torch": "2.13.0"},
        },
        updates=500,
        env_steps=BUDGET if online else 0,
        wall_clock=200.0 + 10 * seed if seconds is None else seconds,
        peak_memory=10**9,
        diagnostics=diagnostics or {},
    )
    folder = root / run.id
    write_run(folder, run)
    evaluated = [("evaluation", "", step, values) for step, values in curve.items()]
    evaluated += [("earlier", name, max(curve), values) for name, values in (forgotten or {}).items()]
    rows = [
        Episode(
            kind=kind,
            env_step=step,
            index=index,
            episode_return=value * scale if score == "return" else 7.0,
            success_any=1.0,
            success_last=value if score == "success" else 0.0,
            length=1000,
            guided_steps=0,
            updates=step // 20,
            wall_clock=step / 50,
            metrics=metrics or {},
            task=name,
        )
        for kind, name, step, values in evaluated
        for index, value in enumerate(values)
    ]
    acted = [
        Episode("prior", 0, index, value * scale, 0.0, 0.0, 1000, 500, 0, 0.0) for index, value in enumerate(prior)
    ]
    train = [
        Episode("train", 1000 * (number + 1), number, 12.0, 0.0, 0.0, 1000, int(500 * share), 0, 10.0, {"loss": 1.0})
        for number, share in enumerate(guided)
    ]
    append_episodes(folder, [rows[0], *acted, *train, *rows[1:]] if rows else [])
    return folder


def flat(score: float, final: float | None = None) -> dict[int, list[float]]:
    """Two evaluations of two episodes: at 0 with ``score`` and at the budget with ``final`` (or the same)."""
    end = score if final is None else final
    return {0: [score, score], BUDGET: [end, end]}


def grid(
    root: Path,
    levels: dict[str, float],
    tasks: Sequence[str] = ("walker-stand", "cheetah-run"),
    seeds: Sequence[int] = (0, 1),
    points: int = 11,
    spread: float = 0.05,
    **changes: Any,
) -> None:
    """Rising curves towards each method's level, jittered by a generator of method, task and seed."""
    for method, level in levels.items():
        for number, task in enumerate(tasks):
            for seed in seeds:
                noise = np.random.default_rng([*method.encode(), number, seed])
                top = level * (1.0 - 0.3 * number) + spread * noise.standard_normal()
                steps = np.linspace(0, BUDGET, points).astype(int)
                means = 0.02 + (top - 0.02) * (1 - np.exp(-3 * steps / BUDGET))
                curve = {
                    int(step): (mean + 0.2 * spread * noise.standard_normal(2)).tolist()
                    for step, mean in zip(steps, means, strict=True)
                }
                write(root, method, task, seed, curve, **changes)
