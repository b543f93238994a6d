"""The page of an experiment, its console, and its place in the report of methods."""

import io
import json
import re
from types import SimpleNamespace

import pandas as pd
import pytest
from analysis.planned import arm, plan, summary
from analysis.synthetic import grid, identity
from rich.console import Console

from reports.conftest import COMMAND, FEW
from reports.parsed import Parsed, render
from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.experiment import summarise
from wpt_bench.analysis.properties import CROSS_EMBODIMENT, NON_EXPERT
from wpt_bench.reports.experiment import show, write
from wpt_bench.reports.page import PLACED


@pytest.fixture(scope="session")
def main(experiments, tmp_path_factory):
    """The report of methods with all these experiments beside it."""
    folder = tmp_path_factory.mktemp("main")
    tasks = ["walker-stand", "walker-walk", "cheetah-run"]
    expected = [identity(method, task, seed) for method in ("dreamer", "wpt") for task in tasks for seed in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "__kwdefaults__", FEW)
        patch.setattr(summarise, "__kwdefaults__", FEW)
        plans = [one.plan for one in experiments.found.values()]
        parsed = render(experiments.runs, folder, plans=plans, expected=expected)
        return SimpleNamespace(parsed=parsed, out=folder, json=json.loads((folder / "summary.json").read_text()))


def test_every_figure_and_table_is_on_its_page_once_and_beside_it(experiments, main):
    for one in (*experiments.found.values(), main):
        one.parsed.check_harmless()
        assert len(one.parsed.ids) == len(set(one.parsed.ids))
        figures, tables = (sorted({path.stem for path in (one.out / name).iterdir()}) for name in ("figures", "tables"))
        assert figures and sorted(f"figure-{name}" for name in figures) == sorted(
            name for name in one.parsed.of("id") if name.startswith("figure-")
        )
        assert set(one.parsed.panels) == set(one.parsed.of("data-figure")) <= set(figures)
        for name in tables:
            headings = (one.out / "tables" / f"{name}.md").read_text().splitlines()[0].strip("| ").split(" | ")
            assert all(heading.replace("\\|", "|") in one.parsed.words for heading in headings), name


def test_a_page_says_what_was_asked_what_came_out_and_what_is_missing(experiments):
    for name, one in experiments.found.items():
        words = one.parsed.words
        assert f"What does {name} do?" in words and COMMAND in words
        for factor in one.summary.factors:
            assert factor.description in words and words.count(factor.sentence) == 2
            assert all(arm.label in words for arm in factor.arms)
    data = experiments.found["data"].parsed.words
    assert "9 of 99 runs are missing" in data and data.count("no usable record of it") == 9
    assert "missing" not in experiments.found["embodiments"].parsed.words


def test_figures_against_an_axis_have_the_levels_on_it_and_the_others_the_levels_beside_it(experiments):
    figures = experiments.found["data"].out / "figures"
    axis, rows = ((figures / f"data-{name}-levels.svg").read_text() for name in ("noise", "collectors"))
    assert all(f">{level}<" in axis for level in ("0 to 0.3", "0.6 to 1", "1.5 to 2", "noise"))
    assert all(f">{level}<" in rows for level in ("all", "pink-noise", "curiosity", "random-reward"))
    (score, _) = experiments.found["data"].parsed.panels["data-quantity-levels"]
    factor = experiments.found["data"].summary.factors[2]
    (series,) = score["series"]
    assert series["x"] == [0.1, 0.5, 1.0]
    assert series["y"] == [arm.overall.score.value for arm in factor.arms]
    assert series["low"] == [arm.overall.score.corrected_low for arm in factor.arms]


def test_no_two_levels_of_a_factor_are_drawn_alike(experiments):
    for one in experiments.found.values():
        for path in (one.out / "figures").glob("*-curves.svg"):
            lines = re.findall(r'<g id="method:([^"]*)">\s*<path[^>]*stroke: (#\w+)', path.read_text())
            levels, colours = map(set, zip(*lines, strict=True))  # in the axes and in the legend
            assert len(colours) == len(levels) > 1, path


def test_the_files_beside_a_page_agree_with_the_records(experiments):
    for one in experiments.found.values():
        for factor, its in zip(one.summary.factors, one.json["factors"], strict=True):
            assert [arm["label"] for arm in its["arms"]] == [arm.label for arm in factor.arms]
            for written, arm_ in zip(its["arms"], factor.arms, strict=True):
                value = None if arm_.overall.score is None else arm_.overall.score.value
                assert (written["overall"]["score"] or {"value": None})["value"] == value
        scores = pd.read_csv(one.out / "scores.csv")
        assert set(scores["id"]) == set(one.json["scores"]) and len(one.json["scores"]) == one.summary.done
        assert set(scores["factor"]) == {factor.name for factor in one.summary.factors}


