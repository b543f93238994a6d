import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wpt_bench.analysis.gate import ALPHA, LEAST, Side, _adjusted, _pairs, answer, judge


def side(auc, score=None, tasks=None) -> Side:
    auc = np.asarray(auc, float)
    score = auc if score is None else np.asarray(score, float)
    return Side({"auc": auc, "score": score}, tasks or tuple(f"task {i}" for i in range(auc.shape[1])))


def judged(before: Side, after: Side, **options):
    return judge({"wpt": before}, {"wpt": after}, **options)


def t_of(candidates: np.ndarray, baselines: np.ndarray) -> float:
    """Welch's t of one figure, runs ``(seeds,)``."""
    variance = candidates.var(ddof=1) / len(candidates) + baselines.var(ddof=1) / len(baselines)
    return float((candidates.mean() - baselines.mean()) / np.sqrt(variance))


def plain_p(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Adjusted p of all tasks and of each from every possible shuffle of whole seeds, one after the other."""
    values = np.concatenate([after, before])
    columns = [values.mean(axis=1), *values.T]

    def statistics(chosen: tuple[int, ...]) -> list[float]:
        return [t_of(column[list(chosen)], np.delete(column, list(chosen))) for column in columns]

    shuffled = [statistics(chosen) for chosen in itertools.combinations(range(len(values)), len(after))]
    observed = statistics(tuple(range(len(after))))
    names = ["", *(f"task {task}" for task in range(before.shape[1]))]
    return {
        name: float(np.mean([min(its) <= one + 1e-9 for its in shuffled]))
        for name, one in zip(names, observed, strict=True)
    }


def test_p_is_the_share_of_shuffles_that_are_as_bad():
    """Two of five runs are the candidate's, and the lowest: one of ten ways."""
    verdict = judged(side([[0.5], [0.6], [0.7]]), side([[0.1], [0.2]]))
    assert [change.p for change in verdict.changes] == pytest.approx([0.1, 0.1], abs=0.01)


def test_p_of_several_tasks_is_that_of_all_shuffles_of_seeds():
    rng = np.random.default_rng(3)
    before, after = rng.normal(0.5, 0.1, (6, 2)), rng.normal([0.3, 0.5], 0.1, (4, 2))
    wanted = plain_p(before, after)
    found = {change.task: change.p for change in judged(side(before), side(after)).changes if change.figure == "auc"}
    assert found == pytest.approx(wanted, abs=0.015)
    assert found["task 0"] < found["task 1"]


@pytest.mark.parametrize("kind", ["normal", "success", "heavy", "seeds", "figures"])
def test_where_nothing_changed_it_is_called_regressed_in_one_of_twenty_trials_at_most(kind):
    rng = np.random.default_rng(0)
    draw = {
        "normal": lambda shape: rng.normal(0.5, 0.1, shape),
        "success": lambda shape: rng.integers(0, 6, shape) / 5 * rng.integers(0, 2, shape),
        "heavy": lambda shape: rng.standard_t(2, shape),
        "seeds": lambda shape: rng.normal(0.5, 0.1, (shape[0], 1)) + rng.normal(0, 0.01, shape),
        "figures": lambda shape: rng.normal(0.5, 0.1, shape),
    }[kind]
    trials, called = 400, 0
    for _ in range(trials):
        before, after = {}, {}
        for method in ("dreamer", "wpt"):
            for its, seeds in ((before, 6), (after, 4)):
                auc = draw((seeds, 4))
                score = auc + rng.normal(0, 0.05, auc.shape) if kind != "figures" else 1 - auc
                # What the seeds of one method have in common with those of the other is shuffled with them.
                its[method] = side(auc, score) if method == "dreamer" or kind != "seeds" else its["dreamer"]
        # What ``judge`` calls regressed, without the intervals that it has beside it.
        called += min(_adjusted(_pairs(before, after), 400, 0).values()) <= ALPHA
    assert called / trials < 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5


def test_a_task_that_broke_is_found_among_tasks_that_did_not():
    rng = np.random.default_rng(1)
    before, after = rng.normal(0.5, 0.05, (8, 4)), rng.normal([0.5, 0.5, 0.1, 0.5], 0.05, (4, 4))
    verdict = judged(side(before), side(after))
    assert verdict.answer == "regressed"
    assert {change.task for change in verdict.worse if change.task} == {"task 2"}


def test_a_final_score_that_broke_is_found_beside_an_area_that_did_not():
    rng = np.random.default_rng(1)
    same = rng.normal(0.5, 0.05, (8, 1)), rng.normal(0.5, 0.05, (4, 1))
    verdict = judged(side(same[0], same[0]), side(same[1], same[1] - 0.4))
    assert verdict.answer == "regressed" and {change.figure for change in verdict.worse} == {"score"}


def test_a_method_that_broke_is_found_beside_one_that_did_not():
    rng = np.random.default_rng(1)
    before = {name: side(rng.normal(0.5, 0.05, (6, 1))) for name in ("dreamer", "wpt")}
    after = {"dreamer": side(rng.normal(0.5, 0.05, (6, 1))), "wpt": side(rng.normal(0.3, 0.05, (6, 1)))}
    verdict = judge(before, after)
    assert {change.method for change in verdict.worse} == {"wpt"}


def test_a_candidate_that_is_merely_more_variable_is_seldom_called_worse():
    """A pooled variance calls about one in ten worse (and of four such seeds one in four)."""
    rng = np.random.default_rng(0)
    trials, called = 400, 0
    for _ in range(trials):
        before, after = rng.normal(0.5, 0.1, (20, 1)), rng.normal(0.5, 0.2, (8, 1))
        called += answer(side(before), side(after), alpha=0.05, margin=0.25, permutations=400) == "regressed"
    assert called / trials < 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5


def test_equal_runs_that_do_not_vary_pass_and_lower_ones_do_not():
    tight = np.full((LEAST, 2), 0.5)
    assert judged(side(tight), side(tight)).answer == "pass"
    assert judged(side(tight), side(tight - 0.1)).answer == "regressed"
    nothing = side(np.zeros((LEAST, 2)))
    assert judged(nothing, nothing).answer == "inconclusive"  # of nothing, nothing is kept


def test_few_seeds_do_not_pass_however_narrow_their_interval_is():
    ceiling, lower = np.ones((20, 1)), np.full((LEAST - 1, 1), 1.0)
    verdict = judged(side(ceiling), side(lower))
    assert verdict.answer == "inconclusive" and verdict.few and not verdict.open
    assert judged(side(lower), side(ceiling)).few
    assert judged(side(np.ones((2, 1))), side(np.full((2, 1), 0.8))).answer == "inconclusive"  # one way of six


@given(
    arrays(float, (7, 2), elements=st.floats(0, 1, width=16)),
    st.integers(2, 8).flatmap(lambda n: arrays(float, (n, 2), elements=st.floats(0, 1, width=16))),
    st.sampled_from([0.05, 0.25, 0.9]),
)
def test_trials_give_the_answers_of_verdicts(before, after, margin):
    options = {"alpha": 0.1, "margin": margin, "permutations": 100}
    before, after = side(before, before[:, ::-1]), side(after, after[:, ::-1])
    assert answer(before, after, **options) == judged(before, after, **options).answer


def test_few_seeds_are_inconclusive_and_more_pass():
    rng = np.random.default_rng(2)
    many = rng.normal(0.5, 0.1, (20, 2))
    assert judged(side(many), side(many[:2] + 0.01)).answer == "inconclusive"
    assert judged(side(many), side(rng.normal(0.5, 0.1, (20, 2)))).answer == "pass"
    assert judged(side(many), side(rng.normal(0.5, 0.1, (20, 2))), margin=0.01).answer == "inconclusive"
    one = judged(side(many), side(many[:1]))
    assert one.answer == "inconclusive" and one.changes[0].difference.low is None


def test_a_single_seed_far_below_many_is_regressed():
    rng = np.random.default_rng(2)
    assert judged(side(rng.normal(0.5, 0.05, (39, 1))), side([[0.1]])).answer == "regressed"


@given(
    arrays(float, (5, 2), elements=st.floats(0, 1, width=16)),
    arrays(float, (3, 2), elements=st.floats(0, 1, width=16)),
    st.floats(-2, 2),
)
def test_only_differences_between_runs_count(before, after, shift):
    """No constant does; and what is nowhere lower is never worse."""
    options = {"permutations": 200}
    found = [change.p for change in judged(side(before), side(after), **options).changes]
    moved = [change.p for change in judged(side(before + shift), side(after + shift), **options).changes]
    assert moved == pytest.approx(found, abs=0.02)
    assert judged(side(before), side(np.maximum(before.max(0), after)), **options).answer != "regressed"


def test_what_cannot_be_compared_is_refused():
    whole = side(np.zeros((3, 1)))
    for other in ({}, {"dreamer": whole}, {"wpt": side(np.zeros((3, 1)), tasks=("other",))}):
        with pytest.raises(ValueError):
            judge({"wpt": whole}, other)
    with pytest.raises(ValueError, match="one seed"):
        judged(side([[0.1]]), side([[0.2]]))
    with pytest.raises(ValueError, match="finite"):
        judged(whole, side([[np.nan], [0.1]]))
