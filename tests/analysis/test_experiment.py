import numpy as np
import pytest

from analysis.planned import QUICK, arm, plan, summary
from wpt_bench import records
from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.experiment import summarise
from wpt_bench.analysis.factorial import ARMS
from wpt_bench.analysis.scores import Reading, expected_runs

REFERENCE = {"walker-stand": [0.2, 0.4], "cheetah-run": [0.4, 0.6]}
OTHER = {"walker-stand": [0.3, 0.5], "cheetah-run": [0.5, 0.9]}


def few(root, scores, **changes):
    return arm(root, "quantity", "0.1", scores, value=0.1, subset={"share": 0.1}, **changes)


def test_differences_are_those_of_the_two_iqms_overall_by_embodiment_and_by_task(tmp_path):
    reference = arm(tmp_path, "quantity", "1", REFERENCE, value=1.0, reference=True)
    (factor,) = summary(tmp_path, plan(few(tmp_path, OTHER), reference)).factors
    other, own = factor.arms
    assert (other.value, other.done, other.expected, own.reference) == (0.1, 4, 4, True)
    # Of four runs the IQM is the mean of the middle two; curves are flat, so that areas are scores.
    for name in ("score", "auc"):
        assert getattr(own.overall, name).value == pytest.approx(0.4)
        assert getattr(other.overall, name).value == pytest.approx(0.5)
    assert other.overall.against.value == pytest.approx(0.1) and own.overall.against is None
    assert {name: its.auc_against.value for name, its in other.tasks.items()} == pytest.approx(
        {"cheetah-run": 0.2, "walker-stand": 0.1}
    )
    assert {name: its.against.value for name, its in other.embodiments.items()} == pytest.approx(
        {"cheetah": 0.2, "walker": 0.1}
    )
    assert other.overall.auc_against.corrected_low < 0 < other.overall.auc_against.corrected_high
    assert (
        "Quantity: nothing is separated from “1”. IQM of the area under the curve minus that of “1”: “0.1” +0.100 ["
        in (factor.sentence)
    )
    assert factor.sentence.endswith("With 2 seeds, what is not separated may still differ.")


def test_a_missing_run_leaves_its_arm_without_a_figure_and_its_other_tasks_with_theirs(tmp_path):
    reference = arm(tmp_path, "quantity", "1", REFERENCE, reference=True)
    gap = few(tmp_path, {**OTHER, "cheetah-run": [0.5, None]})
    again = arm(tmp_path, "others", "x", {}, reference=True)
    shared = records.Arm("others", "y", None, False, "wpt", gap.runs)
    found = summary(tmp_path, plan(gap, reference, again, shared))
    other = found.factors[0].arms[0]
    assert (other.done, other.expected, other.overall.score, other.curve) == (3, 4, None, None)
    assert other.tasks["cheetah-run"].against is None
    assert other.tasks["walker-stand"].against.value == pytest.approx(0.1)
    assert found.factors[0].sentence == (
        "Quantity: nothing can be said yet, for nothing complete can be held against “1”. "
        "Incomplete: “0.1” (3 of 4 runs)."
    )
    assert (found.done, found.expected, len(found.missing)) == (7, 8, 1)  # once, though two factors want it
    assert [(gap.task, gap.seed, gap.status) for gap in found.missing] == [("cheetah-run", 1, "pending")]


def test_levels_are_called_separated_by_the_corrected_interval_alone(tmp_path):
    steady = {"walker-stand": [0.5, 0.501, 0.499], "cheetah-run": [0.5, 0.502, 0.498]}
    reference = arm(tmp_path, "quality", "all", steady, reference=True)
    higher = {task: [score + 0.2 for score in reversed(scores)] for task, scores in steady.items()}
    better = arm(tmp_path, "quality", "good", higher, subset={"quality": 1})
    (factor,) = summary(tmp_path, plan(reference, better)).factors
    assert factor.sentence.startswith("Quality: separated from “all”: “good” (higher). IQM of the area")
    assert "may still differ" not in factor.sentence


