"""The grid on Ray: equal to the local pool's to the last bit, also where a node is lost in the middle."""

import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from running import small
from wpt_bench import records
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import UserError
from wpt_bench.running import storage
from wpt_bench.running.cache import CACHE_VARIABLE
from wpt_bench.running.executors import choose
from wpt_bench.running.grid import run_grid
from wpt_bench.running.jobs import Place
from wpt_bench.running.local import this_machine
from wpt_bench.running.plan import Layout

ray = pytest.importorskip("ray", reason="Ray is not installed")

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture
def cluster() -> Iterator[object]:
    """A head without cores, for the test to add nodes to."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
    yield made
    made.shutdown()


@pytest.mark.cluster
def test_a_run_that_fails_is_recorded_and_the_other_is_the_local_pools(tmp_path: Path) -> None:
    good = small.identity("dreamer", None)
    bad = msgspec.structs.replace(good, settings=good.settings | {"model_lr": 4e9, "grad_clip": 4e9})
    local, there = Layout(tmp_path / "local"), Layout(tmp_path / "ray")
    run_grid([good], local, None, lambda *what: None, this_machine(1))
    seen: dict[str, str] = {}
    result = run_grid(
        [bad, good],
        there,
        None,
        lambda run, share, what: seen.update({run: what}),
        choose("ray", workers=2),
        retries=0,
    )
    assert result.done == (records.digest(good),) and list(result.failed) == [records.digest(bad)]
    assert "smaller step size" in result.failed[records.digest(bad)]
    assert records.read_run(there.runs / records.digest(bad)).status == "failed"
    assert small.outcome(there, records.digest(good)) == small.outcome(local, records.digest(good))
    assert seen[records.digest(good)].startswith("done in")
    assert not ray.is_initialized()


def test_without_a_shared_disk_all_goes_through_storage(
    prepared: tuple[Layout, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folder, cache = prepared[1].digest, small.path(prepared[0]), tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    stage, run = small.stage(data), small.identity("wpt", data)
    local, there = Layout(tmp_path / "local"), Layout(tmp_path / "ray")
    url = (tmp_path / "storage").as_uri()
    run_grid([run], local, folder, lambda *what: None, this_machine(1), stages=[stage])
    place = choose("ray", workers=1, storage=url)
    result = run_grid([run], there, folder, lambda *what: None, place, stages=[stage], trackers=("tensorboard",))
    assert set(result.done) == {records.digest(stage), records.digest(run)}
    assert small.outcome(there, records.digest(run)) == small.outcome(local, records.digest(run))
    assert list((there.runs / records.digest(run) / "tensorboard").iterdir())
    assert (cache / "data" / data / "manifest.json").exists()
    assert not list((cache / "runs").iterdir())  # what is done is in storage


@pytest.mark.cluster
def test_a_node_is_lost_in_the_middle_and_nothing_else(
    prepared: tuple[Layout, Dataset], tmp_path: Path, cluster: object, s3: str
) -> None:
    data, folder = prepared[1].digest, small.path(prepared[0])
    stage = small.stage(data, updates=40)
    runs = [small.identity(method, data, seed=seed, budget=8000) for method in ("dreamer", "wpt") for seed in (0, 1)]
    runs = [msgspec.structs.replace(run, stage=records.digest(stage)) if run.stage else run for run in runs]
    local, there, url = Layout(tmp_path / "local"), Layout(tmp_path / "ray"), f"{s3}/{uuid.uuid4().hex}"
    calm = run_grid(runs, local, folder, lambda *what: None, this_machine(1), stages=[stage])
    assert not calm.failed
    caches = [tmp_path / "node-a", tmp_path / "node-b"]
    nodes = [cluster.add_node(**NODE, env_vars={CACHE_VARIABLE: str(cache)}) for cache in caches]
    lost: dict[str, records.Episode] = {}

    def lose_a_node() -> None:
        """As soon as a run on it has a checkpoint in storage that holds its first training episode."""
        store = storage.open_store(url)
        while not lost:
            for run in runs:
                run_id = records.digest(run)
                found = storage._current(store, f"runs/{run_id}")
                if found is None or "replay/000001.safetensors" not in found[0].files or found[1].endswith("done"):
                    continue
                if not (caches[0] / "runs" / run_id).exists():
                    continue
                try:
                    sha = found[0].files[records.ROWS].sha256
                    rows = store.fs.cat_file(f"{store.root}/objects/runs/{run_id}/{sha}").splitlines()
                except FileNotFoundError:  # it has just been replaced
                    continue
                cluster.remove_node(nodes[0], allow_graceful=False)
                first = msgspec.json.decode(next(row for row in rows if b'"train"' in row), type=records.Episode)
                lost[run_id] = first
                return
            time.sleep(0.02)

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    result = run_grid(
        runs,
        there,
        folder,
        lambda *what: None,
        choose("ray", workers=1, address=cluster.address, storage=url),
        stages=[stage],
        checkpoint_seconds=0.0,
    )
    assert lost and not result.failed
    assert set(result.done) == {records.digest(job) for job in (stage, *runs)}
    for run in runs:
        assert small.outcome(there, records.digest(run)) == small.outcome(local, records.digest(run))
    assert there.weights(records.digest(stage)).read_bytes() == local.weights(records.digest(stage)).read_bytes()
    ((run_id, first),) = lost.items()
    rows = records.read_episodes(there.runs / run_id)
    assert next(row for row in rows if row.kind == "train") == first  # to its clock: it went on, it did not begin anew
    assert not list((caches[1] / "runs").glob("*"))  # what is done stays in no cache
    elsewhere = Layout(tmp_path / "another machine")
    again = run_grid(runs, elsewhere, folder, lambda *what: None, Place(_none_needed, storage=url), stages=[stage])
    assert set(again.done) == set(result.done)
    assert small.outcome(elsewhere, run_id) == small.outcome(local, run_id)


def _none_needed(work: object, jobs: int) -> None:
    raise AssertionError("everything was done before")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "rai"}, "There is no executor 'rai'; choose local or ray."),
        ({"name": "local", "address": "10.0.0.1:6379"}, "--address goes with --executor ray."),
        ({"name": "local", "storage": "s3://x"}, "--storage goes with --executor ray."),
        ({"name": "ray", "device": "cuda"}, "--device cuda on Ray needs --gpus-per-run"),
    ],
)
def test_what_does_not_fit_is_a_sentence(arguments: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        choose(**arguments, workers=1)
    assert str(raised.value).startswith(sentence)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if there were none
    with pytest.raises(UserError, match=r"not installed: pip install 'wpt-bench\[ray\]'"):
        choose("ray", workers=1)
