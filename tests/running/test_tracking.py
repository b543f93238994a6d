"""Curves for people: what TensorBoard reads, also after an interruption, and that nothing depends on them."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.main import get_command

from running import small
from wpt_bench import records
from wpt_bench.cli import app
from wpt_bench.protocol import UserError
from wpt_bench.running.loop import execute
from wpt_bench.running.plan import Layout
from wpt_bench.running.tracking import chosen

SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from running import small
from wpt_bench.running.loop import execute
from wpt_bench.running.plan import Layout
identity = small.identity("dreamer", None, budget=6000)
execute(identity, Layout(Path(sys.argv[1])), None, small.silent, checkpoint_seconds=1e9, trackers=("tensorboard",))
"""


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def recorded(folder: Path, kind: str) -> list[tuple[int, float]]:
    """Mean returns by environment step."""
    by_step: dict[int, list[float]] = {}
    for row in records.read_episodes(folder):
        if row.kind == kind:
            by_step.setdefault(row.env_step, []).append(row.episode_return)
    return [(step, sum(returns) / len(returns)) for step, returns in by_step.items()]


def test_every_row_is_a_point_and_after_a_kill_none_is_there_twice(tmp_path: Path) -> None:
    identity = small.identity("dreamer", None, budget=6000)
    folder = Layout(tmp_path).runs / records.digest(identity)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(Path(__file__).parents[1])]
    process = subprocess.Popen(command)
    while process.poll() is None and not (folder.exists() and len(recorded(folder, "train")) >= 3):
        time.sleep(0.01)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    execute(identity, Layout(tmp_path), None, small.silent, trackers=("tensorboard",))
    shown = points(folder)
    assert len(list((folder / "tensorboard").iterdir())) == 2
    for kind in ("train", "evaluation"):
        expected = recorded(folder, kind)
        assert [step for step, _ in shown[f"{kind}/return"]] == [step for step, _ in expected]
        assert [value for _, value in shown[f"{kind}/return"]] == pytest.approx([value for _, value in expected])
    last = records.read_episodes(folder)[-3]
    assert {f"update/{name}" for name in last.metrics} <= shown.keys()
    rows = [row for row in records.read_episodes(folder) if row.kind == "evaluation"]
    for name in rows[0].metrics:
        assert [step for step, _ in shown[f"evaluation/{name}"]] == sorted({row.env_step for row in rows})
        final = [row.metrics[name] for row in rows[-2:]]
        assert shown[f"evaluation/{name}"][-1][1] == pytest.approx(sum(final) / 2)


def test_a_tracker_that_fails_is_a_warning_and_changes_nothing(tmp_path: Path) -> None:
    identity = small.identity("dreamer", None)
    plain, blocked = Layout(tmp_path / "plain"), Layout(tmp_path / "blocked")
    folder = blocked.runs / records.digest(identity)
    folder.mkdir(parents=True)
    (folder / "tensorboard").write_text("a file where the folder should be")
    execute(identity, plain, None, small.silent)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        execute(identity, blocked, None, small.silent, trackers=("tensorboard",))
    assert ["tensorboard failed and is left out" in str(one.message) for one in said].count(True) == 1
    assert small.outcome(plain, records.digest(identity)) == small.outcome(blocked, records.digest(identity))


WANDB = """
import json, os
from pathlib import Path
LOG = Path(os.environ["WANDB_LOG"])
def say(what, values):
    with open(LOG, "a") as file:
        file.write(json.dumps([what, values]) + "\\n")
def init(**options):
    say("init", options)
    return Run()
class Run:
    def log(self, values, step):
        say("log", [step, values])
        if step >= int(os.environ.get("WANDB_FAILS_AT", 10**9)):
            raise ConnectionError("no network")
    def finish(self):
        say("finish", None)
"""
"""A package of this name that writes down what it is told, as no test may need an account."""

WITH_WANDB = (
    SCRIPT.replace("budget=6000", "")
    .replace('("tensorboard",)', 'chosen("wandb")')
    .replace(
        "from wpt_bench.running.loop", "from wpt_bench.running.tracking import chosen\nfrom wpt_bench.running.loop"
    )
)


@pytest.mark.parametrize("fails_at", [None, 0, 1000])
def test_wandb_is_told_every_row_and_may_fail(tmp_path: Path, fails_at: int | None) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(WANDB)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "packages"), "WANDB_LOG": str(tmp_path / "log")}
    environment |= {} if fails_at is None else {"WANDB_FAILS_AT": str(fails_at)}
    command = [sys.executable, "-c", WITH_WANDB, str(tmp_path / "shown"), str(Path(__file__).parents[1])]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    identity, plain = small.identity("dreamer", None), Layout(tmp_path / "plain")
    run_id = records.digest(identity)
    execute(identity, plain, None, small.silent)
    assert small.outcome(Layout(tmp_path / "shown"), run_id) == small.outcome(plain, run_id)
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (_, options), *rest = told
    assert (options["id"], options["resume"], options["group"]) == (run_id, "allow", "dmc-small")
    assert options["config"]["method"] == "dreamer" and options["config"].items() >= identity.settings.items()
    assert Path(options["dir"]) == tmp_path / "shown" / "runs" / run_id
    points = [what for kind, what in rest if kind == "log"]
    assert [step for step, _ in points] == sorted(step for step, _ in points)
    assert made.stderr.count("tracker wandb failed and is left out (ConnectionError: no network)") == (
        fails_at is not None
    )
    if fails_at is not None:
        assert [step >= fails_at for step, _ in points].count(True) == 1 and ["finish", None] not in rest
        return
    assert rest[-1] == ["finish", None]
    folder = tmp_path / "shown" / "runs" / run_id
    for kind in ("train", "evaluation"):
        shown = [(step, values[f"{kind}/return"]) for step, values in points if f"{kind}/return" in values]
        assert shown == recorded(folder, kind)


def test_wandb_that_cannot_begin_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text("raise ImportError('half installed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    identity = small.identity("dreamer", None)
    with pytest.warns(UserWarning, match="tracker wandb failed and is left out .ImportError: half installed"):
        execute(identity, Layout(tmp_path / "out"), None, small.silent, trackers=chosen("wandb"))
    assert records.read_run(Layout(tmp_path / "out").runs / records.digest(identity)).status == "done"


def test_wandb_is_used_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    (option,) = [one for one in get_command(app).commands["run"].params if one.name == "tracker"]
    assert chosen(option.default) == ("tensorboard",)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(UserError, match="The tracker wandb is not installed; install it: pip install wandb"):
        chosen("wandb")


def test_the_choice_of_trackers() -> None:
    assert chosen("tensorboard") == ("tensorboard",) and chosen("none") == ()
    with pytest.raises(UserError, match="There is no tracker 'mlflow'"):
        chosen("tensorboard,mlflow")


def test_other_commands_do_not_pay_for_the_import() -> None:
    heavy = "import sys, wpt_bench.running.grid; sys.exit('tensorboard' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0
