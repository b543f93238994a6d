"""The example's workflow for a CI service: its commands exist, and its verdict is the gate's."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from analysis.synthetic import flat, write

from wpt_bench import profiles
from wpt_bench.cli import app
from wpt_bench.running.plan import Layout

EXAMPLE = Path(__file__).parent / "example_method"
WORKFLOW = EXAMPLE / ".github" / "workflows" / "regression.yml"
(JOB,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
BASELINE = Path("baseline", "metaworld-gate")


def commands() -> list[list[str]]:
    """Arguments of every call of wpt-bench, those in comments first."""
    lines = [line.strip().removeprefix("#").removeprefix("run:").strip() for line in WORKFLOW.read_text().splitlines()]
    return [shlex.split(line.partition("||")[0])[1:] for line in lines if line.startswith("wpt-bench ")]


def parsed(name: str, *arguments: str) -> dict[str, object]:
    """What the command line makes of a command's arguments; the error that users are told if it does not take them."""
    return typer.main.get_command(app).commands[name].make_context(name, list(arguments)).params


def script(name: str) -> str:
    (found,) = (step["run"] for step in JOB["steps"] if step.get("name") == name)
    return found


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_the_command_line_takes_its_commands(arguments: list[str]) -> None:
    assert parsed(*arguments).get("profile", "") in ("", *profiles.names())
    with pytest.raises(Exception, match="No such option"):
        parsed(*arguments, "--marign", "0.1")


def test_its_folders_are_those_that_the_commands_make() -> None:
    assert [arguments[0] for arguments in commands()] == ["run", "publish", "run", "compare"]
    before, publish, now, compare = (parsed(*arguments) for arguments in commands())
    assert before["out"] == now["out"] == publish["out"] == compare["candidate"]
    assert compare["baseline"] == publish["to"] / f"{now['suite']}-{now['profile']}" == BASELINE
    assert (before["suite"], before["profile"]) == (now["suite"], now["profile"])
    assert before["methods"] == now["methods"] == compare["methods"]
    (kept,) = (step["with"]["path"] for step in JOB["steps"] if step.get("uses", "").startswith("actions/cache@"))
    assert Layout(now["out"]).data(now["suite"], now["profile"]).parent == Path(kept)


def test_what_the_cache_goes_by_exists() -> None:
    (key,) = (step["with"]["key"] for step in JOB["steps"] if step.get("uses", "").startswith("actions/cache@"))
    patterns = [part for part in key.split("'") if part.startswith("wpt-bench/")]
    assert len(patterns) == 2
    assert all(list(EXAMPLE.parents[2].glob(pattern.removeprefix("wpt-bench/"))) for pattern in patterns)


def test_the_method_would_run(run, target: Path, example: Path) -> None:
    """As a package beside the wheel, with the profile as it is."""
    arguments = commands()[2]
    done = run(str(target / "bin" / "wpt-bench"), *arguments, "--dry-run", also=(example,))
    assert done.returncode == 0, done.stdout + done.stderr
    tasks = profiles.load("gate").grid("metaworld").tasks
    assert done.stdout.count("linear-search") == len(tasks) * len(parsed(*arguments)["seeds"].split(","))


@pytest.mark.parametrize(
    ("level", "seeds", "answer", "code"),
    [(0.6, 6, "pass", 0), (0.2, 6, "regressed", 1), (0.58, 2, "inconclusive", 0), (None, 0, "", 3)],
)
def test_the_verdict_decides(tmp_path: Path, level: float | None, seeds: int, answer: str, code: int) -> None:
    runs(tmp_path / BASELINE, 0.6, 8)
    if level is not None:
        runs(tmp_path / "out" / "runs", level, seeds)
    done, summary = compare(tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    if answer:
        assert summary.startswith(f"### Sample efficiency: {answer}\n") and "| linear-search |" in summary
    else:
        assert "could not be compared" in summary and "Error: " in done.stderr
    assert ("::warning " in done.stdout) == (answer == "inconclusive")


def runs(folder: Path, level: float, seeds: int) -> None:
    """Made-up runs around a level, the wider apart the fewer they are."""
    for seed in range(seeds):
        score = level + 0.5 * (-1) ** seed * (seed + 1) / seeds**2
        write(folder, "linear-search", "door-open", seed, flat(score), suite="metaworld", profile="gate")


def compare(folder: Path) -> tuple[subprocess.CompletedProcess[str], str]:
    """Runs the step's script as the service would: with bash that stops at errors; and what it says in the summary."""
    (folder / "out").mkdir(exist_ok=True)
    summary = folder / "summary.md"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-e", "-c", script("Compare")],
        cwd=folder,
        env=os.environ | {"PATH": path, "GITHUB_STEP_SUMMARY": str(summary)},
        capture_output=True,
        text=True,
    )
    return done, summary.read_text()