def test_transfer_forgetting_and_the_effects_of_the_parts_have_tables(experiments):
    transfer = pd.read_csv(experiments.found["adaptation"].out / "tables" / "adaptation-start-transfer-carried.csv")
    assert transfer["task"].tolist() == ["quadruped-stand", "quadruped-walk", "quadruped-run", "mean"]
    first, second, last, mean = transfer["forgetting"]
    assert (float(first), float(second), last, float(mean)) == (
        pytest.approx(0.15),
        pytest.approx(0.05),
        "—",
        pytest.approx(0.1),
    )
    effects = pd.read_csv(experiments.found["ablation"].out / "tables" / "ablation-parts-effects.csv")
    assert {"pre-training", "rehearsal x guidance"} <= set(effects["effect"])


def test_the_console_has_a_table_and_a_sentence_for_every_factor(experiments):
    made = experiments.found["data"].summary
    text = io.StringIO()
    show(made, Console(file=text, width=100))
    said = text.getvalue()
    for factor in made.factors:
        assert f"dmc · quick · data · {factor.name}" in said and factor.sentence in said
    rows = [line.split() for line in said.splitlines()]
    (pink,) = (row for row in rows if row[:1] == ["pink-noise"])
    assert pink[1:3] == ["wpt", "9/9"] and pink[-1] == "lower"
    (absent,) = (row for row in rows if row[:1] == ["random-reward"])
    assert absent[1:] == ["wpt", "0/9", "—", "—", "—", "—"]
    assert "9 of 99 runs missing; the report lists them." in said


def test_an_experiment_of_which_nothing_is_there_still_has_a_page(tmp_path):
    its = arm(tmp_path / "runs", "quantity", "1", {"walker-stand": [None]}, reference=True)
    other = arm(tmp_path / "runs", "quantity", "0.5", {"walker-stand": [None]}, subset={"share": 0.5})
    made = summary(tmp_path / "runs", plan(its, other))
    parsed = Parsed(write(made, tmp_path / "out", title="Nothing", command=COMMAND))
    parsed.check_harmless()
    assert "0 of 2 runs finished" in parsed.words and "nothing can be said yet" in parsed.words
    assert list((tmp_path / "out" / "figures").iterdir()) == []


HOSTILE = '</script><script>alert(1)</script> \'a" onfocus="x'


def test_no_name_of_a_level_or_a_factor_becomes_markup(tmp_path):
    its = arm(tmp_path / "runs", HOSTILE, HOSTILE, {"walker-stand": [0.2, 0.3]}, value=0.0, reference=True)
    other = arm(tmp_path / "runs", HOSTILE, "x/../y", {"walker-stand": [0.4, 0.3]}, value=1.0, subset={"share": 0.5})
    made = summary(tmp_path / "runs", plan(its, other))
    parsed = Parsed(write(made, tmp_path / "out", title=HOSTILE, command=HOSTILE))
    parsed.check_harmless()
    assert " ".join(HOSTILE.split()) in parsed.words


def test_the_report_of_methods_has_the_experiments_in_its_sections(experiments, main):
    words = main.parsed.words
    for name in PLACED:
        for factor in experiments.found[name].summary.factors:
            assert factor.description in words
    asked = "--tasks walker-stand,walker-walk,cheetah-run --seeds 0,1,2"
    assert f"wpt-bench experiment data --suite dmc --profile quick {asked} goes on with the rest" in words
    for gone in ("none of these runs has one", "none of these runs follows another", "takes runs on several"):
        assert gone not in words
    assert [one["name"] for one in main.json["experiments"]] == list(experiments.found)
    (table,) = main.json["tables"]
    assert table["stale"] == [] and {row["name"] for row in table["methods"]} == {"dreamer", "wpt"}
    assert all(table["measured"][name]["WPT"]["effect"] for name in (NON_EXPERT, CROSS_EMBODIMENT))


def test_without_them_it_says_which_command_makes_them(tmp_path):
    grid(tmp_path / "runs", {"dreamer": 0.3, "wpt": 0.5}, points=3)
    words = render(tmp_path / "runs", tmp_path / "out").words
    for name in PLACED:
        assert f"wpt-bench experiment {name} --suite dmc --profile quick" in words, name
