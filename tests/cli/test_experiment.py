"""Every experiment as a person starts it, at ``smoke`` on real simulators: its runs, its page, and a second call."""

import html
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wpt_bench import experiments, records
from wpt_bench.cli import app

CASES = {
    "metaworld": {"ablation": "drawer-open", "data": "drawer-open", "sensitivity": "drawer-open", "details": "reach"},
    "dmc": {"embodiments": "walker-stand", "adaptation": ""},
}


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
        times = {folder: (folder / records.RECORD).stat().st_mtime_ns for folder in folders}
        again = CliRunner().invoke(app, [*arguments, "--json"])
        assert again.exit_code == 0, again.output + again.stderr
        assert {folder: (folder / records.RECORD).stat().st_mtime_ns for folder in folders} == times
        assert json.loads(again.stdout)
