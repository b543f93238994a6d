import json
import re

import matplotlib.image
import pandas as pd
import pytest
from analysis.synthetic import flat, grid, identity, write

from reports.parsed import render
from wpt_bench.analysis.compare import compare
from wpt_bench.analysis.diagnostics import READING
from wpt_bench.analysis.factorial import ARMS, RANDOM_REPLAY
from wpt_bench.analysis.properties import EFFECTS, IMPROVEMENT, REWARD_FREE, Declaration, declared
from wpt_bench.analysis.scores import load_runs
from wpt_bench.data.card import ALL
from wpt_bench.protocol import UserError
from wpt_bench.records import digest
from wpt_bench.reports.figures.curves import DIAGNOSTICS
from wpt_bench.reports.style import look

LEVELS = {"dreamer": 0.3, "wpt-pretrain-only": 0.35, "wpt-no-guidance": 0.45, "wpt": 0.8}


def test_the_page_shows_every_method_task_seed_and_run(plain):
    words = plain.parsed.words
    shown = (*LEVELS, "walker-stand", "cheetah-run", "seed 0:", "seed 1:", "A title", "not separated", "[", "4/4")
    grants = ("none (online only)", "reward-free", "the paper's; none here", "wpt-bench run dmc", "0123abcd")
    runs = [folder.name for folder in plain.runs.iterdir()]
    assert len(runs) == 16 and not {text for text in (*shown, *grants, *runs) if text not in words}
    assert "16 of 16 runs finished" in words
    assert "start from one pre-trained world model, or one agent for all tasks, trained with one seed: " in words


def test_the_page_needs_no_network_and_runs_nothing_but_its_own_script(plain, full):
    plain.parsed.check_harmless()
    full.parsed.check_harmless()


def test_every_link_has_its_target_and_no_two_elements_one_name(full):
    links = [value for tag, name, value in full.parsed.attributes if (tag, name) == ("a", "href")]
    assert {"#summary", "#provenance", "#gaps"} <= set(links)
    assert len(full.parsed.ids) == len(set(full.parsed.ids))


