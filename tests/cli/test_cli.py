"""The command line as a person or a program meets it: what it prints, and how bad input ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from analysis.whole import rows_of, vouch, write_rows
from typer.testing import CliRunner

from cli.calling import call
from wpt_bench import records, registry
from wpt_bench.cli import app
from wpt_bench.cli.console import console
from wpt_bench.running import storage

SMALL_PROFILE = Path(__file__).with_name("small.toml")
MINE = """
name = "mine"
question = "How long should imagination be?"

[[factors]]
name = "horizon"
description = "Agent steps of imagination."
reference = "profile"
methods = ["dreamer"]
levels = [{ name = "profile" }, { name = "3", profile = { settings = { wpt = { horizon = 3 } } } }]
"""


@pytest.mark.parametrize("what", ["methods", "tasks"])
def test_no_name_is_cut_in_two_at_80_columns(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 80)
    lines = call("list", what).splitlines()
    names = [row["name"] for row in json.loads(call("list", what, "--json"))]
    assert max(map(len, lines)) <= 80 and len(lines) <= len(names) + 6
    assert set(names) <= {word for line in lines for word in line.split()}


def test_a_narrow_terminal_cuts_names_rather_than_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 40)
    lines = call("list", "tasks").splitlines()
    assert max(map(len, lines)) <= 40 and any("return" in line for line in lines)


def test_the_papers_tasks_are_marked() -> None:
    tasks = json.loads(call("list", "tasks", "--json"))
    paper = {suite: [t["name"] for t in tasks if t["suite"] == suite and t["paper"]] for suite in ("dmc", "metaworld")}
    assert (len(paper["dmc"]), len(paper["metaworld"])) == (22, 50)
    assert {"suite", "name", "paper", "embodiment"} <= tasks[0].keys()


def test_methods_say_what_they_may_see() -> None:
    methods = {method["name"]: method for method in json.loads(call("list", "methods", "--json"))}
    assert methods["dreamer"]["data_access"] == "none"
    arms = {"wpt", "wpt-no-guidance", "wpt-no-rehearsal", "wpt-no-pretrain", "wpt-pretrain-only", "wpt-rehearsal-only"}
    arms |= {"wpt-guidance-only", "wpt-random-replay"}
    assert all(methods[name]["data_access"] == "reward-free" for name in arms)
    assert methods["wpt"]["observations"] == ["state", "pixels"]


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("Offline RL", "iql td3-bc cql"),
        ("Off2On RL", "cal-ql iql-finetune awac"),
        ("RLPD", "rlpd"),
        ("MT IL", "mt-bc"),
        ("MT offline RL", "mt-iql mt-td3-bc"),
        ("Reward-free comparators", "uds explore jsrl-bc"),
        ("From scratch", "sac drqv2 dreamer"),
    ],
)
def test_every_family_of_the_comparison_is_here(family: str, names: str) -> None:
    methods = json.loads(call("list", "methods", "--json"))
    assert {method["name"] for method in methods if method["family"] == family} == set(names.split())
    assert all(method["tuning"] and method["tuning_evaluations"] >= 0 for method in methods)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "dmc", "--methods", "dreamr"), "There is no method 'dreamr'; did you mean 'dreamer'?"),
        (("run", "dmc", "--tasks", "walker-wolk"), "did you mean 'walker-walk'"),
        (("run", "dmc", "--tasks", "mw/walker-walk"), "did you mean"),
        (("run", "dmc", "--profile", "quik"), "There is no profile 'quik'; did you mean 'quick'"),
        (
            ("run", "dmc", "--profile", "smoke-pixels", "--methods", "td3-bc"),
            "td3-bc learns from state and the profile",
        ),
        (("run", "dmcontrol"), "There is no suite 'dmcontrol'; did you mean 'dmc'"),
        (("run", "dmc", "--executor", "slurm"), "There is no executor 'slurm'; choose local or ray."),
        (("run", "dmc", "--executor", "slurm", "--dry-run"), "There is no executor 'slurm'; choose local or ray."),
        (("experiment", "ablation", "--executor", "slurm", "--dry-run"), "There is no executor 'slurm'"),
        (("bench", "dmc", "--storage", "s3://bucket"), "--storage goes with --executor ray."),
        (("pretrain", "dmc", "--executor", "ray", "--device", "cuda"), "needs --gpus-per-run"),
        (("run", "dmc", "--tracker", "mlflow"), "There is no tracker 'mlflow'; choose tensorboard, wandb"),
        (
            ("run", "dmc", "--seeds", "0,one"),
            "Seeds are whole numbers from 0 to 4294967296 separated by commas, as 0,1,2, not '0,one'.",
        ),
        (("run", "dmc", "--seeds", "-1", "--dry-run"), "Seeds are whole numbers from 0 to 4294967296"),
        (("report", "dmc", "--seeds", "0,99999999999999999999"), "Seeds are whole numbers from 0 to 4294967296"),
        (("run", "dmc", "--profile", "mine.toml"), "There is no profile file mine.toml."),
        (("list", "thods"), "did you mean 'methods'"),
        (("list", "methods", "--suite", "nosuch"), "--suite is for tasks"),
        (("report", "no/such"), "'no/such' is neither a suite nor a published folder; suites are dmc, metaworld"),
        (("data", "verify", "nowhere"), "nowhere holds no data set"),
        (("data", "card", "dmc", "--out", "nowhere"), "collect it: wpt-bench data collect dmc"),
        (
            ("tune", "dmc", "--profile", "quick", "--tasks", "walker-walk"),
            "dmc/walker-walk stands in the results of the profile 'lite', on which nothing is tuned",
        ),
        (("tune", "metaworld", "--profile", "smoke", "--tasks", "button-press"), "results of the profile 'smoke'"),
        (("tune", "dmc", "--profile", "paper"), "The profile 'paper' names no tasks to tune dmc on"),
        (("report", "--out", "nowhere"), "make some: wpt-bench bench dmc"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in call(*arguments, code=1)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("minutes = ", "minuts = ", "minuts"),
        ("budget = 2000", "budget = 2500", "not a whole number of dmc/cartpole-balance's episodes of 1000"),
        ("budget = 2000", 'budget = "much"', "budget"),
        ("deter = 32", "deter = 33", "must be multiples of 2"),
        ("horizon = 4", "horizn = 4", "Settings 'wpt' of profile 'small' do not fit"),
        ("[world_model]", "[world_model", "cannot be used"),
        ("deter = 32", "deter = 1000000000", "deter is 1000000000, and no more than 16384 can be made"),
        ("batch = 4", "batch = -4", "pretraining.batch is -4, which is below 0"),
        ("seeds = [0]", "seeds = [-5]", "grids.dmc.seeds is -5, which is below 0"),
        ("seeds = [0]", "seeds = []", "length >= 1 - at `$.seeds` of [grids.dmc]"),
        ("budget = 2000", "budget = 0", "`int` >= 1 - at `$.budget` of [grids.dmc]"),
        ("learning_rate = 1e-3", "learning_rate = -1e-3", "`float` > 0.0 - at `$.pretraining.learning_rate`"),
        ("updates = 20", "updates = 0", "`int` >= 1 - at `$.pretraining.updates`"),
        (
            "length = 20",
            "length = 600",
            "length is 600 in [pretraining] of the profile 'small', and an episode of cart",
        ),
        ("deter = 32", "deter = 0", "`int` >= 1 - at `$.world_model.deter`"),
        ("horizon = 4", "horizon = 0", "Settings 'wpt' of profile 'small' do not fit: Expected `int` >= 1 - at `$.hor"),
        ("starts = 8", "model_lr = -1.0", "Settings 'wpt' of profile 'small' do not fit: Expected `float` > 0.0 - at"),
        ("starts = 8", "rehearsal = 1.0", "leaves no sequence to the run's own episodes"),
        ("length = 8", "length = 600", "length is 600 in [settings.wpt] of the profile 'small'"),
        (
            "pink_noise = 2\nrandom_reward = 2",
            "pink_noise = 0\nrandom_reward = 0",
            "[grids.dmc.data] of the profile 'small' asks for no episodes of cartpole",
        ),
        ("pink_noise = 2", "curiosity = 5", "raise training_episodes or store fewer"),
        ("evaluation_episodes = 2", "evaluation_episodes = 10000", "evaluation_episodes"),
        ("evaluation_every = 0.5", "evaluation_every = nan", "evaluation_every is nan"),
        ('name = "small"', 'name = "../small"', "name"),
        ('name = "small"', "name = " + "[" * 10_000, "cannot be used"),
    ],
)
def test_a_bad_profile_is_named(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    text = SMALL_PROFILE.read_text()
    assert old in text
    (tmp_path / "small.toml").write_text(text.replace(old, new, 1))
    arguments = ("run", "dmc", "--profile", tmp_path / "small.toml", "--out", tmp_path / "out", "--dry-run")
    assert sentence in call(*arguments, code=1)


def test_a_dry_run_of_an_experiment_says_which_levels_a_run_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs often differ in nothing else that is shown."""
    monkeypatch.setattr(console, "width", 120)
    arguments = ("--suite", "dmc", "--profile", "smoke", "--seeds", "0", "--out", tmp_path / "out", "--dry-run")
    lines = call("experiment", "data", *arguments).splitlines()
    runs = [line.strip() for line in lines if line.startswith("wpt ")]
    levels = {line.partition("pending")[2].strip() for line in runs}
    assert {"collectors/all, quantity/1, other scenes/1", "quantity/0.1"} < levels
    assert len(set(runs)) == len(runs) > len(levels) > 5


