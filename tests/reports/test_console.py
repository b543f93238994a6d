from io import StringIO

import pytest
from analysis.synthetic import flat, grid, write
from rich.console import Console

from wpt_bench import registry
from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.scores import load_runs
from wpt_bench.reports.console import duration, show
from wpt_bench.reports.style import PUBLISHED, PUBLISHED_MARKERS, look


def shown(root, width=120):
    console = Console(file=StringIO(), width=width)
    show(compare(load_runs(root, suite="dmc", profile="quick"), resamples=100, curve_resamples=20), console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_console_table_names_method_score_grant_and_runs(tmp_path, width):
    grid(tmp_path, {"dreamer": 0.3, "wpt": 0.9}, spread=0.01)
    text = shown(tmp_path, width)
    for expected in ("dreamer", "wpt", "reward-free", "IQM", "AUC", "4/4", "3:25", "separated, wpt is higher;"):
        assert expected in text
    assert "environment steps" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_tuning_budget_stands_beside_the_score(tmp_path, width):
    grid(tmp_path, {"dreamer": 0.3}, spread=0.01, tuning_evaluations=1234)
    write(tmp_path, "wpt-pretrain-only", "walker-stand", 0, flat(0.9), status="failed", error="NaN")
    scratch, missing = (
        next(line.split() for line in shown(tmp_path, width).splitlines() if line.lstrip().startswith(name))
        for name in ("dreamer", "wpt-pretrain-only")
    )
    assert scratch[-4] == "1,234" and scratch[-2:] == ["4/4", "3:25"]
    assert missing[-4:] == ["—", "—", "0/2", "—"]
    assert "tuned: evaluations of online performance" in shown(tmp_path, width)
    assert max(len(line) for line in shown(tmp_path, width).splitlines() if "4/4" in line) <= width


def test_gaps_are_said_on_the_console(tmp_path):
    grid(tmp_path, {"dreamer": 0.3, "wpt": 0.9})
    write(tmp_path, "wpt", "walker-stand", 2, flat(0.9), status="failed", error="NaN")
    write(tmp_path, "wpt", "walker-stand", 0, flat(0.9), method_version=0)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("[red]")
    text = shown(tmp_path)
    assert "incomplete" in text and "(4 of 6 runs)" in text
    assert (
        "1 run missing; the report lists it." in text
        and "1 run left out as stale, not asked for, or of a task under way; the report lists it." in text
    )
    assert str(tmp_path / "bad" / "run.json") in text


def test_names_in_brackets_are_no_markup(tmp_path):
    write(tmp_path, "[bold]x[/bold]", "a", 0, flat(0.5))
    assert "[bold]x[/bold]" in shown(tmp_path)


def test_durations():
    assert [duration(seconds) for seconds in (None, 0, 59.6, 3599, 3600, 86400)] == [
        "—",
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "24:00:00",
    ]


BASELINES = {
    "Offline RL": ("iql", "td3-bc", "cql"),
    "Off2On RL": ("cal-ql", "iql-finetune", "awac"),
    "RLPD": ("rlpd",),
    "MT IL": ("mt-bc",),
    "MT offline RL": ("mt-iql", "mt-td3-bc"),
    "Reward-free comparators": ("uds", "explore", "jsrl-bc"),
    "From scratch": ("dreamer", "sac", "drqv2"),
}


def test_baselines_share_the_line_of_their_family_and_differ_in_marker_and_colour():
    for family in BASELINES.values():
        assert len({look(name).line for name in family}) == 1
        assert len({look(name).marker for name in family}) == len(family)
    names = [name for family in BASELINES.values() for name in family]
    colours = {look(name).colour for name in names}
    assert len(colours) == len(names)
    ours = {look(name).colour for name in registry.methods() if name.startswith("wpt")}
    strangers = {look(f"method-{number}").colour for number in range(200)}
    assert not colours & (ours | strangers | {PUBLISHED})


def test_published_scores_look_like_no_method():
    names = [*registry.methods(), *(name for family in BASELINES.values() for name in family)]
    assert not {look(name).marker for name in names} & set(PUBLISHED_MARKERS)
    assert ":" not in {look(name).line for name in names}


def test_every_method_of_ours_has_a_colour_of_its_own_that_no_other_method_gets():
    ours = [
        "dreamer",
        "wpt",
        *(f"wpt-{arm}" for arm in ("no-guidance", "no-rehearsal", "no-pretrain", "random-replay")),
        *(f"wpt-{arm}-only" for arm in ("pretrain", "rehearsal", "guidance")),
    ]
    colours = {look(name).colour for name in ours}
    assert len(colours) == len(ours)
    others = [look(f"method-{number}") for number in range(200)]
    assert not colours & {other.colour for other in others}
    assert len(set(others)) > 100
    assert others == [look(f"method-{number}") for number in range(200)]
