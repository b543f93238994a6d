"""From rows and records to what is said of a method on a task: by hand."""

import json

import msgspec
import pandas as pd
import pytest

from analysis.synthetic import BUDGET, flat, write
from analysis.whole import its, made_up, published, write_whole
from wpt_bench import records
from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.diagnostics import Diagnosis, diagnoses, of_run
from wpt_bench.analysis.scores import load_runs
from wpt_bench.analysis.summary import figures
from wpt_bench.analysis.verify import verify


def told(folder, metrics, *, prior=()):
    """Gives the evaluations of a run, two episodes each, their metrics by environment step; and returns of a prior."""
    rows, own = records.read_episodes(folder), {step: iter(pair) for step, pair in metrics.items()}
    evaluated = [row for row in rows if row.kind == "evaluation"]
    acted = [
        msgspec.structs.replace(evaluated[0], kind="prior", index=index, episode_return=value, guided_steps=500)
        for index, value in enumerate(prior)
    ]
    changed = [
        msgspec.structs.replace(row, metrics=next(own[row.env_step])) if row.kind == "evaluation" else row
        for row in rows
    ]
    (folder / "episodes.jsonl").unlink()
    records.append_episodes(folder, [*changed[:1], *acted, *changed[1:]])


def both(**metrics):
    return [metrics, metrics]


def of(frame, name):
    return {step: value for step, its_name, value in frame.itertuples(index=False) if its_name == name}


def test_an_evaluation_is_the_mean_of_its_episodes_and_a_ratio_that_of_means(tmp_path):
    first = [{"open_loop": 1.0, "open_loop_persistence": 1.0}, {"open_loop": 2.0, "open_loop_persistence": 5.0}]
    last = both(open_loop=0.5, open_loop_persistence=1.0, reward_error=0.1, reward_error_mean=0.0)
    folder = write(tmp_path, "wpt", "walker-stand", 0, flat(0.2, 0.4))
    told(folder, {0: first, BUDGET: last}, prior=[300.0, 500.0])
    frame = pd.DataFrame(of_run(records.read_run(folder), records.read_episodes(folder)))
    assert of(frame, "open_loop") == {0: 1.5, BUDGET: 0.5}
    assert of(frame, "open_loop_ratio") == {0: 0.5, BUDGET: 0.5}
    assert of(frame, "reward_ratio") == {} and of(frame, "reward_error") == {BUDGET: 0.1}
    assert of(frame, "prior_return") == {0: 400.0} and of(frame, "prior_score") == {0: 0.4}
    assert of(frame, "prior_success") == {0: 0.0}
    assert "loss" not in set(frame["name"])  # of training rows nothing


def test_a_prior_is_scored_as_its_task_is(tmp_path):
    folder = write(tmp_path, "wpt", "walker-stand", 0, flat(1.0), score="success", scale=1.0)
    told(folder, {0: both(), BUDGET: both()}, prior=[300.0])
    frame = pd.DataFrame(of_run(records.read_run(folder), records.read_episodes(folder)))
    assert of(frame, "prior_score") == of(frame, "prior_success") == {0: 1.0}
    assert of(frame, "prior_return") == {0: 300.0}


def test_a_method_on_a_task_is_the_mean_of_its_seeds_at_their_last_evaluation(tmp_path):
    for seed, (value, scenes) in enumerate([(2.0, {"a": 3, "b": 1}), (4.0, {"b": 4})]):
        counts = {"retrieved_scenes": scenes, "retrieved_embodiments": {"arm": 4}}
        folder = write(tmp_path, "wpt", "walker-stand", seed, flat(0.2), diagnostics=counts)
        told(folder, {0: both(value_bias=9.0), BUDGET: both(value_bias=value)}, prior=[100.0 * seed])
    write(tmp_path, "dreamer", "walker-stand", 0, flat(0.2))
    table = load_runs(tmp_path, suite="dmc", profile="quick")
    assert list(table.diagnostics.columns) == ["id", "method", "task", "seed", "env_step", "name", "value"]
    (found,) = diagnoses(table.diagnostics, table.records.values())
    assert found == Diagnosis(
        "wpt",
        "walker-stand",
        {"value_bias": 3.0, "prior_score": 0.05, "prior_return": 50.0, "prior_success": 0.0},
        {"arm": 1.0},
        {"b": 0.625, "a": 0.375},
    )
    assert list(found.scenes) == ["b", "a"]


