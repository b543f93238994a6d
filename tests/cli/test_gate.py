"""The gate as a person, a program and a CI job call it."""

import json
import re
from pathlib import Path

import pytest
import typer
from analysis.synthetic import flat, write
from typer.testing import CliRunner

from cli.calling import invoke
from wpt_bench.analysis import rates
from wpt_bench.cli.console import command


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Runs of one task at levels of their own, by name."""
    made = {}
    for name, level, seeds in (("before", 0.6, 12), ("alike", 0.61, 12), ("worse", 0.2, 4), ("few", 0.6, 2)):
        for seed in range(seeds):
            score = level + 0.02 * (-1) ** seed * (seed + 1) / seeds
            write(tmp_path / name / "runs", "wpt", "walker-stand", seed, flat(score, score - 0.01))
        made[name] = tmp_path / name
    for seed, score in enumerate((0.45, 0.75)):
        write(made["few"] / "runs", "wpt", "walker-stand", seed + 2, flat(score))
    return made


@pytest.mark.parametrize(("candidate", "answer", "code"), [("alike", "pass", 0), ("worse", "regressed", 1)])
def test_people_programs_and_pull_requests_are_told_the_same(folders, tmp_path, candidate, answer, code):
    comment = tmp_path / "made" / "comment.md"
    said = invoke("compare", folders["before"], folders[candidate], "--markdown", comment)
    assert said.exit_code == code and f"{answer}: " in said.stdout
    told = invoke("compare", folders["before"], folders[candidate], "--json")
    found = json.loads(told.stdout)
    assert (told.exit_code, found["answer"], found["exit_code"]) == (code, answer, code)
    first = found["verdict"]["changes"][0]
    assert (first["method"], first["figure"], first["task"]) == ("wpt", "auc", "")
    text = comment.read_text()
    assert text.startswith(f"### Sample efficiency: {answer}\n") and found["why"] in text
    rows = [line for line in text.splitlines() if line.startswith("| wpt |")]
    assert len(rows) == 2 and f"{first['baseline']:.3f}" in rows[0] and f"{first['p']:.4f}" in rows[0]


def test_what_few_seeds_cannot_say_is_inconclusive(folders):
    said = invoke("compare", folders["before"], folders["few"], "--margin", "0.05")
    assert said.exit_code == 2 and "a pass takes 6 seeds on either side (12 of the baseline, 4 of the" in said.stdout
    for seed in range(4, 7):
        write(folders["few"] / "runs", "wpt", "walker-stand", seed, flat(0.3 + 0.1 * seed))
    said = invoke("compare", folders["before"], folders["few"], "--margin", "0.05")
    assert said.exit_code == 2 and "more seeds would tell" in said.stdout
    none = folders["before"].parent / "none"
    for seed in range(6):
        write(none / "before" / "runs", "wpt", "walker-stand", seed, flat(0.0))
        write(none / "after" / "runs", "wpt", "walker-stand", seed, flat(0.0), data="e" * 16)
    said = invoke("compare", none / "before", none / "after")
    assert said.exit_code == 2 and "is 0 in the baseline, of which nothing can be lost" in said.stdout


def test_an_earlier_verdict_does_not_outlive_an_error(folders, tmp_path):
    comment = tmp_path / "comment.md"
    assert invoke("compare", folders["before"], folders["alike"], "--markdown", comment).exit_code == 0
    assert invoke("compare", folders["before"], tmp_path / "nowhere", "--markdown", comment).exit_code == 3
    assert not comment.exists()


def test_names_do_not_become_markup(tmp_path):
    for name, level in (("before", 0.6), ("after", 0.2)):
        for seed in range(6):
            write(tmp_path / name / "runs", "a|b*c_`<b>@x", "walker-stand", seed, flat(level + 0.01 * seed))
    comment = tmp_path / "comment.md"
    assert invoke("compare", tmp_path / "before", tmp_path / "after", "--markdown", comment).exit_code == 1
    text = comment.read_text()
    assert "@x" not in text and not re.search(r"(?<!\\)[*_`<>]", text.replace("---", ""))
    (row, *_) = [line for line in text.splitlines() if line.startswith("| a")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 9


@pytest.mark.parametrize(
    "arguments",
    [("before", "nowhere"), ("before",), ("before", "worse", "--marign", "0.1"), ("before", "worse", "--alpha", "7")],
)
def test_an_error_is_no_answer(folders, arguments):
    """Neither regressed nor inconclusive, which a CI job may let pass."""
    said = invoke("compare", *(folders.get(argument, argument) for argument in arguments))
    assert said.exit_code == 3 and "Traceback" not in said.output and "Error" in said.stderr


def test_a_comment_that_cannot_be_written_is_an_error(folders, tmp_path):
    (tmp_path / "file").touch()
    said = invoke("compare", folders["before"], folders["alike"], "--markdown", tmp_path / "file" / "comment.md")
    assert said.exit_code == 3 and "Error" in said.stderr


def test_a_fault_of_ours_is_no_answer_either():
    """Python would end with 1, which says regressed."""
    own = typer.Typer()

    @command(own, "none", failed=3)
    def divide() -> None:
        raise ZeroDivisionError

    assert CliRunner().invoke(own, []).exit_code == 3


def test_error_rates_are_printed(folders, monkeypatch):
    monkeypatch.setattr(rates, "POOLS", 3)
    said = invoke("error-rates", folders["before"], "--seeds", "3", "--trials", "20", "--json")
    rate, *lost = json.loads(said.stdout)
    assert said.exit_code == 0 and (rate["method"], rate["arm"]) == ("wpt", "unchanged")
    assert (rate["seeds"], rate["trials"]) == (3, 20)
    assert [one["arm"].split()[0] for one in lost] == ["10%", "25%", "50%"]
    assert "unchanged" in invoke("error-rates", folders["before"], "--seeds", "3", "--trials", "20").stdout
