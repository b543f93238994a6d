"""The whole way from pictures: collected, pre-trained on, retrieved, cloned from, fine-tuned on."""

from pathlib import Path

import msgspec
import pytest

from running import small
from wpt_bench import profiles, records
from wpt_bench.running import bench
from wpt_bench.running.grid import run_grid
from wpt_bench.running.local import this_machine
from wpt_bench.running.loop import execute
from wpt_bench.running.plan import Layout, identities, select, stages
from wpt_bench.running.rerun import rerun
from wpt_bench.running.stages import open_loop_examples, read_stage
from wpt_bench.suites.rendering import BACKENDS


@pytest.mark.pixels
def test_a_run_from_pictures(tmp_path: Path) -> None:
    smoke = profiles.load("smoke-pixels")
    grid = smoke.grids["dmc"]
    data = msgspec.structs.replace(grid.data, scenes=("cartpole",), curiosity=0, random_reward=0, pink_noise=3)
    grid = msgspec.structs.replace(grid, tasks=(small.TASK,), data=data)
    selection = select("dmc", msgspec.structs.replace(smoke, grids={"dmc": grid}), (), ("wpt",), (0,))
    layout = Layout(tmp_path)
    dataset = bench.ensure_data(selection, layout, small.silent, lambda question: False, workers=1)
    (wanted,) = stages(selection, dataset.digest)
    assert not run_grid((), layout, dataset.path, lambda *what: None, this_machine(1), stages=[wanted]).failed
    stage = read_stage(layout, records.digest(wanted))
    assert stage is not None
    assert stage.open_loop[0]["model"] > 0
    (example,) = open_loop_examples(layout, [stage.id])
    frames = example["embodiments"]["cartpole"]
    assert frames["truth"].shape == (20, 64, 64, 3) and frames["predicted"].shape == (15, 64, 64, 3)
    assert frames["truth"].dtype == frames["predicted"].dtype == "uint8" and set(frames) == {"truth", "predicted"}
    identity = identities(selection, dataset.digest)[0]
    execute(identity, layout, dataset.path, small.silent)
    run = records.read_run(layout.runs / records.digest(identity))
    assert run.status == "done" and run.updates > 0 and len(run.diagnostics["retrieved"]) == 2
    assert identity.protocol["rendering"] and identity.observation == "pixels"
    assert run.provenance["graphics"] in BACKENDS
    rows = records.read_episodes(layout.runs / run.id)
    again = rerun(run, rows, layout, small.silent, episodes=1)
    assert again.compared and (again.findings, again.environment) == ((), ())
    drawn = msgspec.structs.replace(run, provenance=run.provenance | {"graphics": "glx"})
    (differs,) = rerun(drawn, rows, layout, small.silent, episodes=1).environment
    assert differs == f"graphics {run.provenance['graphics']} of this machine, recorded glx"
