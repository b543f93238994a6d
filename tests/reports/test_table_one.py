from io import StringIO

import pytest
from analysis.synthetic import grid, write
from rich.console import Console

from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.properties import FAMILIES, Declaration, declared
from wpt_bench.analysis.scores import load_runs
from wpt_bench.reports.table_one import show_declared, show_measured

METHODS = (
    Declaration("iql", "Offline RL", "labelled", False),
    Declaration("td3-bc", "Offline RL", "demonstrations", False),
    Declaration("wpt", "WPT", "reward-free", True),
    Declaration("dreamer", "From scratch", "none", True),
)


def printed(width, show, what):
    console = Console(file=StringIO(), width=width)
    show(what, console)
    return console.file.getvalue()


def symbols(text, start):
    """The cells of the row that begins so, without the property's name."""
    line = next(line for line in text.splitlines() if line.lstrip().startswith(start))
    return [word for word in line.split() if word in ("✓", "✗", "—", "some", "n/m")]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_declared_cells_in_the_order_of_the_families(width):
    text = printed(width, show_declared, declared(METHODS))
    assert symbols(text, "reward-free") == ["some", "—", "—", "—", "—", "✓", "—", "—"]
    assert symbols(text, "continual") == ["✗", "—", "—", "—", "—", "✓", "—", "✓"]
    assert all(word in text.split() for family in FAMILIES for word in family.split())
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 140])
def test_measured_cells_with_their_figures(tmp_path, width):
    grid(tmp_path, {"dreamer": 0.2, "wpt": 0.9}, spread=0.01)
    comparison = compare(load_runs(tmp_path, suite="dmc", profile="quick"), resamples=200, curve_resamples=20)
    text = printed(width, show_measured, comparison)
    assert symbols(text, "reward-free") == [*["n/m"] * 5, "✓", "n/m", "—"]
    assert symbols(text, "non-expert") == [*["n/m"] * 7, "—"]
    assert symbols(text, "continual") == [*["n/m"] * 5, "✓", "n/m", "✓"]
    figures = next(line for line in text.splitlines() if line.startswith("training stability, figures"))
    assert "WPT" in figures and "spread 0." in figures and "drawdown 0." in figures and "(wpt)" in figures
    assert "n/m: not measured, or not measurable by these runs. The report says what each property means" in text


def test_families_in_brackets_are_no_markup(tmp_path):
    text = printed(140, show_declared, declared([Declaration("x", "[bold]mine[/bold]", "none", True)]))
    assert "[bold]mine[/bold]" in text


def test_a_table_without_any_finished_run_is_printed(tmp_path):
    write(tmp_path, "wpt", "a", 0, {}, status="running")
    comparison = compare(load_runs(tmp_path, suite="dmc", profile="quick"))
    assert symbols(printed(80, show_measured, comparison), "training") == ["n/m"] * 8
