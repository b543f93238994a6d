"""Made-up experiments: plans, and the runs that they count, with every number chosen by the test."""

from collections.abc import Iterable
from pathlib import Path

from analysis.synthetic import flat, grid, identity, write
from wpt_bench.analysis.experiment import ExperimentSummary, summarise
from wpt_bench.analysis.scores import Reading
from wpt_bench.records import Arm, Plan, digest

QUICK = {"resamples": 400, "curve_resamples": 100}


def arm(
    root: Path,
    factor: str,
    level: str,
    scores: dict[str, list[float | None]],
    *,
    method: str = "wpt",
    value: float | None = None,
    reference: bool = False,
    seeds: Iterable[int] = range(99),
    **changes,
) -> Arm:
    """An arm whose runs have a flat curve at their score, by task and seed, and are not there where it is None."""
    seeds = list(seeds)
    runs = []
    for task, of_seeds in scores.items():
        for seed, score in zip(seeds, of_seeds, strict=False):
            runs.append(identity(method, task, seed, **changes))
            if score is not None:
                write(root, method, task, seed, flat(score), **changes)
    return Arm(factor, level, value, reference, method, runs)


def plan(*arms: Arm, name: str = "data", **changes) -> Plan:
    factors = {factor: f"What {factor} is." for factor in dict.fromkeys(arm.factor for arm in arms)}
    fields = {"name": name, "question": f"What does {name} do?", "suite": "dmc", "profile": "quick"}
    return Plan(**{**fields, **changes}, factors=factors, arms=list(arms))


def summary(root: Path, plan: Plan) -> ExperimentSummary:
    return summarise(plan, Reading(root), **QUICK)


def sequence(
    root: Path, tasks: list[str], scores: list[list[float]], kept: dict[str, list[float]] | None = None, **options
) -> Arm:
    """An arm in sequence: scores by task and seed, and by earlier task and seed what was ``kept`` of it at the end."""
    runs = []
    for seed in range(len(scores[0])):
        before = None
        for number, task in enumerate(tasks):
            follows = {"earlier": tuple(tasks[:number]), "after": before}
            last = number == len(tasks) - 1
            forgotten = {name: [of[seed]] * 2 for name, of in (kept or {}).items()} if last else None
            write(root, "wpt", task, seed, flat(scores[number][seed]), forgotten=forgotten, **follows)
            runs.append(identity("wpt", task, seed, **follows))
            before = digest(runs[-1])
    return Arm("start", "carried", None, False, "wpt", runs)


TASKS = ("walker-stand", "walker-walk", "cheetah-run")


def full(root: Path) -> dict[str, Plan]:
    """An experiment of every kind, with rising curves, three seeds, and gaps here and there."""

    def varied(factor, level, height, method="wpt", value=None, reference=False, tasks=TASKS, **changes):
        runs = [identity(method, task, seed, **changes) for task in tasks for seed in range(3)]
        if not (root / digest(runs[0])).exists():
            spread = 0.04 + 0.02 * height  # levels of one method share its noise, and would differ by a constant
            grid(root, {method: height}, tasks, range(3), spread=spread, **changes)
        return Arm(factor, level, value, reference, method, runs)

    def part(**of):
        return {"subset": of}

    data = plan(
        varied("collectors", "all", 0.7, reference=True),
        varied("collectors", "pink-noise", 0.3, **part(collectors=["pink-noise"])),
        varied("collectors", "curiosity", 0.65, **part(collectors=["curiosity"])),
        arm(root, "collectors", "random-reward", {task: [None] * 3 for task in TASKS}, **part(collectors=["r"])),
        varied("noise", "all", 0.7, reference=True),
        varied("noise", "0 to 0.3", 0.75, value=0.15, **part(quality=[0, 0.3])),
        varied("noise", "0.6 to 1", 0.6, value=0.8, **part(quality=[0.6, 1])),
        varied("noise", "1.5 to 2", 0.35, value=1.75, **part(quality=[1.5, 2])),
        varied("quantity", "0.1", 0.4, value=0.1, **part(share=0.1)),
        varied("quantity", "0.5", 0.6, value=0.5, **part(share=0.5)),
        varied("quantity", "1", 0.7, value=1.0, reference=True),
        varied("other scenes", "0", 0.5, value=0.0, reference=True, **part(foreign=0.0)),
        varied("other scenes", "0.5", 0.6, value=0.5, **part(foreign=0.5)),
        varied("other scenes", "1", 0.7, value=1.0),
    )
    sensitivity = plan(
        *(
            varied("retrieved episodes", name, height, value=value, reference=value == 1, settings={"k": value})
            for name, value, height in (("k/4", 0.25, 0.5), ("k", 1.0, 0.7), ("2k", 2.0, 0.68))
        ),
        name="sensitivity",
    )
    embodiments = plan(
        varied("pre-training", "all", 0.7),
        varied("pre-training", "own", 0.6, **part(foreign=0.0)),
        varied("pre-training", "none", 0.2, method="dreamer", reference=True),
        name="embodiments",
    )
    order = ["quadruped-stand", "quadruped-walk", "quadruped-run"]
    carried = [[0.5, 0.55, 0.6], [0.6, 0.5, 0.7], [0.3, 0.35, 0.4]]
    kept = {"quadruped-stand": [0.3, 0.4, 0.5], "quadruped-walk": [0.5, 0.45, 0.7]}
    adaptation = plan(
        sequence(root, order, carried, kept),
        varied("start", "fresh", 0.4, tasks=order),
        varied("start", "scratch", 0.3, method="dreamer", reference=True, tasks=order),
        name="adaptation",
    )
    return {one.name: one for one in (data, sensitivity, embodiments, adaptation)}
