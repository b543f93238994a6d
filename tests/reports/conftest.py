"""Reports that several tests look at, each rendered once."""

import json
from types import SimpleNamespace

import pytest
from analysis.planned import arm, plan, summary
from analysis.planned import full as every_kind
from analysis.synthetic import flat, grid, write

from reports.parsed import Parsed, render
from reports.test_world_model import frames, row, stage, states
from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.factorial import ARMS, RANDOM_REPLAY
from wpt_bench.reports.experiment import write as write_experiment

FEW = {"resamples": 100, "curve_resamples": 50}
DIAGNOSES = {
    "open_loop": 0.3,
    "open_loop_persistence": 1.2,
    "reward_error": 0.05,
    "reward_error_mean": 0.04,
    "value": 12.0,
    "value_realised": 20.0,
    "value_bias": -8.0,
}
COMMAND = "wpt-bench experiment data --suite dmc --profile quick"
ERROR = "</script><script>alert(1)</script> & a NaN loss"


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """The number of resamples is no part of what these tests are about, and most of their time."""
    monkeypatch.setattr(compare, "__kwdefaults__", FEW)


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """Four arms on two tasks."""
    folder = tmp_path_factory.mktemp("plain")
    grid(folder / "runs", {"dreamer": 0.3, "wpt-pretrain-only": 0.35, "wpt-no-guidance": 0.45, "wpt": 0.8})
    return _rendered(folder)


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """Something in every section: all arms, the control and baselines, two embodiments, both observations, a gap."""
    folder = tmp_path_factory.mktemp("full")
    runs = folder / "runs"
    tasks = ["walker-stand", "walker-run", "cheetah-run"]
    for number, (method, switches) in enumerate([*ARMS.items(), (RANDOM_REPLAY, (True, True, True))]):
        counts = {"walker": 3, "cheetah": 1}
        retrieved = {"retrieved_scenes": counts, "retrieved_embodiments": counts}
        retrieved |= {"retrieval_precision": 0.3 if method == RANDOM_REPLAY else 0.9}
        guided = (1.0, 0.8, 0.4, 0.1) if switches[2] else (0.0,)
        metrics = DIAGNOSES | ({"retrieved_distance": 1.25} if switches[1] else {})
        own = {"metrics": metrics, "prior": (0.3, 0.35) if switches[2] else ()}
        own["diagnostics"] = retrieved if switches[1] else None
        grid(runs, {method: 0.2 + 0.07 * number}, tasks, guided=guided, **own)
    grid(runs, {"sac": 0.25}, tasks)
    for task in tasks:
        for seed in range(2):
            write(runs, "td3-bc", task, seed, {0: [0.4 + 0.1 * seed, 0.5]}, online=False)
            fate = {"status": "failed", "error": ERROR} if seed else {}
            write(runs, "awac", task, seed, flat(0.4), **fate)
    grid(runs, {"wpt": 0.6, "dreamer": 0.3}, tasks[:1], observation="pixels")
    extras = {
        "open_loop": [row("walker"), row("cheetah", level=0.9)],
        "open_loop_examples": [stage({"walker": states(), "cheetah": frames()})],
        "data_card": [
            {"embodiment": "walker", "episodes": 9, "best return": 431.5},
            {"embodiment": "x", "episodes": 20},
        ],
    }
    return _rendered(folder, extras=extras, command="wpt-bench report dmc --profile quick")


@pytest.fixture(scope="session")
def experiments(tmp_path_factory):
    """An experiment of every kind: its summary and its page, by name; and the runs."""
    folder = tmp_path_factory.mktemp("experiments")
    plans = every_kind(folder / "runs")
    arms = [
        arm(folder / "runs", "parts", name, {"cup-catch": [0.1 * place, 0.3]}, method=name, reference=place == 0)
        for place, name in enumerate(ARMS)
    ]
    plans["ablation"] = plan(*arms, name="ablation")
    found = {}
    for name, its in plans.items():
        made = summary(folder / "runs", its)
        page = write_experiment(made, folder / name, title=f"A title: {name}", command=COMMAND)
        found[name] = SimpleNamespace(
            plan=its,
            summary=made,
            out=page.parent,
            parsed=Parsed(page),
            json=json.loads((page.parent / "summary.json").read_text()),
        )
    return SimpleNamespace(runs=folder / "runs", found=found)


def _rendered(folder, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "__kwdefaults__", FEW)
        parsed = render(folder / "runs", folder / "out", **options)
    summary = json.loads((folder / "out" / "summary.json").read_text())
    return SimpleNamespace(runs=folder / "runs", out=folder / "out", parsed=parsed, summary=summary)