HOSTILE = (
    "</script><script>alert(1)</script>",
    "</SCRIPT ><svg onload=alert(1)>",
    "<!--<script>",
    'a"b\' onfocus="alert(1)',
    "'\" autofocus x=",
    "&amp;&lt;$x_1$ {{ 7 * 7 }}",
    "two\nlines",
    "{method:}",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_ends_a_script_or_becomes_markup(tmp_path, name):
    """As the name of a method, a task and an error, all of which reach tables, figures and the values to hover."""
    for seed in range(2):
        write(tmp_path / "runs", name, f"walker-{name}", seed, flat(0.1, 0.2 + 0.1 * seed))
        write(tmp_path / "runs", "dreamer", f"walker-{name}", seed, flat(0.1))
    write(tmp_path / "runs", "dreamer", f"walker-{name}", 2, {}, status="failed", error=name)
    parsed = render(tmp_path / "runs", tmp_path / "out", title=name, command=name)
    parsed.check_harmless()
    assert parsed.words.count(" ".join(name.split())) >= 9
    panels = [panel for panels in parsed.panels.values() for panel in panels]
    assert name in {series["method"] for panel in panels for series in panel["series"]}
    # Whatever belongs to the method says so in the same words, or a reader could not hide it.
    assert set(parsed.of("data-toggle")) == {name, "dreamer"}
    assert set(parsed.of("data-method")) == {name, *ARMS, RANDOM_REPLAY}


def test_diagnostics_are_shown_and_how_to_read_them(plain, full):
    words = full.parsed.words
    assert all(" ".join(text.split()) in words for pair in READING.items() for text in pair)
    table = pd.read_csv(full.out / "tables" / "diagnostics-state.csv", na_values="—")
    own = table[(table["task"] == "walker-run") & (table["method"] == "wpt")].iloc[0]
    assert own.drop(["task", "method"]).to_dict() == {
        "open loop vs persistence": pytest.approx(0.25),
        "reward error vs mean": pytest.approx(1.25),
        "value bias": -8.0,
        "distance to retrieved": 1.25,
        "prior alone": pytest.approx(0.325),
        "retrieved from": "walker 75%, cheetah 25%",
    }
    assert "error 0.05" in words and "12 predicted, 20 bootstrapped" in words and "return 325" in words
    scratch = table[(table["task"] == "walker-run") & (table["method"] == "dreamer")].iloc[0]
    assert scratch[["distance to retrieved", "prior alone", "retrieved from"]].isna().all()
    assert not {"sac", "td3-bc"} & set(table["method"])
    panels = {panel["title"]: panel for panel in full.parsed.panels["diagnostics-state"]}
    assert set(panels) == {title for title, _, _ in DIAGNOSTICS.values()} - {"return, no score here"}
    lines = {series["method"]: series["y"] for series in panels["distance to retrieved"]["series"]}
    assert set(lines) == {method for method, on in ARMS.items() if on[1]} | {RANDOM_REPLAY}
    assert lines["wpt"] == [1.25] * 11
    ours = full.summary["tables"][0]["diagnostics"]
    assert {(one["method"], one["task"]) for one in ours} == set(zip(table["method"], table["task"], strict=True))
    missing = "Missing: none of these runs was diagnosed."
    assert words.count(missing) == 1 and plain.parsed.words.count(missing) == 1


def test_figures_are_on_the_page_once_each_and_beside_it_in_every_format(full):
    files = sorted(full.out.joinpath("figures").iterdir())
    names = {path.stem for path in files}
    assert {
        "curves-state-wpt",
        "effects-state",
        "guidance-state",
        "diagnostics-state",
        "curves-pixels-all",
        "open-loop-error",
    } <= names
    formats = ("svg", "png", "pdf")
    assert sorted(path.name for path in files) == sorted(f"{name}.{end}" for name in names for end in formats)
    drawn = [name for name in full.parsed.of("id") if name.startswith("figure-")]
    assert sorted(drawn) == sorted(f"figure-{name}" for name in names)
    assert sum(tag == "svg" and name == "viewbox" for tag, name, _ in full.parsed.attributes) == len(names)
    assert set(full.parsed.panels) == set(full.parsed.of("data-figure")) <= names
    for path in files:
        if path.suffix == ".png":
            picture = matplotlib.image.imread(path)
            assert min(picture.shape[:2]) > 180 and picture[..., :3].std() > 0.02, path
        elif path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-") and path.read_bytes().rstrip().endswith(b"%%EOF")


def test_figures_name_their_methods_and_have_their_colours(plain):
    for name in ("curves-state-all", "curves-state-walker-stand", "intervals-state", "curves-state-embodiments"):
        svg = (plain.out / "figures" / f"{name}.svg").read_text()
        assert {method for method in LEVELS if f">{method}<" not in svg or look(method).colour not in svg} == set()
    assert "currentColor" in plain.parsed.source and "#1b1c1d" not in plain.parsed.source.split("</style>", 1)[1]


def test_tables_are_on_the_page_and_beside_it_as_markdown_and_csv(full):
    files = sorted(full.out.joinpath("tables").iterdir())
    names = {path.stem for path in files}
    assert {"methods-state", "methods-pixels", "arms-state", "effects-state", "data-card", "missing-state"} <= names
    assert sorted(path.name for path in files) == sorted(f"{name}.{end}" for name in names for end in ("md", "csv"))
    words = full.parsed.words
    for path in files:
        cells = [cell for line in path.read_text().splitlines() for cell in line.strip("| ").split(" | ")]
        if path.suffix == ".md":
            assert {cell for cell in cells if not set(cell) <= set("-: |") and cell.strip() not in words} == set(), path
    methods = pd.read_csv(full.out / "tables" / "methods-state.csv")
    written = {row["name"]: row["iqm"]["value"] for row in full.summary["tables"][0]["methods"] if "iqm" in row}
    assert len(written) == 11
    read = methods.set_index("method")["IQM [95%, rliable]"][list(written)].astype(float)
    assert read.to_dict() == pytest.approx(written, abs=0)


def test_the_files_beside_the_page_agree_with_the_records(plain):
    comparison = compare(load_runs(plain.runs, suite="dmc", profile="quick"))
    for row, written in zip(comparison.rows, plain.summary["tables"][0]["methods"], strict=True):
        iqm = written["iqm"]
        assert (row.name, row.iqm.value, row.iqm.low) == (written["name"], iqm["value"], iqm["low"])
        assert written["curve"]["value"][-1] == pytest.approx(row.iqm.value)
        assert f"{iqm['value']:.3f} [{iqm['low']:.3f}, {iqm['high']:.3f}]" in plain.parsed.words
    (panel,) = plain.parsed.panels["curves-state-all"]
    hovered = {series["method"]: (series["x"], series["y"], series["low"]) for series in panel["series"]}
    for row in comparison.rows:
        curve = row.curve
        assert hovered[row.name] == (curve.env_steps.tolist(), curve.value.tolist(), curve.low.tolist())
    scores = pd.read_csv(plain.out / "scores.csv")
    assert scores["score"].to_numpy() == pytest.approx(comparison.table.runs["score"].to_numpy())
    assert set(scores["observation"]) == {"state"} and set(scores["budget"]) == {10_000}


def test_the_same_records_give_the_same_bytes(tmp_path):
    grid(tmp_path / "runs", LEVELS, seeds=[0, 1, 2])
    for out in ("one", "two"):
        render(tmp_path / "runs", tmp_path / out)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_every_kind_of_gap_is_on_the_page_and_the_rest_is_rendered(tmp_path):
    runs = tmp_path / "runs"
    grid(runs, LEVELS)
    error = "<script>alert(1)</script> & a NaN loss"
    write(runs, "wpt", "walker-stand", 2, {}, status="failed", error=error)
    write(runs, "wpt", "walker-stand", 0, flat(0.9), method_version=0)
    for name, record in (("torn", "{"), ("future", json.dumps({"schema": 99})), ("list", "[]")):
        (runs / name).mkdir()
        (runs / name / "run.json").write_text(record)
    (runs / "bare").mkdir()
    with (runs / digest(identity("dreamer", "walker-stand", 0)) / "episodes.jsonl").open("a") as file:
        file.write('{"kind":"evaluation","env_st')  # cut off while it was written: what stands before it counts
    spoilt = runs / digest(identity("wpt-no-guidance", "cheetah-run", 1))
    (spoilt / "episodes.jsonl").write_text("not a record\n")
    expected = [
        identity(method, task, seed)
        for method in LEVELS
        for task in ("walker-stand", "cheetah-run")
        for seed in (0, 1, *([2] if method == "wpt" else []))
    ]
    parsed = render(runs, tmp_path / "out", expected=expected)
    words = parsed.words
    parsed.check_harmless()
    # Three are missing of what is expected: the failed one, the one that was never begun, the spoilt one.
    assert "Missing: 3 runs" in words and "15 of 18 runs finished" in words
    assert "3 of 18 runs are missing; what is not in the figures says which and why." in words
    assert error in words and words.count("wpt cheetah-run 2 pending no usable record of it") == 1
    assert (
        "Left out as stale, not asked for, or of a task under way: 1 run " in words
        and "another version of the method" in words
    )
    problems = words[words.index("Problems") : words.index("Does wpt, with its offline data")]
    for name in ("torn/run.json", "future/run.json", "list/run.json"):
        assert str(runs / name) in problems
    assert "schema 99" in problems and str(spoilt / "episodes.jsonl") in words
    assert "incomplete (4 of 6 runs)" in words and "incomplete (3 of 4 runs)" in words
    assert "Not drawn, because runs are missing: wpt-no-guidance, wpt." in words
    assert "wpt-pretrain-only reaches IQM 0." in words


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
    assert "On average over 15 agent steps after 5 of context, the world model predicts better than" in parsed.words
    assert "for 1 of 2 embodiments." in parsed.words and "Step by step" not in parsed.words
    for value in ("0.310", "0.720", "1.010", "431.5", "best return", "<x>"):
        assert value in parsed.words
    assert "success, last step" not in parsed.words and "pre-training seed" not in parsed.words


def test_data_is_counted_once_however_many_tasks_and_collectors_the_card_has(tmp_path):
    """Two collectors of walker with 10 and 20 episodes, judged by two tasks each; one of cheetah with 5, in none."""
    grid(tmp_path / "runs", {"wpt": 0.5})
    sizes = {("walker", "noise"): 10, ("walker", "curious"): 20, ("walker", ALL): 30, ("cheetah", "noise"): 5}
    card = [
        {"embodiment": body, "scene": body, "task": f"{body}-{task}", "collector": collector}
        | {"episodes": episodes, "agent_steps": 100 * episodes}
        for (body, collector), episodes in sizes.items()
        for task in (("walk", "run") if body == "walker" else ("none",))
    ]
    words = render(tmp_path / "runs", tmp_path / "out", extras={"data_card": card}).words
    assert "Data: 35 episodes of 3,500 agent steps." in words


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


def test_state_and_pixels_have_their_own_part_of_every_section(full):
    words = full.parsed.words
    assert words.count("From state") == words.count("From pixels") == 8
    labels = full.parsed.of("aria-label")
    for table in ("Methods", "Against dreamer", "Scores per task", "Cost", "Every run"):
        assert f"{table} from state" in labels and f"{table} from pixels" in labels
    assert [table["observation"] for table in full.summary["tables"]] == ["state", "pixels"]
    scores = pd.read_csv(full.out / "scores.csv")
    assert scores.groupby("observation").size().to_dict() == {"pixels": 4, "state": 69}


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
    assert "Table 1, declared by the code" in parsed.words and "Table 1, measured by the runs" in parsed.words
    assert parsed.words.count("MT offline RL") >= 2 and "✓" in parsed.words
    for name, effect in EFFECTS.items():
        assert parsed.words.count(name) >= 4 and effect in parsed.words
    assert "Not measured, all of Offline RL, Off2On RL" in parsed.words
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    measured = compare(load_runs(tmp_path / "runs", suite="dmc", profile="quick")).properties
    written = summary["tables"][0]["measured"][REWARD_FREE]["WPT"]
    assert written["effect"]["low"] == measured.cell(REWARD_FREE, "WPT").effect.low
    assert written["methods"] == ["wpt"]
    assert summary["declared"][IMPROVEMENT]["WPT"]["verdict"] == "yes"
    assert f"{written['effect']['value']:.3f} [" in parsed.words


def test_without_declarations_only_the_measured_table_is_shown(plain):
    assert "declared by the code" not in plain.parsed.words and "measured by the runs" in plain.parsed.words
    assert plain.summary["declared"] is None


def test_what_a_section_lacks_is_said(tmp_path):
    grid(tmp_path / "runs", {"dreamer": 0.3}, ["walker-stand"])
    words = render(tmp_path / "runs", tmp_path / "out").words
    for gap in (
        "none of these runs starts from a pre-trained model",
        "a model for each embodiment alone",
        "among the methods' own runs no embodiment has two or more tasks",
        "one agent carried from task to task",
        "the control with random episodes",
        "no run here was guided",
        "no run here uses offline data",
        "no finished pre-training left its open-loop errors",
        "the data set is not at hand",
    ):
        assert f"Missing: {gap}" in words, gap
    assert "Missing for main effects and interactions: wpt-pretrain-only, wpt-rehearsal-only" in words


def test_what_a_section_has_is_not_said_to_be_missing(full):
    gaps = re.findall(r"Missing: ([^.;:]*)", full.parsed.words.split("From state", 1)[1])
    assert "no run here was guided" in gaps  # from pixels
    only_pixels = full.parsed.words.count("Missing: no run here was guided")
    assert only_pixels == 1 and "Missing: no finished pre-training" not in full.parsed.words
    assert full.parsed.words.count("Missing for main effects") == 1
    assert full.parsed.words.count("Missing: the control") == 1


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
