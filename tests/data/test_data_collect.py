"""Collection in real processes: the same data however it is interrupted, and one sentence when a job fails."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from filelock import FileLock
from tiny_suite import SUITE, TASKS, Settings, build

from wpt_bench.data.collect import collect
from wpt_bench.data.sequences import SequenceSampler
from wpt_bench.data.store import Dataset, verify
from wpt_bench.data.views import grant
from wpt_bench.protocol import DataAccess, UserError


def run(folder, scenes=("cart", "boat"), workers=2, seed=0, told=None, **settings):
    def progress(fraction, what=""):
        if told is not None:
            told.append(fraction)

    return collect(SUITE, Settings(**settings), scenes, seed, folder, workers=workers, progress=progress)


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_end_to_end_from_collection_to_batches(tmp_path):
    """Collect in two processes, verify, grant, sample: what is learned from is what the simulator gave."""
    told: list[float] = []
    data = run(tmp_path, ("cart", "arm-push"), told=told, pixels=True)
    assert verify(tmp_path) == []
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(data.episodes) == 12
    episodes = grant(data, DataAccess.LABELLED, TASKS["cart-left"], SUITE, "state").episodes()
    batch = SequenceSampler(episodes, 31, "state").sample(6, np.random.default_rng(0))
    env = SUITE.make(TASKS["cart-left"], "state")
    units = SUITE.units("cart")
    carts = [info for info in data.episodes if info.scene == "cart"]
    seeds = {float(units.apply(data.state(info.index)[0])[0]): info.seed for info in carts}
    for row in range(6):
        first, _ = env.reset(seed=seeds[float(batch.observation[row, 0, 0])])
        np.testing.assert_array_equal(batch.observation[row, 0, :3], units.apply(first))
        for t in range(1, 31):
            observation, reward, _, truncated, _ = env.step(batch.action[row, t, :1])
            np.testing.assert_array_equal(batch.observation[row, t, :3], units.apply(observation))
            assert batch.reward[row, t] == np.float32(reward)
        assert truncated


def test_workers_do_not_change_the_data(tmp_path):
    one = run(tmp_path / "data", workers=1)
    (tmp_path / "data").rename(tmp_path / "one")
    many = run(tmp_path / "data", workers=3)
    assert one.digest == many.digest


def test_finished_shards_are_kept_and_scenes_added(tmp_path):
    run(tmp_path, ("cart",))
    times = {name: (tmp_path / name / "state.npy").stat().st_mtime_ns for name in shards(tmp_path)}
    data = run(tmp_path, ("cart", "boat"))
    assert len(data.episodes) == 12
    assert {name: (tmp_path / name / "state.npy").stat().st_mtime_ns for name in times} == times
    again = run(tmp_path, ("boat",))
    assert again.digest == data.digest


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("raise", "boat-noise failed: RuntimeError: the cart fell over"),
        ("die", "boat-noise was killed .exit code 9"),
    ],
)
def test_a_job_that_fails_is_named_and_the_rest_is_kept(tmp_path, kind, words):
    with pytest.raises(UserError, match=words):
        run(tmp_path, workers=1, trouble=f"{kind}:boat-noise")
    assert shards(tmp_path) == ["cart-noise", "cart-still"]
    assert not list(tmp_path.glob(".*.tmp"))
    assert run(tmp_path).digest == run(tmp_path).digest
    assert len(Dataset.open(tmp_path).episodes) == 12


def gone(group: int) -> bool:
    """Whether every process of the group ends within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        living = [
            process
            for process in psutil.process_iter(["pid", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE and process_group(process.pid) == group
        ]
        if not living:
            return True
        time.sleep(0.1)
    return False


def process_group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def heed_interrupts() -> None:
    """What starts the tests may ignore SIGINT, and a child would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("signals", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_collection_goes_on(tmp_path, signals):
    """Ctrl-C (sent to the whole group, as a terminal does) and kill -9 leave the finished shards and no process."""
    code = (
        "import sys; from pathlib import Path; from test_data_collect import run\n"
        "if __name__ == '__main__':\n"
        "    run(Path(sys.argv[1]), workers=1, trouble='sleep:boat-noise')\n"
    )
    script = tmp_path / "interrupted.py"
    script.write_text(code)
    folder = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(folder.glob(".boat-noise.*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        if signals is signal.SIGINT:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert shards(folder)[-2:] == ["cart-noise", "cart-still"]
    assert gone(process.pid)
    if signals is signal.SIGINT:
        assert not list(folder.glob(".*.tmp"))
    build(tmp_path / "whole")
    data = run(folder)
    assert not list(folder.glob(".*.tmp"))
    for info in data.episodes:
        whole = np.load(tmp_path / "whole" / info.shard / "state.npy")
        np.testing.assert_array_equal(np.load(folder / info.shard / "state.npy"), whole)


def test_other_settings_are_not_mixed(tmp_path):
    run(tmp_path, ("cart",))
    for changes in ({"episodes": 4}, {"seed": 1}):
        with pytest.raises(UserError, match="collected with other settings"):
            run(tmp_path, ("cart", "boat"), **changes)
    assert shards(tmp_path) == ["cart-noise", "cart-still"]


def test_a_collection_waits_for_another_and_uses_what_it_collected(tmp_path):
    run(tmp_path / "theirs", ("cart",))
    folder, asked = tmp_path / "data", threading.Event()
    folder.mkdir()
    with ThreadPoolExecutor() as threads:
        with FileLock(folder / ".collect.lock"):
            second = threads.submit(
                collect, SUITE, Settings(), ("cart",), 0, folder, workers=1, progress=lambda *what: asked.set()
            )
            assert asked.wait(60)
            for name in ("cart-noise", "cart-still"):
                (tmp_path / "theirs" / name).rename(folder / name)
            before = (folder / "cart-noise" / "state.npy").stat().st_mtime_ns
            assert not second.done()
        assert len(second.result().episodes) == 6
    assert (folder / "cart-noise" / "state.npy").stat().st_mtime_ns == before


def test_the_manifest_says_how_it_was_collected(tmp_path):
    run(tmp_path, ("cart",), seed=5, collectors=("noise",))
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    assert (manifest["suite"], manifest["suite_version"], manifest["seed"]) == ("tiny", 1, 5)
    assert manifest["settings"]["collectors"] == ["noise"]
    assert manifest["shards"][0]["settings"]["seed"] == 5
