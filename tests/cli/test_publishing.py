"""Publishing runs and checking them, as a person or a program types it."""

import json
import shutil
from pathlib import Path

import pytest
from analysis.whole import grid, lines_of, rows_of, vouch, write_lines, write_rows

from cli.calling import call, invoke
from wpt_bench.analysis.verify import find_run
from wpt_bench.protocol import UserError

SMALL_PROFILE = Path(__file__).with_name("small.toml")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    grid(tmp_path / "out" / "runs")
    printed = call("publish", "dmc", "--to", tmp_path / "results", "--out", tmp_path / "out")
    assert "4 runs, 72 episodes, in" in printed and "Check it: wpt-bench verify" in printed
    return tmp_path / "results"


def test_what_was_published_is_verified(results: Path) -> None:
    assert "4 runs, 72 episodes and" in call("verify", results)
    printed = json.loads(call("verify", results / "dmc-quick", "--json"))
    (folder,) = printed["folders"]
    assert (printed["ok"], printed["rerun"], folder["runs"], folder["findings"]) == (True, None, 4, [])
    assert folder["folder"] == str(results / "dmc-quick")
    command = json.loads((results / "dmc-quick" / "manifest.json").read_bytes())["command"]
    out = results.parent / "out"
    assert command == f"wpt-bench publish dmc --profile quick --to {results} --out {out}"


def test_every_finding_is_a_line_and_the_exit_code_says_so(results: Path) -> None:
    folder = results / "dmc-quick"
    rows = rows_of(folder)
    rows[0]["success_any"] = 0.5
    write_rows(folder, rows)
    said = invoke("verify", results)
    lines = said.stderr.splitlines()
    assert (
        said.exit_code == 1
        and len(lines) == 2
        and all(line.startswith("Error: ") and "episodes.parquet" in line for line in lines)
    )
    printed = invoke("verify", results, "--json")
    assert printed.exit_code == 1
    assert [f"Error: {finding}" for finding in json.loads(printed.stdout)["folders"][0]["findings"]] == lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("verify", "nowhere"), "nowhere is no published folder and holds none; make one: wpt-bench publish dmc"),
        (("publish", "dmcontrol"), "did you mean 'dmc'"),
        (("publish", "dmc", "--profile", "quik"), "did you mean 'quick'"),
        (("publish", "dmc", "--out", "nowhere"), "nowhere/runs holds no finished run of suite dmc"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    said = invoke(*arguments)
    (line,) = said.stderr.splitlines()
    assert said.exit_code == 1 and line.startswith("Error: ") and sentence in line


def test_a_run_is_named_by_digits_that_only_it_has(results: Path) -> None:
    assert "No published run of" in call("verify", results, "--rerun", "xyz", code=1)
    ids = [line["id"] for line in lines_of(results / "dmc-quick")]
    with pytest.raises(UserError, match=f"{len(ids)} published runs of"):
        find_run([results / "dmc-quick"], "")


def test_what_was_verified_is_said_though_the_run_cannot_be_made_again(results: Path) -> None:
    run = next(line for line in lines_of(results / "dmc-quick") if line["identity"]["method"] == "wpt")
    done = invoke("verify", results, "--rerun", run["id"])
    assert done.exit_code == 1 and "4 runs, 72 episodes and" in done.stdout
    assert "The run was made by version 1 of wpt, and version" in done.stderr


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that the real commands made and published."""
    root = tmp_path_factory.mktemp("real")
    profile = ("--profile", SMALL_PROFILE, "--out", root / "out")
    call("run", "dmc", "--methods", "dreamer", *profile)
    call("publish", "dmc", "--to", root / "results", *profile)
    return root


def test_a_real_run_is_whole_and_comes_out_again(real: Path) -> None:
    folder = real / "results" / "dmc-small"
    (run,) = lines_of(folder)
    printed = call("verify", real / "results", "--rerun", run["id"][:5], "--episodes", "1", "--out", real / "out")
    assert (
        f"Run {run['id']}: 1 training episodes were made again; 5 rows were compared, each to the last bit" in printed
    )
    again = json.loads(invoke("verify", folder, "--rerun", run["id"], "--episodes", "1", "--json").stdout)["rerun"]
    assert (again["run"], again["compared"], again["findings"], again["environment"]) == (run["id"], 5, [], [])


def test_a_made_up_run_is_found_out_though_every_checksum_fits(real: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(real / "results" / "dmc-small", tmp_path / "dmc-small")
    rows = rows_of(folder)
    next(row for row in rows if row["kind"] == "train")["episode_return"] = 999.0  # no figure needs it
    write_rows(folder, rows)
    vouch(folder)
    call("verify", folder)
    (run,) = lines_of(folder)
    line = call("verify", folder, "--rerun", run["id"], "--episodes", "1", code=1)
    assert "train episode 0 at environment step 1000, is recorded with episode_return 999.0 (came out as " in line


def test_another_environment_does_not_pass_in_silence(real: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(real / "results" / "dmc-small", tmp_path / "dmc-small")
    (run,) = lines_of(folder)
    run["provenance"]["machine"]["cpu_capability"] = "ABACUS"
    write_lines(folder, [run])
    vouch(folder)
    said = invoke("verify", folder, "--rerun", run["id"], "--episodes", "1")
    assert said.exit_code == 3 and "equality cannot be demanded" in said.stderr
    assert "not in the environment of its record (cpu_capability" in said.stderr