def test_a_dry_run_says_what_it_would_cost_and_does_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = call("run", "dmc", "--profile", SMALL_PROFILE, "--out", out, "--dry-run", "--workers", "2")
    assert "2 runs to make on 2 workers" in printed and "hours" in printed and "GiB" in printed
    assert "To be collected first: cartpole" in printed
    assert not out.exists()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "episodes = 10",
            "episodes = 0",
            "[grids.metaworld.data] of the profile 'smoke' asks for no episodes of drawer-",
        ),
        ("length = 20", "length = 102", "length is 102 in [pretraining] of the profile 'smoke'"),  # fits DMControl's
        ("length = 8", "length = 102", "no episode has more than 91 observations"),  # when learning begins
    ],
)
def test_a_profile_that_another_suite_cannot_make_is_named(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = tmp_path / "smoke.toml"
    text = (Path(__file__).parents[2] / "suites" / "profiles" / "smoke.toml").read_text()
    path.write_text(text.replace(f"\n{old}\n", f"\n{new}\n", 1))
    arguments = ("metaworld", "--profile", path, "--out", tmp_path / "out")
    assert sentence in call("run", *arguments, "--dry-run", code=1)
    assert sentence in call("bench", *arguments, code=1)
    assert not (tmp_path / "out" / "runs").exists() and not list(tmp_path.glob("out/data/*/*/shard.json"))


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("nosuch", "There is no device 'nosuch'; choose cpu, cuda, cuda:1, ..."),
        ("cuda:9999", "There is no device 'cuda:9999'"),
        ("cuda:99", "--device cuda:99 is not here: torch"),
    ],
)
@pytest.mark.parametrize("name", ["run", "pretrain", "bench", "tune"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_made(
    tmp_path: Path, name: str, device: str, sentence: str
) -> None:
    profile = "smoke" if name == "tune" else SMALL_PROFILE
    assert sentence in call(name, "dmc", "--profile", profile, "--out", tmp_path / "out", "--device", device, code=1)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole way, by the real command in a process of its own."""
    out = tmp_path_factory.mktemp("bench") / "out"
    made = _bench(out)
    assert made.returncode == 0, made.stderr
    assert "not separated at this budget" in made.stdout
    assert "Table 1, declared by the code" in made.stdout and "Table 1, measured by the runs of dmc" in made.stdout
    assert (out / "reports" / "dmc-small" / "report.html").exists()
    return out


def _bench(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wpt_bench", "bench", "dmc", "--profile", str(SMALL_PROFILE), "--out", str(out)]
    return subprocess.run([*command, *more], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def test_after_a_bench_everything_is_done_and_whole(benched: Path) -> None:
    runs = json.loads(call("status", "dmc", "--profile", SMALL_PROFILE, "--out", benched, "--json"))
    assert [run["status"] for run in runs] == ["done", "done"]
    assert {"suite", "task", "method", "seed", "profile", "experiment", "status", "why"} == runs[0].keys()
    assert [run["experiment"] for run in runs] == [[], []]
    by_profile = ("dmc", "--profile", SMALL_PROFILE, "--out", benched)
    for what in (by_profile, (benched / "data" / "dmc-small",)):
        assert json.loads(call("data", "verify", *what, "--json"))["ok"]
    summary = json.loads(call("report", "dmc", "--profile", SMALL_PROFILE, "--out", benched, "--json"))
    assert Path(summary["report"]).exists()
    declared = {family: cell["verdict"] for family, cell in summary["declared"]["reward-free offline data"].items()}
    assert (declared["WPT"], declared["From scratch"]) == ("yes", "not applicable")
    (table,) = summary["tables"]
    assert {method["name"]: method["tuning_evaluations"] for method in table["methods"]} == {
        name: registry.method(name).tuning_evaluations for name in ("dreamer", "wpt")
    }
    card = json.loads(call("data", "card", "dmc", "--profile", SMALL_PROFILE, "--out", benched, "--json"))
    assert card["episodes"] == 4 and card["rows"][0]["best"] > 0


def _records(out: Path) -> dict[str, object]:
    """What runs came to, but for their clocks."""
    found = {}
    for folder in records.find_runs(out / "runs"):
        run = records.read_run(folder)
        rows = [msgspec.structs.replace(row, wall_clock=0.0) for row in records.read_episodes(folder)]
        found[run.id] = (run.status, rows, run.files["weights.safetensors"], run.notes)
    return found


def _states(out: Path) -> list[str]:
    printed = call("status", "dmc", "--profile", SMALL_PROFILE, "--out", out, "--json")
    return [run["status"] for run in json.loads(printed)]


def test_without_a_suite_the_report_is_of_those_with_runs(tmp_path: Path) -> None:
    """Also where no method of theirs needed data, and not of one whose data alone is there."""
    place = ("--profile", SMALL_PROFILE, "--out", tmp_path)
    call("data", "collect", "dmc", *place, "--yes")
    assert "There are no runs of profile" in call("report", *place, code=1)
    call("run", "dmc", *place, "--methods", "dreamer", "--yes")
    shutil.rmtree(tmp_path / "data")
    assert "dreamer" in call("report", *place, "--methods", "dreamer")


def test_the_data_card_counts_what_finished_runs_retrieved(benched: Path, tmp_path: Path) -> None:
    out = shutil.copytree(benched, tmp_path / "out")

    def retrieved() -> list[float | None]:
        card = json.loads(call("data", "card", "dmc", "--profile", SMALL_PROFILE, "--out", out, "--json"))
        return [row["retrieved"] for row in card["rows"] if row["task"] == "cartpole-balance"]

    assert any(value is not None for value in retrieved())
    for folder in (out / "runs").iterdir():
        run = records.read_run(folder)
        records.write_run(folder, msgspec.structs.replace(run, status="running"))
    assert all(value is None for value in retrieved())


@pytest.mark.parametrize("name", ["out[a]", "out[/a]", "[red]", "out\\[b]"])
def test_brackets_in_paths_are_no_markup(kept: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(kept, tmp_path / name)
    assert f"{folder}: " in call("verify", folder)
    (folder / "runs.jsonl").write_text("")
    assert str(folder / "runs.jsonl") in CliRunner().invoke(app, ["verify", str(folder)]).stderr


def test_killed_and_then_gone_on_with_by_two_at_once_it_ends_as_in_calm(benched: Path, tmp_path: Path) -> None:
    """Status tells what is going on; no run is made twice; nobody fails because of the other."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "wpt_bench", "run", "dmc", "--profile", str(SMALL_PROFILE), "--out", str(out)]
    assert _states(out) == ["pending", "pending"]
    process = subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.DEVNULL, start_new_session=True)
    while "running" not in (states := _states(out)):
        assert process.poll() is None, states
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    states = _states(out)  # the run that was under way may have ended before the kill
    assert set(states) <= {"interrupted", "pending", "done"} and states != ["done", "done"]
    both = [
        subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for name, state in zip(("dreamer cartpole-balance 0", "wpt cartpole-balance 0"), states, strict=True):
        assert sum(f"{name}: done in" in text for text in said) == (state != "done"), said
    assert _states(out) == ["done", "done"]
    assert _records(out) == _records(benched)


def test_a_second_bench_reuses_everything(benched: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (benched / "runs").rglob("run.json")}
    again = _bench(benched)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (benched / "runs").rglob("run.json")} == before


def test_a_task_of_another_embodiment_asks_before_it_collects(benched: Path) -> None:
    refused = _bench(benched, "--tasks", "acrobot-swingup")
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1].endswith("Say --yes to agree where nobody can be asked.")
    assert not list((benched / "data" / "dmc-small").glob("acrobot*"))