def test_counts_that_are_none_are_left_out(tmp_path):
    for seed, counts in enumerate(["all", {"a": "many"}, {"a": 0.5}, {"a": -1, "b": 3}, {}, {"a": True}]):
        write(tmp_path, "wpt", "walker-stand", seed, flat(0.2), diagnostics={"retrieved_scenes": counts})
    table = load_runs(tmp_path, suite="dmc", profile="quick")
    assert diagnoses(table.diagnostics, table.records.values()) == ()


def test_numbers_beyond_all_bounds_are_left_out(tmp_path):
    folder = write(tmp_path, "wpt", "walker-stand", 0, flat(0.2))
    told(folder, {0: both(value_bias=1.7e308), BUDGET: both(open_loop=1e300, open_loop_persistence=1e-300)})
    table = load_runs(tmp_path, suite="dmc", profile="quick")
    (found,) = diagnoses(table.diagnostics, table.records.values())
    assert dict(found.values) == {"open_loop": 1e300, "open_loop_persistence": 1e-300}


def test_scores_are_those_without_diagnoses(tmp_path):
    both_ways = []
    for name in ("plain", "told"):
        for method in ("dreamer", "wpt"):
            folder = write(tmp_path / name, method, "walker-stand", 0, flat(0.2, 0.5))
            if name == "told":
                told(folder, {0: both(value_bias=1.0), BUDGET: both(value_bias=2.0)}, prior=[900.0, 900.0])
        table = load_runs(tmp_path / name, suite="dmc", profile="quick")
        both_ways.append(figures([compare(table, resamples=50, curve_resamples=50)]))
    plain, diagnosed = (both["tables"][0] for both in both_ways)
    assert "diagnostics" not in plain and len(diagnosed.pop("diagnostics")) == 2
    priors = [[row.pop("prior") for row in table["methods"]] for table in (plain, diagnosed)]
    above = [[row.pop("above_prior") for row in table["methods"]] for table in (plain, diagnosed)]
    assert priors[0] == above[0] == [None, None] and [one["value"] for one in priors[1]] == [0.9, 0.9]
    assert [one["value"] for one in above[1]] == pytest.approx([-0.4, -0.4])
    assert diagnosed.pop("glance")[:-1] == plain.pop("glance")
    assert diagnosed == plain


def test_published_diagnoses_are_recomputed(tmp_path):
    run_id = write_whole(tmp_path / "runs", its("wpt", 0), diagnostics={"retrieved_scenes": {"walker": 2}})
    _, rows = made_up(its("wpt", 0))
    prior = [msgspec.structs.replace(row, kind="prior", guided_steps=500) for row in rows[:2]]
    rows = [msgspec.structs.replace(r, metrics={"value_bias": 0.1}) if r.kind == "evaluation" else r for r in rows]
    (tmp_path / "runs" / run_id / "episodes.jsonl").unlink()
    records.append_episodes(tmp_path / "runs" / run_id, [*rows[:2], *prior, *rows[2:]])
    folder = published(tmp_path / "published", tmp_path / "runs")
    assert verify(folder).findings == ()
    values = json.loads((folder / "figures.json").read_bytes())
    (diagnosis,) = values["tables"][0]["diagnostics"]
    assert diagnosis["scenes"] == {"walker": 1.0} and diagnosis["values"]["value_bias"] == pytest.approx(0.1)
    diagnosis["values"]["prior_score"] = 1.0
    (folder / "figures.json").write_text(json.dumps(values))
    assert any("diagnostics[0].values.prior_score is published as 1.0" in said for said in verify(folder).findings)
