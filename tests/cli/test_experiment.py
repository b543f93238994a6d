"""Every experiment as a person starts it, at ``smoke`` on real simulators: its runs, its page, and a second call."""

import html
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.test_cli import MINE
from wpt_bench import experiments, records
from wpt_bench.cli import app

CASES = {
    "metaworld": {
        "ablation": "drawer-open",
        "data": "drawer-open",
        "sensitivity": "drawer-open",
        "details": "reach",
        "broken": "reach",
    },
    "dmc": {"embodiments": "walker-stand", "adaptation": ""},
}

TWICE = ("data", "adaptation")
"""Which are called a second time, when everything is made."""


def test_every_experiment_has_a_case() -> None:
    assert sorted(name for cases in CASES.values() for name in cases) == experiments.names()


@pytest.mark.parametrize("suite", CASES)
def test_from_nothing_to_a_page(suite: str, tmp_path: Path) -> None:
    for name, tasks in CASES[suite].items():
        page = tmp_path / "reports" / f"{suite}-smoke-{name}" / "report.html"
        arguments = ["experiment", name, "--suite", suite, "--profile", "smoke", "--seeds", "0", "--out", str(tmp_path)]
        arguments += ["--yes", *(["--tasks", tasks] if tasks else [])]
        first = CliRunner().invoke(app, arguments)
        assert first.exit_code == 0, first.output + first.stderr
        question = experiments.load(name).question
        assert question in html.unescape(page.read_text()) and str(page) in first.stdout.replace("\n", "")
        plans, problems = records.find_plans(tmp_path / "experiments", suite, "smoke")
        (plan,) = [one for one in plans if one.name == name]
        wanted = {records.digest(run) for arm in plan.arms for run in arm.runs}
        folders = [tmp_path / "runs" / run_id for run_id in wanted]
        assert not problems and {records.read_run(folder).status for folder in folders} == {"done"}
        if name not in TWICE:
            continue
        times = {folder: (folder / records.RECORD).stat().st_mtime_ns for folder in folders}
        again = CliRunner().invoke(app, [*arguments, "--json"])
        assert again.exit_code == 0, again.output + again.stderr
        assert {folder: (folder / records.RECORD).stat().st_mtime_ns for folder in folders} == times
        assert json.loads(again.stdout)


SMALL = Path(__file__).with_name("small.toml")


def test_other_seeds_add_to_what_was_begun_until_a_level_changes(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.toml", tmp_path / "out"
    mine.write_text(MINE)

    def call(*options: str) -> tuple[list[tuple[int, int]], str, str]:
        arguments = ["experiment", str(mine), "--profile", str(SMALL), "--out", str(out), "--workers", "1", "--json"]
        made = CliRunner().invoke(app, [*arguments, *options])
        assert made.exit_code == 0, made.output + made.stderr
        told = json.loads(made.stdout)
        arms = told["factors"][0]["arms"]
        return [(arm["done"], arm["expected"]) for arm in arms], made.stderr, Path(told["report"]).read_text()

    def status(*options: str) -> list[tuple[str, int, list[str], str]]:
        arguments = ["status", "dmc", "--profile", str(SMALL), "--out", str(out), "--methods", "dreamer", "--json"]
        told = CliRunner().invoke(app, [*arguments, *options])
        assert told.exit_code == 0, told.output + told.stderr
        return [(run["task"], run["seed"], run["experiment"], run["status"]) for run in json.loads(told.stdout)]

    assert call("--seeds", "0")[0] == [(1, 1), (1, 1)]
    runs = sorted((out / "runs").iterdir())
    found, said, page = call("--seeds", "1")
    assert found == [(2, 2), (2, 2)] and "in no report" not in said and "--seeds 0,1<" in page
    found, _, page = call("--seeds", "1", "--tasks", "cartpole-swingup")
    assert found == [(3, 4), (3, 4)] and "--tasks cartpole-balance,cartpole-swingup --seeds 0,1<" in page
    assert "2 of 8 runs are missing" in page and len(list((out / "runs").iterdir())) == 6
    swingup = status("--tasks", "cartpole-swingup", "--seeds", "0,1")
    assert swingup == [
        ("cartpole-swingup", seed, [f"mine/horizon/{level}"], "pending" if seed == 0 else "done")
        for seed, level in ((0, "profile"), (1, "profile"), (0, "3"), (1, "3"))
    ]
    mine.write_text(MINE.replace("3", "2"))
    found, said, page = call("--seeds", "0")
    assert found == [(1, 1), (1, 1)] and "other data, versions, levels or sequences" in said
    assert all(folder.is_dir() for folder in runs)
    assert status() == [
        ("cartpole-balance", 0, ["mine/horizon/profile"], "done"),
        ("cartpole-balance", 0, ["mine/horizon/2"], "done"),
        ("cartpole-balance", 0, [], "stale"),
    ]
