"""What the page chooses to show, and its tables as they are pasted elsewhere."""

import csv
import io
import re

import pytest
from analysis.synthetic import BUDGET, flat, grid, write

from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.factorial import ARMS, RANDOM_REPLAY
from wpt_bench.analysis.scores import load_runs
from wpt_bench.reports.content import against_table, card_table, cost_table, methods_table
from wpt_bench.reports.sections import CROWD, section
from wpt_bench.reports.table import Cell, Heading, Row, Table, count, headings, score


def compared(root):
    return compare(load_runs(root, suite="dmc", profile="quick"), resamples=100, curve_resamples=50)


def sections_of(root, methods, tasks=("walker-stand",), **changes):
    grid(root, dict.fromkeys(methods, 0.5), tasks, points=3, **changes)
    return section(compared(root))


def texts(table):
    return [[cell.text for cell in row.cells] for row in table.rows]


TABLE = Table(
    "name",
    "Label",
    headings("a|b", "score", "runs", numbers=("score",)),
    (
        Row((Cell("x | y\nz"), score(1 / 3), Cell('2/2, "all"', note="of 2"))),
        Row((Cell("plain"), score(None), count(12345.0))),
    ),
)


def test_markdown_escapes_what_would_end_a_cell():
    assert TABLE.markdown().splitlines() == [
        "| a\\|b | score | runs |",
        "| --- | ---: | --- |",
        '| x \\| y z | 0.333 | 2/2, "all" (of 2) |',
        "| plain | — | 12,345 |",
    ]


def test_csv_has_numbers_unrounded_and_text_as_it_is():
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [
        ["a|b", "score", "runs"],
        ["x | y\nz", "0.3333333333333333", '2/2, "all"'],
        ["plain", "—", "12345.0"],
    ]


def test_files_hold_the_same(tmp_path):
    TABLE.save(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "name.md": TABLE.markdown(),
        "name.csv": TABLE.csv(),
    }


@pytest.mark.parametrize("value", [None, float("nan")])
def test_no_score_is_a_gap_and_zero_is_a_score(value):
    assert score(value) == Cell("—") and score(0.0) == Cell("0.000", 0.0)


def test_eight_arms_give_main_effects_and_interactions(tmp_path):
    made = sections_of(tmp_path, ARMS)
    drawn = made.effects.svg
    for effect in ("pre-training", "rehearsal", "guidance", "pre-training x rehearsal x guidance"):
        assert f">{effect}<" in drawn
    assert "Main effects" in made.effects.caption and "against" not in drawn.replace("against-scratch", "")
    named = [row[0] for row in texts(made.effect_table)]
    assert named[:3] == ["pre-training", "rehearsal", "guidance"] and len(named) == 2 * (7 + 13)
    assert all(row[4] != "not among these runs" for row in texts(made.arms)[:8])


def test_four_arms_give_single_switches(tmp_path):
    made = sections_of(tmp_path, ["dreamer", "wpt-pretrain-only", "wpt-no-guidance", "wpt"])
    assert made.effects.caption.startswith("What switching on one part changes")
    switches = [
        "pre-training: wpt-pretrain-only against dreamer",
        "rehearsal: wpt-no-guidance against wpt-pretrain-only",
        "guidance: wpt against wpt-no-guidance",
        "rehearsal and guidance: wpt against wpt-pretrain-only",
    ]
    assert [row[0] for row in texts(made.effect_table)] == 2 * switches
    assert all(f">{switch}<" in made.effects.svg for switch in switches)
    absent = [row[0] for row in texts(made.arms) if row[4] == "not among these runs"]
    assert absent == ["wpt-rehearsal-only", "wpt-guidance-only", "wpt-no-rehearsal", "wpt-no-pretrain", RANDOM_REPLAY]


