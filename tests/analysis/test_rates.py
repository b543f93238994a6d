"""How often the gate errs on runs whose scores the test made up."""

from pathlib import Path

import numpy as np
import pytest

from analysis.planned import arm, plan
from analysis.synthetic import identity
from analysis.test_regression import TASKS, runs
from wpt_bench.analysis import rates
from wpt_bench.analysis.gate import Side
from wpt_bench.analysis.publish import publish
from wpt_bench.analysis.rates import error_rates
from wpt_bench.protocol import UserError
from wpt_bench.records import Arm


def published(tmp_path: Path, broken: float, seeds: int = 20) -> Path:
    """A baseline of twenty seeds at 0.6, some of them counted by an experiment as well, and its arm elsewhere."""
    root = runs(tmp_path / "out", 0.6, range(seeds)) / "runs"
    rng = np.random.default_rng(5)
    scores = {task: rng.normal(broken, 0.05, 10).tolist() for task in TASKS}
    other = arm(root, "broken on purpose", "guidance", scores, settings={"guidance": 0.0})
    same = [identity("wpt", task, seed) for task in TASKS for seed in range(min(seeds, 4))]
    made = plan(Arm("broken on purpose", "nothing", None, True, "wpt", same), other, name="broken")
    publish(root, tmp_path / "dmc-quick", suite="dmc", profile="quick", command="made up", plans=[made])
    return tmp_path / "dmc-quick"


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Sets of resampled runs, and trials with each."""
    monkeypatch.setattr(rates, "POOLS", 5)
    monkeypatch.setattr(rates, "POOL_TRIALS", 20)


def test_error_rates_are_those_of_disjoint_draws(tmp_path):
    found = error_rates(published(tmp_path, 0.4), method="wpt", seeds=[2, 6], losses=[], trials=100)
    named = {(rate.arm, rate.seeds): rate for rate in found}
    broken = "broken, broken on purpose: guidance"
    assert set(named) == {(name, size) for name in ("unchanged", broken) for size in (2, 6)}
    for rate in found:
        assert rate.passed + rate.regressed + rate.inconclusive == pytest.approx(1)
        assert 0 <= rate.low <= rate.high <= 1
    assert all(named["unchanged", size].regressed <= 0.1 for size in (2, 6))
    assert all(named[broken, size].regressed == 1 for size in (2, 6))
    assert named[broken, 2].effect == pytest.approx(-0.2, abs=0.03)
    assert (named["unchanged", 6].runs, named[broken, 6].runs) == (20, 10)
    assert (named["unchanged", 6].baseline, named[broken, 6].baseline) == (14, 20)


def test_draws_vary_as_new_runs_would(tmp_path):
    """Eight of ten runs drawn without replacement would vary with a fifth of the variance."""
    rng = np.random.default_rng(0)
    whole, arm = (Side({"auc": rng.normal(0.5, 0.1, (seeds, 1))}, ("task",)) for seeds in (20, 10))
    drawn = [rates._replaced(whole, arm, 8, rng) for _ in range(2000)]
    for number, side in enumerate((whole, arm)):
        means = [sides[number].figures["auc"].mean() for sides in drawn]
        size = drawn[0][number].seeds
        assert np.var(means) == pytest.approx(side.figures["auc"].var() / size, rel=0.15)
    halves = [rates._halves(0.0)(whole, whole, 8, rng) for _ in range(50)]
    for before, after in halves:
        joined = np.concatenate([side.figures["auc"] for side in (before, after)])
        assert sorted(joined.ravel()) == sorted(whole.figures["auc"].ravel())


def test_the_more_is_lost_the_more_often_it_is_noticed(tmp_path):
    """Runs deviate by 0.05, so that a loss of 0.3 is seen with two seeds and one of 0.006 with none."""
    found = error_rates(published(tmp_path, 0.4), method="wpt", seeds=[2, 6], losses=[0.01, 0.5], trials=100)
    noticed = {(rate.arm.split()[0], rate.seeds): rate.regressed for rate in found}
    assert noticed["50%", 2] == noticed["50%", 6] == 1
    assert noticed["1%", 2] < 0.15 and noticed["1%", 6] < 0.2
    (half, *_) = [rate for rate in found if rate.arm == "50% of every score lost"]
    assert half.effect == pytest.approx(-0.3, abs=0.02)


def test_error_rates_of_sizes_that_are_not_there_are_refused(tmp_path):
    folder = published(tmp_path, 0.4, seeds=5)
    with pytest.raises(UserError, match="too few of the baseline's 5"):
        error_rates(folder, method="wpt", seeds=[4], trials=10)
    with pytest.raises(UserError, match="method 'wtp'"):
        error_rates(folder, method="wtp", seeds=[2], trials=10)


def test_offline_methods_have_rates_of_their_final_score(tmp_path):
    before = runs(tmp_path / "before", 0.6, range(8), online=False)
    publish(before / "runs", tmp_path / "dmc-quick", suite="dmc", profile="quick", command="made up")
    unchanged, half = error_rates(tmp_path / "dmc-quick", method="wpt", seeds=[4], losses=[0.5], trials=20)
    assert (unchanged.effect, half.effect) == (0, pytest.approx(-0.3, abs=0.03)) and half.regressed == 1
