"""The README's method of one's own, installed as the separate package that it is, and run."""

import json
from pathlib import Path

import pytest

GRID = ["--profile=smoke", "--tasks=cartpole-balance", "--methods=linear-search", "--seeds=0", "--out=kept"]


def test_an_installed_method_is_listed(run, target: Path, example: Path) -> None:
    done = run(str(target / "bin" / "wpt-bench"), "list", "methods", "--json", also=(example,))
    assert done.returncode == 0, done.stderr
    methods = {method["name"]: method for method in json.loads(done.stdout)}
    assert methods["linear-search"]["data_access"] == "none"
    assert methods["linear-search"]["family"] == "From scratch"
    assert methods["linear-search"]["observations"] == ["state"]


def test_an_installed_method_runs(run, target: Path, example: Path, tmp_path: Path) -> None:
    program = str(target / "bin" / "wpt-bench")
    done = run(program, "run", "dmc", *GRID, also=(example,))
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(program, "status", "dmc", *GRID, "--json", also=(example,))
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert (record["method"], record["task"], record["status"]) == ("linear-search", "cartpole-balance", "done")
    (run_record,) = (tmp_path / "kept").rglob("run.json")
    provenance = json.loads(run_record.read_text())["provenance"]
    assert provenance["package"] == "linear-search 1.0" and provenance["git_revision"] is None
    (episodes,) = (tmp_path / "kept").rglob("episodes.jsonl")
    rows = [json.loads(line) for line in episodes.read_text().splitlines()]
    best = [row["metrics"]["best_return"] for row in rows if row["kind"] == "train"]
    returns = [row["episode_return"] for row in rows if row["kind"] == "train"]
    assert best == pytest.approx([max(returns[: n + 1]) for n in range(len(returns))])