def test_damaged_data_is_found_and_named(benched: Path, tmp_path: Path) -> None:
    shutil.copytree(benched, tmp_path / "out")
    file = tmp_path / "out" / "data" / "dmc-small" / "cartpole-pink-noise" / "action.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(bytes(raw))
    assert "action.npy" in call("data", "verify", tmp_path / "out" / "data" / "dmc-small", code=1)
    file.write_bytes(bytes(raw[: len(raw) // 2]))
    arguments = ("run", "dmc", "--profile", SMALL_PROFILE, "--out", tmp_path / "out", "--seeds", "5")
    assert "action.npy" in call(*arguments, code=1)


@pytest.fixture(scope="module")
def kept(benched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bench as it is published: with what it started from, its data card and its page."""
    results = tmp_path_factory.mktemp("results")
    call("publish", "dmc", "--profile", SMALL_PROFILE, "--to", results, "--out", benched)
    return results / "dmc-small"


def test_a_published_folder_has_all_that_its_page_shows(benched: Path, kept: Path) -> None:
    (weights,) = (benched / "stages").glob("*/weights.safetensors")
    assert (kept / "stages" / weights.parent.name / weights.name).read_bytes() == weights.read_bytes()
    assert (kept / "curves-state-all.png").read_bytes()[:4] == b"\x89PNG"
    files = {path.relative_to(kept).as_posix(): path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    page = files["report.html"].decode()
    assert "open-loop-error" in page and "held-out" in page and "no finished pre-training" not in page
    assert "Data card" in page and "the data set is not at hand" not in page
    call("verify", kept)
    call("report", kept, "--out", benched / "again", "--keep")
    call("verify", kept)
    call("publish", "dmc", "--profile", SMALL_PROFILE, "--to", kept.parent, "--out", benched)
    assert files == {path.relative_to(kept).as_posix(): path.read_bytes() for path in kept.rglob("*") if path.is_file()}


def test_a_published_model_is_taken_where_data_and_settings_are_the_same(
    benched: Path, kept: Path, tmp_path: Path
) -> None:
    """The data set is played from the actions that are published with it."""
    arguments = ("pretrain", "dmc", "--profile", SMALL_PROFILE, "--out", tmp_path / "out", "--published", kept)
    call(*arguments)
    stages = [out / "stages" for out in (kept, benched, tmp_path / "out")]
    (published, own, taken) = [{path.name: path.read_bytes() for path in one.glob("*/[!.]*")} for one in stages]
    assert taken == own == published and len(taken) == 3
    outs = (benched, tmp_path / "out")
    data = [{path.relative_to(one): path.read_bytes() for path in one.glob("data/*/*/*.*")} for one in outs]
    assert data[0] == data[1] and len(data[0]) == 8
    assert "Nothing is taken" in CliRunner().invoke(app, list(map(str, arguments))).stderr
    assert "is no published folder" in call(*arguments[:-1], tmp_path, code=1)
    other = ("pretrain", "metaworld", "--profile", "smoke", "--out", tmp_path / "out", "--published", kept)
    assert f"{kept} is of the suite dmc: nothing of it can be taken for metaworld." in call(*other, code=1)


def test_data_that_cannot_be_played_as_they_were_are_refused(kept: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(kept, tmp_path / "dmc-small")
    (actions,) = folder.glob("data/*/actions.zlib")
    planes = np.frombuffer(zlib.decompress(actions.read_bytes()), np.uint8).reshape(4, -1).copy()
    values = planes.T.copy().view("<f4").ravel()
    within = (np.abs(values) > 0) & (np.abs(values) < 0.9)  # one at the bound is clipped back to what it was
    planes[0, np.flatnonzero(within)[0]] ^= 1
    actions.write_bytes(zlib.compress(planes.tobytes()))
    arguments = ("data", "collect", "dmc", "--profile", SMALL_PROFILE, "--out", tmp_path / "out")
    assert "was altered or damaged" in call(*arguments, "--published", folder, code=1)
    vouch(folder)  # as a forger would
    said = call(*arguments, "--published", folder, code=1)
    assert "cartpole-random-reward does not come out as it was recorded" in said
    assert "Collected instead, without the published folder" in said
    assert not list((tmp_path / "out").rglob("cartpole-random-reward"))
    call(*arguments)


def test_figures_of_another_version_are_computed_again(kept: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(kept, tmp_path / "dmc-small")
    (folder / "figures.json").write_text((folder / "figures.json").read_text().replace("mean", "average"))
    vouch(folder)
    assert "figures.json" in CliRunner().invoke(app, ["verify", str(folder)]).stderr
    call("report", folder, "--out", tmp_path / "out", "--keep")
    call("verify", folder)
    assert (folder / "figures.json").read_bytes() == (kept / "figures.json").read_bytes()


def test_published_runs_are_not_made_again(benched: Path, kept: Path, tmp_path: Path) -> None:
    """Taken back they are to the byte what they were, but for weights, which nothing published holds."""
    out = tmp_path / "out"
    shutil.copytree(benched / "data", out / "data")
    begun = next(records.find_runs(benched / "runs")).name
    (out / "runs" / begun / "replay").mkdir(parents=True)
    (out / "runs" / begun / "checkpoint-000000000001-0.safetensors").write_bytes(b"of a run that was cut off")
    arguments = ["run", "dmc", "--profile", SMALL_PROFILE, "--out", out, "--published", kept]
    made = CliRunner().invoke(app, list(map(str, arguments)))
    assert made.exit_code == 0, made.stderr
    assert "1 pre-trainings and 2 runs" in made.stderr and "done in" not in made.stderr
    for folder in records.find_runs(benched / "runs"):
        left = {path.name: path.read_bytes() for path in (out / "runs" / folder.name).glob("[!.]*")}
        assert left == {name: (folder / name).read_bytes() for name in ("run.json", "episodes.jsonl")}
    call("publish", "dmc", "--profile", SMALL_PROFILE, "--to", tmp_path / "results", "--out", out)
    again, before = tmp_path / "results" / kept.name, kept
    for name in ("runs.jsonl", "episodes.parquet", "figures.json", "data_card.json"):
        assert (again / name).read_bytes() == (before / name).read_bytes(), name
    assert "Nothing is taken" in CliRunner().invoke(app, list(map(str, arguments))).stderr


def test_published_runs_that_were_altered_are_not_taken(benched: Path, kept: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(kept, tmp_path / "dmc-small")
    rows = rows_of(folder)
    rows[0]["episode_return"] += 1
    write_rows(folder, rows)
    shutil.copytree(benched / "data", tmp_path / "out" / "data")
    arguments = ("run", "dmc", "--profile", SMALL_PROFILE, "--out", tmp_path / "out", "--published", folder)
    assert "was altered or damaged" in call(*arguments, code=1)
    assert "was altered or damaged" in call(*arguments, "--dry-run", code=1)
    vouch(folder)  # as a forger would
    assert "has other rows of run" in call(*arguments, code=1)
    assert len(list(records.find_runs(tmp_path / "out" / "runs"))) < 2


def test_publishing_again_drops_no_run_unasked(benched: Path, kept: Path, tmp_path: Path) -> None:
    results, out = tmp_path / "results", tmp_path / "out"
    shutil.copytree(kept, results / kept.name)
    shutil.copytree(benched, out)
    one = next(records.find_runs(out / "runs"))
    shutil.rmtree(one)
    arguments = ("publish", "dmc", "--profile", SMALL_PROFILE, "--to", results, "--out", out)
    refused = call(*arguments, code=1)
    assert "1 finished runs" in refused
    assert f"wpt-bench run dmc --profile small --published {results / kept.name}" in refused
    assert (results / kept.name / "runs.jsonl").read_bytes() == (kept / "runs.jsonl").read_bytes()
    assert "1 runs" in call(*arguments, "--replace")


def test_published_experiments_are_taken_back_with_their_plan(benched: Path, tmp_path: Path) -> None:
    mine, first, second = tmp_path / "mine.toml", tmp_path / "first", tmp_path / "second"
    mine.write_text(MINE)
    for out in (first, second):
        shutil.copytree(benched, out)
    options = ("--profile", SMALL_PROFILE, "--out")
    call("experiment", mine, *options, first, "--workers", "1")
    call("publish", "dmc", *options, first, "--to", tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "dmc-small").iterdir() if path.is_file()}
    refused = call("publish", "dmc", *options, second, "--to", tmp_path, code=1)
    command = f"wpt-bench experiment mine --suite dmc --profile small --published {tmp_path / 'dmc-small'}"
    assert f"the plan of the experiment mine that {second} lacks" in refused and command in refused
    taken = CliRunner().invoke(
        app, list(map(str, ("experiment", mine, *options, second, "--published", tmp_path / "dmc-small")))
    )
    assert taken.exit_code == 0 and "0 pre-trainings and 1 runs" in taken.stderr and "done in" not in taken.stderr
    call("publish", "dmc", *options, second, "--to", tmp_path)
    for name in ("runs.jsonl", "episodes.parquet", "experiments.json", "figures.json"):
        assert (tmp_path / "dmc-small" / name).read_bytes() == before[name], name


def test_publishing_again_into_a_damaged_folder_is_refused(benched: Path, kept: Path, tmp_path: Path) -> None:
    """Nobody could say which runs it had."""
    folder = shutil.copytree(kept, tmp_path / "results" / kept.name)
    (folder / "runs.jsonl").write_text("garbage")
    arguments = ("publish", "dmc", "--profile", SMALL_PROFILE, "--to", folder.parent, "--out", benched)
    assert "runs.jsonl was altered or damaged" in call(*arguments, code=1)
    assert "2 runs" in call(*arguments, "--replace")


@pytest.mark.parametrize("lacking", ["data", "stages"])
def test_publishing_again_keeps_models_and_card(benched: Path, kept: Path, tmp_path: Path, lacking: str) -> None:
    folder, out = shutil.copytree(kept, tmp_path / "results" / kept.name), tmp_path / "out"
    shutil.copytree(benched, out)
    shutil.rmtree(out / lacking)
    call("publish", "dmc", "--profile", SMALL_PROFILE, "--to", folder.parent, "--out", out)
    names = [path.relative_to(kept) for path in kept.rglob("*") if path.is_file()]
    assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} == set(names)
    for name in names:
        assert (
            name.name in ("manifest.json", "report.html") or (folder / name).read_bytes() == (kept / name).read_bytes()
        )


def test_a_dry_run_knows_what_is_published(benched: Path, kept: Path, tmp_path: Path) -> None:
    shutil.copytree(benched / "data", tmp_path / "out" / "data")
    arguments = ("run", "dmc", "--profile", SMALL_PROFILE, "--out", tmp_path / "out", "--dry-run")
    assert "2 runs to make" in call(*arguments) and "pre-trained or shared by tasks: 1" in call(*arguments)
    said = call(*arguments, "--published", kept)
    assert "0 runs to make" in said and "published" in said and "To be pre-trained" not in said


def test_weights_that_a_repository_cannot_carry_are_left_out(
    benched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wpt_bench.running.kept.MOST_BYTES", 1000)
    arguments = ["publish", "dmc", "--profile", str(SMALL_PROFILE), "--to", str(tmp_path), "--out", str(benched)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "Left out: The weights of 1 pre-trainings have 0 MiB" in result.stderr
    (stage,) = (tmp_path / "dmc-small" / "stages").iterdir()
    assert sorted(path.name for path in stage.iterdir()) == ["open_loop.safetensors", "stage.json"]
    assert "no finished pre-training" not in (tmp_path / "dmc-small" / "report.html").read_text()


@pytest.mark.parametrize("name", ["weights.safetensors", "stage.json"])
def test_a_published_model_that_was_altered_is_not_taken(benched: Path, kept: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(kept, tmp_path / "dmc-small")
    (file,) = folder.glob(f"stages/*/{name}")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(bytes(raw))
    assert f"{name} was altered or damaged" in call("verify", folder, code=1)
    shutil.copytree(benched / "data", tmp_path / "out" / "data")
    arguments = ("pretrain", "dmc", "--profile", SMALL_PROFILE, "--out", tmp_path / "out", "--published", folder)
    refused = call(*arguments, code=1)
    assert name in refused and f"Nothing is taken from {folder}" in refused and "delete" not in refused
    assert not list((tmp_path / "out").glob("stages/*/stage.json"))


def test_files_beside_published_runs_may_not_lead_elsewhere(kept: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(kept, tmp_path / "dmc-small")
    shutil.move(folder / "stages", tmp_path / "elsewhere")
    (folder / "stages").symlink_to(tmp_path / "elsewhere")
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exit_code == 1 and "leads out of its folder by 'stages/" in result.stderr
    (folder / "notes.txt").write_text("")
    assert "notes.txt is not in manifest.json" in CliRunner().invoke(app, ["verify", str(folder)]).stderr


@pytest.mark.parametrize(
    ("option", "value"), [("--methods", "wpt"), ("--seeds", "77"), ("--tasks", "nosuch"), ("--profile", "smoke")]
)
def test_a_published_folder_is_reported_as_a_whole(kept: Path, tmp_path: Path, option: str, value: str) -> None:
    refused = call("report", kept, option, value, "--out", tmp_path, code=1)
    assert f"{option} is for runs in --out" in refused and not list(tmp_path.iterdir())


def test_of_a_folder_of_published_folders_one_is_named(kept: Path) -> None:
    assert f"name one of them: wpt-bench report {kept}." in call("report", kept.parent, code=1)


def test_a_run_to_train_again_has_to_be_named(kept: Path) -> None:
    assert "--rerun names a run, by its id" in call("verify", kept, "--rerun", "", code=1)


@pytest.mark.parametrize("name", ["episodes.parquet", "weights.safetensors", "data_card.json", "stage.json"])
def test_of_a_folder_that_was_altered_the_report_says_what_is_wrong(kept: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(kept, tmp_path / "dmc-small")
    (file,) = folder.rglob(name)
    file.write_bytes(b"")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for keep in ((), ("--keep",)):
        shown = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "out"), *keep])
        assert shown.exit_code == 1 and "Traceback" not in shown.stderr
        assert f"{file} was altered or damaged" in shown.stderr and f"wpt-bench verify {folder}" in shown.stderr
    assert (tmp_path / "out" / "reports" / "published-dmc-small" / "report.html").is_file()
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def nobody() -> Iterator[None]:
    """As a user whom permissions bind, which they do not the one that everything belongs to."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["", "runs.jsonl"])
def test_a_published_folder_that_may_not_be_read_is_said_so(kept: Path, name: str) -> None:
    with tempfile.TemporaryDirectory() as place:  # where others may go, unlike pytest's
        Path(place).chmod(0o755)
        folder = Path(shutil.copytree(kept, Path(place) / "dmc-small"))
        commands = (("verify", folder), ("compare", folder, folder), ("report", folder, "--out", f"{place}/out"))
        for command in commands:  # as ourselves first: what they import is ours as well
            CliRunner().invoke(app, [str(part) for part in command])
        (folder / name).chmod(0)
        try:
            with nobody():
                for command in commands:
                    refused = call(*command, code=3 if command[0] == "compare" else 1)
                    assert (
                        f"{folder / name} cannot be read: Permission denied" in refused and "make room" not in refused
                    )
        finally:
            (folder / name).chmod(0o755)


def test_pages_are_kept_in_published_folders_alone(benched: Path) -> None:
    assert "--keep is for a published folder" in call("report", "dmc", "--out", benched, "--keep", code=1)


def test_status_looks_into_storage(benched: Path, tmp_path: Path) -> None:
    out, url = tmp_path / "out", (tmp_path / "storage").as_uri()
    shutil.copytree(benched, out)
    done, begun = records.find_runs(out / "runs")
    methods = [records.read_run(folder).identity.method for folder in (done, begun)]
    store = storage.open_store(url)
    storage.push(storage.claim(store, f"runs/{done.name}", done), done=True)
    storage.claim(store, f"runs/{begun.name}", begun)
    shutil.rmtree(out / "runs")
    arguments = ("status", "dmc", "--profile", SMALL_PROFILE, "--out", out, "--storage", url, "--json")
    runs = json.loads(call(*arguments))
    assert {run["method"]: run["status"] for run in runs} == dict(zip(methods, ("done", "begun"), strict=True))
    shutil.rmtree(out)
    warned = CliRunner().invoke(app, list(map(str, arguments)))
    assert warned.exit_code == 0 and "has no dmc data" in warned.stderr


def test_too_few_episodes_to_retrieve_is_recorded_as_a_failure(benched: Path, tmp_path: Path) -> None:
    shutil.copytree(benched, tmp_path / "out")
    profile = tmp_path / "small.toml"
    profile.write_text(SMALL_PROFILE.read_text().replace("retrieved = 2", "retrieved = 20"))
    arguments = ("run", "dmc", "--profile", profile, "--out", tmp_path / "out", "--methods", "wpt")
    assert "Retrieval needs 20 offline episodes" in call(*arguments, code=1)
    runs = json.loads(
        call("status", "dmc", "--profile", profile, "--out", tmp_path / "out", "--methods", "wpt", "--json")
    )
    assert [run["status"] for run in runs] == ["failed", "stale"]  # that of the profile before


@pytest.mark.parametrize("place", ["/proc/x", "file", "file/x"])
def test_a_folder_that_cannot_be_made_is_said_so(benched: Path, kept: Path, tmp_path: Path, place: str) -> None:
    if place == "/proc/x" and not Path("/proc").is_dir():
        pytest.skip("there is no /proc")
    (tmp_path / "file").write_text("")
    where = tmp_path / place  # an absolute place stays what it is
    grid = ("dmc", "--profile", SMALL_PROFILE, "--out")
    for command in (
        ("data", "collect", *grid, where),
        ("pretrain", *grid, where),
        ("run", *grid, where),
        ("run", *grid, where, "--methods", "dreamer"),  # which learns from no data
        ("bench", *grid, where),
        ("tune", "dmc", "--profile", "smoke", "--methods", "sac", "--out", where),
        ("report", kept, "--out", where),
        ("publish", *grid, benched, "--to", where),
    ):
        refused = call(*command, code=1)
        assert f"The folder {where}" in refused and "cannot be made" in refused and "--out" not in refused, command


@pytest.mark.parametrize("place", ["/proc/x", "file", "file/x"])
def test_the_doctor_says_where_nothing_can_be_written(tmp_path: Path, place: str) -> None:
    if place == "/proc/x" and not Path("/proc").is_dir():
        pytest.skip("there is no /proc")
    (tmp_path / "file").write_text("")
    for out, code in ((tmp_path / place, 1), (tmp_path / "new" / "out", 0)):
        result = CliRunner().invoke(app, ["doctor", "--out", str(out), "--json"])
        (found,) = [one for one in json.loads(result.stdout) if one["name"] == "output folder"]
        assert (result.exit_code, found["ok"], bool(found["advice"])) == (code, not code, bool(code)), found
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wpt_bench", "data", "collect", "dmc", "--profile", str(SMALL_PROFILE)]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what starts the tests may ignore it
    )
    try:
        while process.poll() is None and not (tmp_path / "out").exists():
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        _, printed = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "the same command goes on" in printed and "Traceback" not in printed


def test_a_plugin_that_cannot_be_loaded_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    real = registry.entry_points

    def with_broken(group: str) -> Any:
        broken = EntryPoint("broken", "no.such.module:METHOD", group)
        return [*real(group=group), *([broken] if group == "wpt_bench.methods" else [])]

    monkeypatch.setattr(registry, "entry_points", with_broken)
    caches = (registry._loaded, registry.registered)
    for cache in caches:
        cache.cache_clear()
    try:
        with pytest.warns(UserWarning, match="'broken' cannot be loaded"):
            assert "wpt" in registry.methods()
        said = call("run", "dmc", "--methods", "broken", code=1)
        assert "There is no method 'broken'" in said
        assert "'broken' cannot be loaded: ModuleNotFoundError: No module named 'no'." in said
    finally:
        for cache in caches:
            cache.cache_clear()


OWN_EXPERIMENT = """
name = "mine"
question = "Does guidance help?"

[[factors]]
name = "guidance"
description = "Share of the budget with guidance."
reference = "profile"
methods = ["wpt"]
levels = [{ name = "profile" }, { name = "none", value = 0.0, grid = { guidance = 0.0 } }]
"""


def test_an_experiment_shares_runs_with_the_grid_and_its_own_are_not_stale(benched: Path, tmp_path: Path) -> None:
    out, file = shutil.copytree(benched, tmp_path / "out"), tmp_path / "mine.toml"
    file.write_text(OWN_EXPERIMENT)
    before = {folder.name for folder in (out / "runs").iterdir()}
    arguments = ("--profile", SMALL_PROFILE, "--out", out)
    made = json.loads(call("experiment", file, "--suite", "dmc", *arguments, "--workers", "1", "--json"))
    arms = made["factors"][0]["arms"]
    assert [(arm["level"], arm["done"], arm["expected"]) for arm in arms] == [("profile", 1, 1), ("none", 1, 1)]
    (new,) = {folder.name for folder in (out / "runs").iterdir()} - before
    assert arms[0]["runs"][0] in before and arms[1]["runs"] == [new] and Path(made["report"]).is_file()
    runs = json.loads(call("status", "dmc", *arguments, "--json"))
    assert [(run["method"], run["experiment"], run["status"]) for run in runs] == [
        ("dreamer", [], "done"),
        ("wpt", ["mine/guidance/profile"], "done"),
        ("wpt", ["mine/guidance/none"], "done"),
    ]
    report = json.loads(call("report", "dmc", *arguments, "--json"))
    assert report["tables"][0]["stale"] == [] and [one["name"] for one in report["experiments"]] == ["mine"]
    call("publish", "dmc", *arguments, "--to", tmp_path / "results")
    published = json.loads(call("verify", tmp_path / "results", "--json"))
    assert published["ok"]
    figures = json.loads((tmp_path / "results" / "dmc-small" / "figures.json").read_bytes())
    assert new in figures["experiments"][0]["scores"] and new not in figures["tables"][0]["scores"]
