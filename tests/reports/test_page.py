import json
import re
from html.parser import HTMLParser

import matplotlib.image
import pandas as pd
import pytest
from analysis.synthetic import flat, grid, identity, write

from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.properties import EFFECTS, IMPROVEMENT, REWARD_FREE, Declaration, declared
from wpt_bench.analysis.scores import load_runs
from wpt_bench.protocol import UserError
from wpt_bench.reports import page
from wpt_bench.reports.style import look

LEVELS = {"dreamer": 0.3, "wpt-pretrain-only": 0.35, "wpt-no-guidance": 0.45, "wpt": 0.8}
VOID = {"meta", "br", "hr", "img", "link", "input", "source"}


class Parsed(HTMLParser):
    """Collects what the tests look at, and checks that every element is closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.attributes, self.text, self.ids = [], [], [], []
        self.source = path.read_text()
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """The number of resamples is no part of what these tests are about, and most of their time."""
    monkeypatch.setattr(
        "wpt_bench.analysis.compare.compare.__kwdefaults__", {"resamples": 100, "curve_resamples": 50}, raising=True
    )


def render(root, out, **options):
    return Parsed(page.render(root, out, **{"title": "A title", "suite": "dmc", "profile": "quick", **options}))


def test_the_page_shows_every_method_task_seed_and_run(tmp_path):
    grid(tmp_path / "runs", LEVELS)
    parsed = render(tmp_path / "runs", tmp_path / "out")
    for expected in (
        *LEVELS,
        "walker-stand",
        "cheetah-run",
        "seed 0:",
        "seed 1:",
        "A title",
        "not separated",
        "[",
        "4/4",
    ):
        assert expected in parsed.words
    for grant in (
        "none (online only)",
        "reward-free",
        "the paper's; none here",
        "wpt-bench run dmc",
        "0123abcd",
    ):
        assert grant in parsed.words
    for folder in (tmp_path / "runs").iterdir():
        assert folder.name in parsed.words
    assert "16 of 16 runs finished" in parsed.words
    stage = "1 shared stage (one seed), each a pre-trained world model or an agent for all tasks, stands behind"
    assert stage in parsed.words


def test_the_page_needs_no_network(tmp_path):
    grid(tmp_path / "runs", LEVELS)
    parsed = render(tmp_path / "runs", tmp_path / "out")
    addresses = [
        value
        for _, name, value in parsed.attributes
        if name in ("src", "href", "xlink:href", "srcset", "data", "action")
    ]
    assert addresses and all(address.startswith(("#", "data:image/png;base64,")) for address in addresses)
    assert not {tag for tag, _, _ in parsed.attributes} & {"script", "link", "iframe", "object", "img"}
    assert re.findall(r"url\((?!#)|@import|https?:", parsed.source) == []


def test_figures_are_drawn_once_each_and_refer_to_their_own_parts(tmp_path):
    grid(tmp_path / "runs", LEVELS)
    parsed = render(tmp_path / "runs", tmp_path / "out")
    assert len(parsed.ids) == len(set(parsed.ids))
    references = re.findall(r'(?:xlink:href="|url\()#([^")]+)', parsed.source)
    assert references and set(references) <= set(parsed.ids)
    names = {"curves-state-all", "curves-state-walker-stand", "curves-state-cheetah-run"}
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == names
    for name in names:
        svg = (tmp_path / "out" / "figures" / f"{name}.svg").read_text()
        for method in LEVELS:
            assert method in svg
        assert all(colour in svg for colour in ("#0173b2", "#949494", "#de8f05", "#029e73"))
        picture = matplotlib.image.imread(tmp_path / "out" / "figures" / f"{name}.png")
        assert min(picture.shape[:2]) > 400 and picture[..., :3].std() > 0.02
    assert sum(tag == "svg" and name == "viewbox" for tag, name, _ in parsed.attributes) == 3
    assert "currentColor" in parsed.source and "#1b1c1d" not in parsed.source.split("</style>", 1)[1]


def test_the_files_beside_the_page_agree_with_the_records(tmp_path):
    grid(tmp_path / "runs", LEVELS)
    render(tmp_path / "runs", tmp_path / "out")
    comparison = compare(load_runs(tmp_path / "runs", suite="dmc", profile="quick"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for row, written in zip(comparison.rows, summary["tables"][0]["methods"], strict=True):
        assert (row.name, row.iqm.value, row.iqm.low) == (
            written["name"],
            written["iqm"]["value"],
            written["iqm"]["low"],
        )
        assert written["curve"]["value"][-1] == pytest.approx(row.iqm.value)
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert scores["score"].to_numpy() == pytest.approx(comparison.table.runs["score"].to_numpy())
    assert set(scores["observation"]) == {"state"} and set(scores["budget"]) == {10_000}


def test_the_same_records_give_the_same_bytes(tmp_path):
    grid(tmp_path / "runs", LEVELS, seeds=[0, 1, 2])
    for out in ("one", "two"):
        render(tmp_path / "runs", tmp_path / out)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_gaps_failures_stale_and_corrupt_records_are_on_the_page(tmp_path):
    runs = tmp_path / "runs"
    grid(runs, LEVELS)
    write(runs, "wpt", "walker-stand", 2, {}, status="failed", error="<script>alert(1)</script> & a NaN loss")
    write(runs, "wpt", "walker-stand", 0, flat(0.9), method_version=0)
    (runs / "torn").mkdir()
    (runs / "torn" / "run.json").write_text("{")
    parsed = render(runs, tmp_path / "out")
    assert "Missing: 1 run " in parsed.words and "<script>alert(1)</script> & a NaN loss" in parsed.words
    assert "<script" not in parsed.source
    assert (
        "Left out as stale or not asked for: 1 run " in parsed.words
        and "another version of the method: 0" in parsed.words
    )
    assert str(runs / "torn" / "run.json") in parsed.words
    assert "incomplete (4 of 6 runs)" in parsed.words
    assert "Not drawn, because runs are missing: wpt." in parsed.words


def test_names_with_markup_and_mathematics_are_only_text(tmp_path):
    for seed in range(2):
        write(tmp_path / "runs", "<b>&$x_1$", "a/<i>b", seed, flat(0.1, 0.2 + 0.1 * seed))
    parsed = render(tmp_path / "runs", tmp_path / "out", title="<u>")
    assert parsed.words.count("<b>&$x_1$") >= 3 and "<b>" not in parsed.source and "<u>" not in parsed.source
    assert (tmp_path / "out" / "figures" / "curves-state-a-i-b.svg").exists()


def test_extras_are_shown(tmp_path):
    grid(tmp_path / "runs", LEVELS)
    errors = [
        {"embodiment": "walker", "model": 0.31, "persistence": 0.72, "mean": 1.01, "context": 5, "horizon": 15},
        {"embodiment": "cheetah", "model": 0.93, "persistence": 0.82, "mean": 1.01, "context": 5, "horizon": 15},
    ]
    card = [
        {"embodiment": "walker", "episodes": 20, "best return": 431.5, "success": None},
        {"embodiment": "cheetah", "note": "<x>"},
    ]
    parsed = render(tmp_path / "runs", tmp_path / "out", extras={"open_loop": errors, "data_card": card})
    assert "for 1 of 2 embodiments (15 agent steps after 5 of context)" in parsed.words
    for value in ("0.310", "0.720", "1.010", "431.5", "best return", "<x>"):
        assert value in parsed.words
    assert "success" not in parsed.words and "pre-training seed" not in parsed.words


def test_an_embodiment_counts_as_predicted_only_if_every_pretraining_predicts_it(tmp_path):
    grid(tmp_path / "runs", {"wpt": 0.5})
    errors = [
        {"embodiment": name, "seed": seed, "model": model, "persistence": 0.7, "mean": 1.0}
        for name, models in {"walker": (0.3, 0.4), "cheetah": (0.3, 0.7)}.items()
        for seed, model in enumerate(models)
    ]
    words = render(tmp_path / "runs", tmp_path / "out", extras={"open_loop": errors}).words
    assert "for 1 of 2 embodiments." in words and "pre-training seed" in words


@pytest.mark.parametrize(
    "extras",
    [{"open_loop": [{"embodiment": "walker"}]}, {"open_loop": ["x"]}, {"data_card": [3]}, {"data_card": 3}],
)
def test_unusable_extras_are_a_problem_and_the_rest_is_rendered(tmp_path, extras):
    grid(tmp_path / "runs", {"wpt": 0.5})
    parsed = render(tmp_path / "runs", tmp_path / "out", extras=extras)
    assert "cannot be shown" in parsed.words and "wpt" in parsed.words


def test_state_and_pixels_have_a_table_each(tmp_path):
    grid(tmp_path / "runs", {"wpt": 0.5, "dreamer": 0.2})
    grid(tmp_path / "runs", {"wpt": 0.6}, observation="pixels")
    parsed = render(tmp_path / "runs", tmp_path / "out")
    assert "Methods from state" in parsed.words and "Methods from pixels" in parsed.words
    assert (tmp_path / "out" / "figures" / "curves-pixels-all.png").exists()
    assert len(json.loads((tmp_path / "out" / "summary.json").read_text())["tables"]) == 2
    assert len(pd.read_csv(tmp_path / "out" / "scores.csv")) == 12


def test_an_offline_only_method_is_a_dashed_line(tmp_path):
    grid(tmp_path / "runs", {"dreamer": 0.3})
    for task in ("walker-stand", "cheetah-run"):
        for seed in range(2):
            write(tmp_path / "runs", "td3-bc", task, seed, {0: [0.4 + 0.1 * seed, 0.5]}, online=False)
    parsed = render(tmp_path / "runs", tmp_path / "out")
    assert "td3-bc (0 online steps)" in parsed.words
    for name in ("all", "walker-stand"):
        assert "stroke-dasharray" in (tmp_path / "out" / "figures" / f"curves-state-{name}.svg").read_text()


def test_one_seed_says_that_it_has_no_interval(tmp_path):
    grid(tmp_path / "runs", {"dreamer": 0.3, "wpt": 0.9}, seeds=[0])
    assert "(one seed: no interval)" in render(tmp_path / "runs", tmp_path / "out").words


def test_a_grid_of_which_nothing_is_finished_is_a_page_of_gaps(tmp_path):
    write(tmp_path / "runs", "wpt", "a", 0, {}, status="running")
    expected = [identity("wpt", "a", 0), identity("dreamer", "a", 0)]
    parsed = render(tmp_path / "runs", tmp_path / "out", expected=expected)
    assert "0 of 2 runs finished" in parsed.words and "Missing: 2 runs" in parsed.words


def test_an_empty_folder_is_one_sentence_and_no_page(tmp_path):
    with pytest.raises(UserError, match="holds no runs"):
        render(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


DECLARED = declared(
    [Declaration("dreamer", "From scratch", "none", True), Declaration("wpt", "WPT", "reward-free", True)]
)


def test_table_one_is_on_the_page_twice_with_its_rules_and_in_the_summary(tmp_path):
    grid(tmp_path / "runs", LEVELS)
    parsed = render(tmp_path / "runs", tmp_path / "out", declared=DECLARED)
    assert "Declared by the code" in parsed.words and "Measured by the runs" in parsed.words
    assert parsed.words.count("MT offline RL") >= 2 and "✓" in parsed.words
    for name, effect in EFFECTS.items():
        assert parsed.words.count(name) >= 4 and effect in parsed.words
    assert "Not measured, all of Offline RL, Off2On RL" in parsed.words
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    measured = compare(load_runs(tmp_path / "runs", suite="dmc", profile="quick")).properties
    written = summary["tables"][0]["measured"][REWARD_FREE]["WPT"]
    assert written["effect"]["low"] == measured.cell(REWARD_FREE, "WPT").effect.low
    assert written["methods"] == ["wpt", "wpt-no-guidance", "wpt-pretrain-only"]
    assert summary["declared"][IMPROVEMENT]["WPT"]["verdict"] == "yes"
    assert f"{written['effect']['value']:.3f} [" in parsed.words


def test_without_declarations_only_the_measured_table_is_shown(tmp_path):
    grid(tmp_path / "runs", LEVELS)
    parsed = render(tmp_path / "runs", tmp_path / "out")
    assert "Declared by the code" not in parsed.words and "Measured by the runs" in parsed.words
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["declared"] is None


def test_the_tuning_budget_is_on_the_page_and_in_the_summary(tmp_path):
    grid(tmp_path / "runs", {"wpt": 0.5}, tuning_evaluations=1110)
    assert "1,110" in render(tmp_path / "runs", tmp_path / "out").words
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["tables"][0]["methods"][0]["tuning_evaluations"] == 1110


def test_published_scores_stand_behind_the_curves_they_reach(tmp_path):
    for task in ("walker-walk", "walker-backflip"):
        for seed in range(2):
            write(tmp_path / "runs", "wpt", task, seed, {0: [0.0], 150_000: [0.5]}, budget=150_000)
    parsed = render(tmp_path / "runs", tmp_path / "out")
    figures = tmp_path / "out" / "figures"
    walk = (figures / "curves-state-walker-walk.svg").read_text()
    assert "SAC (pytorch_sac)" in walk and "SAC(UTD2) (simba)" in walk and "DrQ-v2" not in walk
    assert "pytorch_sac" not in (figures / "curves-state-walker-backflip.svg").read_text()
    assert "pytorch_sac" not in (figures / "curves-state-all.svg").read_text()
    assert "Published scores at the budget" in parsed.words and "0.874" in parsed.words
    assert parsed.words.count("Dotted grey: published scores") == 1


def test_shorter_runs_have_nothing_published_beside_them(tmp_path):
    grid(tmp_path / "runs", {"wpt": 0.5}, tasks=["walker-walk"])
    parsed = render(tmp_path / "runs", tmp_path / "out")
    assert "Published scores" not in parsed.words and "published scores" not in parsed.words
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["tables"][0]["published"] == []


def test_methods_of_every_kind_of_line_are_drawn(tmp_path):
    """Names whose looks have a line of a name, and of numbers: both among all tasks and in one."""
    names = ["dreamer", "awac", "uds", "method-0", "method-1", "method-2", "method-3", "method-4"]
    grid(tmp_path / "runs", dict.fromkeys(names, 0.3))
    assert {type(look(name).line) for name in names} == {str, tuple}
    words = render(tmp_path / "runs", tmp_path / "out").words
    assert all(words.count(name) > 4 for name in names)


def test_provenance_that_differs_is_shown_for_each_run(tmp_path):
    for seed, command in enumerate(["nox -s bench-dmc", "wpt-bench run --seeds 1"]):
        write(tmp_path / "runs", "wpt", "a", seed, flat(0.5), provenance={"command": command, "threads": 1})
    words = render(tmp_path / "runs", tmp_path / "out").words
    assert "nox -s bench-dmc" in words and "wpt-bench run --seeds 1" in words and "threads 1" in words