@pytest.mark.parametrize(("seeds", "apart"), [(range(5), True), (range(5, 10), False)], ids=["the same", "others"])
def test_levels_with_the_same_seeds_are_paired_by_them(tmp_path, seeds, apart):
    common = [0.0, 0.15, 0.3, 0.05, 0.25]
    reference = arm(tmp_path, "quality", "all", {"walker-stand": [0.3 + its for its in common]}, reference=True)
    scores = {"walker-stand": [0.4 + its + 0.01 * (place % 2) for place, its in enumerate(common)]}
    better = arm(tmp_path, "quality", "good", scores, subset={"quality": 1}, seeds=seeds)
    (factor,) = summary(tmp_path, plan(reference, better)).factors
    assert ("separated from “all”: “good” (higher)" in factor.sentence) == apart


def test_one_seed_decides_nothing(tmp_path):
    reference = arm(tmp_path, "quality", "all", {"walker-stand": [0.1]}, reference=True)
    better = arm(tmp_path, "quality", "good", {"walker-stand": [0.9]}, subset={"quality": 1})
    (factor,) = summary(tmp_path, plan(reference, better)).factors
    assert factor.sentence == (
        "Quality: not decided, for one seed allows no interval. IQM of the area under the curve minus that of “all”: "
        "“good” +0.800."
    )


def test_an_arm_is_held_against_the_reference_of_its_own_method(tmp_path):
    levels = []
    for level, shift in (("all", 0.0), ("half", 0.1)):
        for method, height in (("wpt", 0.5), ("wpt-pretrain-only", 0.2)):
            scores = {"walker-stand": [height + shift * (1 + (method == "wpt"))] * 2}
            part = {"subset": {"share": 0.5}} if level == "half" else {}
            levels.append(arm(tmp_path, "share", level, scores, method=method, reference=level == "all", **part))
    (factor,) = summary(tmp_path, plan(*levels)).factors
    assert {its.label: round(its.overall.against.value, 6) for its in factor.arms if its.overall.against} == {
        "half, wpt": 0.2,
        "half, wpt-pretrain-only": 0.1,
    }


def test_every_run_is_read_once_however_many_arms_it_is_in(tmp_path, monkeypatch):
    reference = arm(tmp_path, "quantity", "1", REFERENCE, reference=True)
    others = [records.Arm(f"factor {number}", "all", None, True, "wpt", reference.runs) for number in range(3)]
    read, counted = records.read_episodes, []
    monkeypatch.setattr(records, "read_episodes", lambda folder, *rest: counted.append(folder) or read(folder, *rest))
    reading = Reading(tmp_path)
    for _ in range(2):
        summarise(plan(reference, *others), reading, **QUICK)
    assert len(counted) == len(set(counted)) == 4


def test_the_combinations_of_wpts_parts_get_the_effects_that_the_report_computes(tmp_path):
    rng = np.random.default_rng(0)
    arms = [
        arm(tmp_path, "parts", method, {"walker-stand": rng.random(2).tolist()}, method=method, reference=number == 0)
        for number, method in enumerate(ARMS)
    ]
    (factor,) = summary(tmp_path, plan(*arms, name="ablation")).factors
    table = expected_runs(tmp_path, [run for one in arms for run in one.runs])
    assert factor.parts.ablation == compare(table, **QUICK).ablation and factor.parts.ablation.effects
    (other,) = summary(tmp_path, plan(*arms[:2])).factors
    assert other.parts is None


def test_what_a_level_gains_over_scratch_is_held_against_scratch_at_that_level(tmp_path):
    task = "walker-stand"
    levels = {"all": (0.8, 0.3), "raw": (0.5, 0.4)}  # of wpt and dreamer, with other settings at each level
    arms = [
        arm(
            tmp_path, "details", level, {task: [score]}, method=method, reference=level == "all", settings={"at": level}
        )
        for level, scores in levels.items()
        for method, score in zip(("wpt", "dreamer"), scores, strict=True)
    ]
    (factor,) = summary(tmp_path, plan(*arms)).factors
    gains = {its.label: its.gain for its in factor.arms}
    assert gains["all, dreamer"] is gains["raw, dreamer"] is None
    assert gains["all, wpt"].value == pytest.approx(0.5) and gains["raw, wpt"].value == pytest.approx(0.1)
    assert "Area minus that of dreamer at the same level: “all, wpt” +0.500; “raw, wpt” +0.100." in factor.sentence
