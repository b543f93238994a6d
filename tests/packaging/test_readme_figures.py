"""The README's tables of results are what is published; where one is not, the failure shows the row as it should be."""

import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FOLDERS = [ROOT / "results" / name for name in ("dmc-lite", "metaworld-lite")]
METHODS = ("dreamer", "wpt-pretrain-only", "wpt-no-guidance", "wpt")
PARTS = ("pre-training", "rehearsal", "guidance", "rehearsal and guidance")


def figures(folder: Path) -> dict[str, Any]:
    (table,) = json.loads((folder / "figures.json").read_text())["tables"]
    return table


TASKS = [(folder, task) for folder in FOLDERS for task in figures(folder)["task_figures"]]


def told(value: float, low: float, high: float) -> str:
    return f"{value:.3f}" + ("" if low == high else f" [{low:.3f}, {high:.3f}]")


def estimate(one: dict[str, float]) -> str:
    return told(one["value"], one["corrected_low"], one["corrected_high"])


def alone(folder: Path, task: str) -> float:
    """Mean score of the cloned policies of ``wpt`` before the first online step."""
    runs = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    by_id = {run["id"]: run for run in runs if (run["identity"]["method"], run["identity"]["task"]) == ("wpt", task)}
    (score, scale) = next((run["score"], run["score_scale"]) for run in by_id.values())
    rows = pq.read_table(folder / "episodes.parquet").to_pylist()
    column = "success_last" if score == "success" else "episode_return"
    return fmean(row[column] for row in rows if row["kind"] == "prior" and row["run"] in by_id) / scale


@pytest.mark.parametrize(("folder", "task"), TASKS, ids=lambda value: value if isinstance(value, str) else value.name)
def test_the_rows_of_a_task_are_those_of_the_published_figures(folder: Path, task: str) -> None:
    methods = {one["method"]: one for one in figures(folder)["task_figures"][task]}
    assert set(methods) == set(METHODS)
    area, final = (" | ".join(estimate(methods[name][key]) for name in METHODS) for key in ("auc", "iqm"))
    assert f"| {task} | area | {area} | |\n| | final | {final} | {alone(folder, task):.2f} |\n" in README


@pytest.mark.parametrize(("folder", "suite"), zip(FOLDERS, ("DMControl", "Meta-World"), strict=True))
def test_what_each_part_adds_is_what_is_published(folder: Path, suite: str) -> None:
    table = figures(folder)
    rows = []
    for key in ("auc_ablation", "ablation"):
        effects = {one["name"].partition(":")[0]: one["estimate"] for one in table[key]["single"]}
        rows.append(" | ".join(estimate(effects[part]) for part in PARTS))
    assert f"| {suite} | area | {rows[0]} |\n| | final | {rows[1]} |\n" in README


def test_the_output_that_is_shown_is_the_published_headline() -> None:
    shown = re.sub(r"\s+", " ", README)
    assert figures(FOLDERS[0])["headline"] in shown
    for one in figures(FOLDERS[0])["methods"]:
        row = f" {one['name']} {one['family']} {one['data_access']} {one['iqm']['value']:.3f}"
        assert row in shown and f"{one['auc']['value']:.3f} {one['done']}/{one['expected']}" in shown
