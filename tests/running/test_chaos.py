"""A grid by the real command, its processes killed a hundred times: what comes out is what came out in calm."""

import collections
import os
import random
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import psutil
import pytest

from running import killing
from wpt_bench import profiles
from wpt_bench.running import bench
from wpt_bench.running.plan import Layout, Selection, select

KILLS = int(os.environ.get("WPT_BENCH_KILLS", "100"))
METHODS = ("dreamer", "wpt", "wpt-no-rehearsal", "sac", "iql", "cal-ql", "rlpd", "mt-bc", "explore")


def _start(profile: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "wpt_bench", "run", "dmc", "--profile", str(profile), "--out", str(out)]
    command += ["--tasks", "cartpole-balance", "--methods", ",".join(METHODS), "--seeds", "0"]
    command += ["--workers", "2", "--retries", "1000", "--yes"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


def _kill(process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """One of the command's workers, the command alone, or everything at once; says which."""
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    whom = rng.choice(["worker", "worker", "command", "everything"])
    if whom == "worker" and workers:
        rng.choice(workers).kill()
        return whom
    if whom == "everything":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
        psutil.wait_procs(workers, timeout=60)
        assert not any(worker.is_running() for worker in workers), "an orphan goes on"
    process.wait()
    return "everything" if whom == "everything" else "command"


def _outcome(selection: Selection, out: Path) -> dict[str, object]:
    dataset = bench.find_data(selection, Layout(out))
    assert dataset is not None
    return killing.outcome(killing.jobs(selection, dataset.digest), out)


@pytest.mark.chaos
def test_a_hundred_kills_leave_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smoke = files("wpt_bench.suites").joinpath("profiles", "smoke.toml").read_text()
    profile = tmp_path / "smoke.toml"
    profile.write_text(smoke.replace("[grids.dmc.data]", '[grids.dmc.data]\nscenes = ["cartpole"]'))
    selection = select("dmc", profiles.load(str(profile)), ("cartpole-balance",), METHODS, (0,))
    assert _start(profile, tmp_path / "calm").wait() == 0
    calm = _outcome(selection, tmp_path / "calm")
    rng, killed, rounds = random.Random(0), collections.Counter[str](), 0
    while killed.total() < KILLS:
        out = tmp_path / f"killed-{rounds}"
        rounds += 1
        process = _start(profile, out)
        while True:
            try:
                wait = rng.uniform(0, 8) if killed.total() < KILLS else None
                if process.wait(wait) == 0:
                    break
                process = _start(profile, out)  # a killed collector ends the command, which says so
            except subprocess.TimeoutExpired:
                killed[_kill(process, rng)] += 1
                if process.poll() is not None:
                    process = _start(profile, out)
        assert _outcome(selection, out) == calm
    with capsys.disabled():
        each = ", ".join(f"{count} of {whom}" for whom, count in sorted(killed.items()))
        print(f"\n{killed.total()} kills survived ({each}) in {rounds} grids of {len(calm)} stages and runs")  # noqa: T201
