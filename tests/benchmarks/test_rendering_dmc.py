"""64x64 pictures of DMControl: ours against dm_control's default, in the same run and with the same library."""

import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.empty_scene import seconds_of_an_empty_picture
from wpt_bench.protocol import UserError
from wpt_bench.suites.dmc import SUITE
from wpt_bench.suites.rendering import choose_backend

TASKS = {task.name: task for task in SUITE.tasks()}
# In another process, because here dm_control was imported without graphics.
DEFAULT = """
import sys, time
from dm_control import suite
env = suite.load(sys.argv[1], sys.argv[2])
env.reset()
draw = lambda: env.physics.render(64, 64, camera_id=int(sys.argv[3]))
draw()
start, frames = time.perf_counter(), 0
while time.perf_counter() - start < 2:
    draw()
    frames += 1
print(frames / (time.perf_counter() - start), flush=True)
"""


@pytest.mark.pixels
@pytest.mark.parametrize(
    "name", ["walker-walk", "cheetah-run", "quadruped-walk", "cartpole-balance", "acrobot-swingup"]
)
def test_frames_per_second(benchmark, name):
    try:
        backend = choose_backend()
    except UserError as error:
        pytest.skip(str(error))
    env = SUITE.make(TASKS[name], "pixels")
    env.reset(seed=0)
    picture = benchmark(env.render)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    if benchmark.stats is None:  # benchmarks are switched off
        return
    domain, task = name.split("-")
    done = subprocess.run(
        [sys.executable, "-c", DEFAULT, domain, task, env.task.camera],
        env=os.environ | {"MUJOCO_GL": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    default, ours = float(done.stdout.split()[0]), 1 / benchmark.stats.stats.mean
    benchmark.extra_info.update(
        floor=seconds_of_an_empty_picture(),
        floor_of="drawing and reading back an empty scene",
        reference=1 / default,
        ratio=ours / default,
        backend=backend,
        frames_per_second=ours,
    )