def test_random_replay_is_the_control(tmp_path):
    grid(tmp_path / "runs", {RANDOM_REPLAY: 0.3}, ["walker-stand"], diagnostics={"retrieval_precision": 0.25})
    grid(tmp_path / "runs", {"wpt": 0.6}, ["walker-stand"], diagnostics={"retrieval_precision": 0.9})
    made = section(compared(tmp_path / "runs"))
    assert f"retrieval: wpt against {RANDOM_REPLAY}" in [row[0] for row in texts(made.effect_table)]
    irrelevant = {row[0]: row[-1] for row in texts(made.arms)}
    assert (irrelevant["wpt"], irrelevant[RANDOM_REPLAY], irrelevant["wpt-no-guidance"]) == ("10%", "75%", "—")


def test_one_arm_has_no_effect_to_draw(tmp_path):
    made = sections_of(tmp_path, ["wpt", "sac"])
    assert made.effects is None and made.effect_table.rows == () and made.against.rows == ()
    (row,) = texts(made.wpt_against)
    assert row[0] == "sac" and row[-1] == "2" and made.wpt_against in made.tables


def test_more_than_a_crowd_of_methods_narrows_the_first_figure_to_the_arms(tmp_path):
    arms, others = ["dreamer", "wpt"], [f"method-{number}" for number in range(CROWD - 2)]
    whole = sections_of(tmp_path / "few", [*arms, *others])
    assert whole.summary.name == "curves-state-all"
    assert {series.method for series in whole.summary.panels[0].series} == {*arms, *others}
    narrow = sections_of(tmp_path / "many", [*arms, *others, "sac"])
    assert narrow.summary.name == "curves-state-wpt"
    assert {series.method for series in narrow.summary.panels[0].series} == set(arms)
    everything = narrow.overall[0]
    assert everything.name == "curves-state-all"
    assert {series.method for series in everything.panels[0].series} == {*arms, *others, "sac"}


def test_a_crowd_without_any_arm_is_shown_whole(tmp_path):
    names = [f"method-{number}" for number in range(CROWD + 1)]
    made = sections_of(tmp_path, names)
    assert {series.method for series in made.summary.panels[0].series} == set(names)


def test_adaptation_takes_the_embodiment_with_most_tasks(tmp_path):
    made = sections_of(tmp_path, ["dreamer", "wpt", "sac"], ["cheetah-run", "walker-run", "walker-walk"])
    name, drawing, table = made.adaptation
    assert name == "walker" and [panel.title for panel in drawing.panels] == ["walker-run", "walker-walk"]
    assert {(row[0], row[1]) for row in texts(table)} == {
        (task, method) for task in ("walker-run", "walker-walk") for method in ("dreamer", "wpt")
    }
    assert sections_of(tmp_path / "one", ["dreamer", "wpt"], ["cheetah-run", "walker-run"]).adaptation is None


def test_every_figure_and_table_has_a_name_of_its_own(tmp_path):
    made = sections_of(tmp_path, [*ARMS, RANDOM_REPLAY, "sac"], ["walker-run", "walker-walk"], guided=(1.0, 0.5))
    for files in (made.drawings, made.tables):
        names = [file.name for file in files]
        assert len(names) == len(set(names)) > 8


def test_costs_are_hand_worked(tmp_path):
    for seed in range(2):
        write(tmp_path, "wpt", "walker-run", seed, flat(0.0, 0.6))
    (row,) = cost_table(compared(tmp_path)).rows
    # Straight from 0 to .6 over 10,000 steps, an update every 20 steps, a second every 50; 200 and 210 seconds in all.
    texts = [(cell.text, cell.note) for cell in row.cells]
    assert texts == [
        ("wpt", ""),
        ("3:25", "3:20 to 3:30"),
        ("500", ""),
        ("954 MiB", ""),
        ("4,167 steps", "208 updates, 1:23"),
        ("8,333 steps", "417 updates, 2:47"),
        ("not reached", ""),
    ]
    assert row.cells[4].value == pytest.approx(BUDGET * 0.25 / 0.6)


def test_a_method_without_online_steps_says_so_and_has_no_area(tmp_path):
    for seed in range(2):
        write(tmp_path, "td3-bc", "walker-run", seed, {0: [0.4, 0.4]}, online=False)
    (row,) = methods_table(compared(tmp_path)).rows
    named = dict(zip([heading.text for heading in methods_table(compared(tmp_path)).headings], row.cells, strict=True))
    shown = named["IQM [95%, rliable]"]
    assert (shown.text, shown.note) == ("0.400 (no spread)", "0 online steps")
    assert (shown.value, *shown.ends) == pytest.approx((0.4, 0.4, 0.4))
    assert named["AUC [95%, corrected]"] == Cell("—") and named["runs"].text == "2/2"


def test_what_is_saved_is_held_against_scratchs_own_steps(tmp_path):
    for seed in range(3):  # scratch passes its final .2 half way to .4, after 2,500 steps; WPT, a quarter up, as well
        more = 0.004 * (seed - 1)
        write(tmp_path, "dreamer", "a", seed, {0: [0.0], BUDGET // 2: [0.4 + more], BUDGET: [0.2 + more]})
        write(tmp_path, "wpt", "a", seed, flat(0.0, 0.8 - more))
        write(tmp_path, "wpt-no-guidance", "a", seed, flat(0.0, 0.4 - more))
        write(tmp_path, "wpt-pretrain-only", "a", seed, flat(0.0, 0.1 - more))
        write(tmp_path, "wpt-rehearsal-only", "a", seed, flat(0.0, 0.5 + 50 * more))
    shown = {row.method: [cell.text for cell in row.cells[-2:]] for row in made_against(tmp_path)}
    assert shown == {
        "wpt": ["2,500", "0%"],
        "wpt-no-guidance": ["5,000", "-100%"],
        "wpt-pretrain-only": ["not reached", "—"],
        "wpt-rehearsal-only": ["4,000", "not shown"],  # its area is .25 as scratch's
    }
    (steps, saved), *_ = ([cell.note for cell in row.cells[-2:]] for row in made_against(tmp_path))
    assert re.fullmatch(r"2,\d{3} to 2,\d{3}", steps) and re.fullmatch(r"of dreamer's 2,500 \[-\d+%, \d+%\]", saved)


def test_where_scratch_ends_as_it_began_nothing_can_be_saved(tmp_path):
    for seed in range(2):
        write(tmp_path, "dreamer", "a", seed, flat(0.0))
        write(tmp_path, "wpt", "a", seed, flat(0.0, 0.8))
    (row,) = made_against(tmp_path)
    assert [cell.text for cell in row.cells[-2:]] == ["—", "not measurable"]


def test_what_never_reaches_scratch_is_not_there_from_the_start(tmp_path):
    for seed in range(2):
        write(tmp_path, "dreamer", "a", seed, flat(0.25, 0.13))
        write(tmp_path, "wpt", "a", seed, flat(0.0))
    (row,) = made_against(tmp_path)
    assert [cell.text for cell in row.cells[-2:]] == ["not reached", "—"]


def made_against(root):
    return against_table(compared(root)).rows


def test_the_data_card_is_headed_in_words():
    row = {"embodiment": "walker", "agent_steps": 500, "best": 1.0, "median": 1.0, "mean": 1.0, "success": 0.5}
    heads = [heading.text for heading in card_table([row | {"retrieved": 2.0}]).headings]
    returns = ["best return", "median return", "mean return"]
    assert heads == ["embodiment", "agent steps", *returns, "success, last step", "retrieved, mean return"]


@pytest.mark.parametrize(("score", "label"), [("success", "IQM of success"), ("return", "IQM of return / 1000")])
def test_scores_are_drawn_from_0_to_1_under_what_they_are(tmp_path, score, label):
    for method, final in (("dreamer", 0.0), ("wpt", 0.3), ("sac", 0.0)):
        for seed in range(2):
            ends = {0: [0.0, 0.0], BUDGET: [0.0, 1.0] if score == "success" and final else [final, final]}
            write(tmp_path, method, "drawer-open", seed, ends, score=score, scale=1.0 if score == "success" else 1000.0)
    drawing = section(compared(tmp_path)).summary
    (panel,) = drawing.panels
    assert (
        panel.title == "drawer-open, 2 seeds"
        and panel.y == pytest.approx((-0.02, 1.02))
        and f">{label}<" in drawing.svg
    )
    assert "over 1 task and all seeds" in drawing.caption
    assert drawing.caption.endswith(" Lines that coincide: dreamer, sac (at 0 throughout).")


def test_an_axis_of_scores_goes_as_far_as_its_lines(tmp_path):
    for seed in range(2):
        write(tmp_path, "wpt", "a", seed, flat(-0.25, 1.5))
    (panel,) = section(compared(tmp_path)).summary.panels
    assert panel.y == pytest.approx((-0.27, 1.52))


def test_the_data_card_leaves_out_empty_columns():
    table = card_table([{"embodiment": "walker", "episodes": 9, "success": None}, {"embodiment": "x", "note": "a|b"}])
    assert table.headings == (Heading("embodiment"), Heading("episodes", True), Heading("note"))
    assert texts(table) == [["walker", "9", "—"], ["x", "—", "a|b"]]


def test_the_data_card_does_not_say_twice_where_bodies_are_scenes():
    rows = [{"embodiment": name, "scene": name, "episodes": 1200} for name in ("walker", "cheetah")]
    assert [heading.text for heading in card_table(rows).headings] == ["embodiment", "episodes"]
    assert len(card_table([*rows, {"embodiment": "walker", "scene": "wall", "episodes": 1}]).headings) == 3
    assert texts(card_table(rows))[0] == ["walker", "1,200"]


def test_of_two_tasks_nothing_is_shown_that_is_the_mean_again(tmp_path):
    for task, heads in (("a", ["mean"]), ("b", ["mean"]), ("c", ["mean", "median of tasks", "optimality gap"])):
        for seed in range(2):
            write(tmp_path, "wpt", task, seed, flat(0.1, 0.5))
        made = section(compared(tmp_path))
        assert [heading.text for heading in made.methods.headings][5:-1] == heads
        assert (">optimality gap<" in made.overall[0].svg) == (len(heads) == 3)


def test_every_method_is_shown_with_the_settings_it_ran_with(tmp_path):
    own = {"world_model": {"deter": 128}, "rehearsal": 0.25}
    its = {"units": [1.0], "discount": 0.99}
    write(tmp_path, "wpt", "a", 0, flat(0.1), settings=own, protocol=its)
    write(tmp_path, "sac", "a", 0, flat(0.1), settings={"rehearsal": None}, protocol=its)
    table = section(compared(tmp_path)).settings
    assert [heading.text for heading in table.headings] == ["setting", "sac", "wpt"]
    shown = {row[0]: row[1:] for row in texts(table)}
    assert shown["settings.world_model.deter"] == ["—", "128"] and shown["settings.rehearsal"] == ["—", "0.25"]
    assert shown["protocol.discount"] == ["0.99", "0.99"] and "protocol.units" not in shown


def test_ends_of_intervals_are_columns_of_their_own_in_csv():
    cells = (Cell("wpt"), Cell("0.500 [0.250, 0.750]", 0.5, ends=(0.25, 0.7501)))
    gap, one_seed = (Cell("sac"), Cell("—")), (Cell("iql"), Cell("0.1 (one seed)", 0.1, ends=(None, None)))
    table = Table("t", "T", headings("method", "IQM", numbers=("IQM",)), (Row(cells), Row(gap), Row(one_seed)))
    assert list(csv.reader(io.StringIO(table.csv()))) == [
        ["method", "IQM", "IQM low", "IQM high"],
        ["wpt", "0.5", "0.25", "0.7501"],
        ["sac", "—", "", ""],
        ["iql", "0.1", "", ""],
    ]
