"""Pictures: right way up, independent of each other, and never at the expense of who needs none."""

import multiprocessing
import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from wpt_bench.protocol import UserError
from wpt_bench.suites import rendering
from wpt_bench.suites.dmc import SUITE

TASKS = {task.name: task for task in SUITE.tasks()}
FLAG = """
<mujoco>
  <visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual>
  <worldbody>
    <camera name="front" pos="0 -3 0" xyaxes="1 0 0 0 0 1" fovy="45"/>
    <camera name="behind" pos="0 3 0" xyaxes="-1 0 0 0 0 1" fovy="45"/>
    <geom type="box" size=".5 .1 .5" pos="-.5 0 .5" rgba="1 0 0 1"/>
    <geom type="box" size=".5 .1 .5" pos=".5 0 .5" rgba="0 1 0 1"/>
    <geom type="box" size="1 .1 .5" pos="0 0 -.5" rgba="0 0 1 1"/>
    <body pos="0 -.5 0"><freejoint/><geom size=".1" rgba="1 1 1 1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def backend():
    try:
        return rendering.choose_backend()
    except UserError as error:
        pytest.skip(str(error))


def flag():
    model = mujoco.MjModel.from_xml_string(FLAG)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.pixels
def test_picture_is_the_right_way_up(backend):
    model, data = flag()
    with rendering.Renderer(model, 64) as renderer:
        front, behind = renderer.render(data, "front"), renderer.render(data, "behind")
        np.testing.assert_array_equal(renderer.render(data, 0), front)
    assert front.shape == (64, 64, 3)
    assert front.dtype == np.uint8
    red, green, blue, white = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
    assert front[20, 20].tolist() == red
    assert front[20, 44].tolist() == green
    assert front[44, 20].tolist() == front[44, 44].tolist() == blue
    assert front[32, 32].tolist() == white
    assert behind[20, 20].tolist() == green
    assert behind[20, 44].tolist() == red
    assert behind[32, 32].tolist() != white


@pytest.mark.pixels
def test_unknown_camera_and_closed_renderer(backend):
    model, data = flag()
    renderer = rendering.Renderer(model, 16)
    for camera in ("top", 2, -2):
        with pytest.raises(ValueError, match="no camera"):
            renderer.render(data, camera)
    assert renderer.render(data, -1).any()
    renderer.close()
    renderer.close()
    with pytest.raises(ValueError, match="closed"):
        renderer.render(data, 0)


@pytest.mark.pixels
def test_renderers_do_not_disturb_each_other(backend):
    """Frames of interleaved envs equal the frames of one alone, also after another one was thrown away."""
    names = ("walker-walk", "quadruped-walk", "walker-walk")
    alone = []
    for name in names:
        env = SUITE.make(TASKS[name], "pixels")
        alone.append([env.reset(seed=1)[0], *(env.step(np.ones(env.task.action_dim, np.float32))[0] for _ in range(4))])
        env.close()
    envs = [SUITE.make(TASKS[name], "pixels") for name in names]
    together = [[env.reset(seed=1)[0]] for env in envs]
    for step in range(4):
        if step == 2:
            SUITE.make(TASKS["cheetah-run"], "pixels").reset(seed=0)  # dropped without close
        for env, frames in zip(envs, together, strict=True):
            frames.append(env.step(np.ones(env.task.action_dim, np.float32))[0])
    np.testing.assert_array_equal(np.array(together), np.array(alone))
    assert all(len(np.unique(frames[-1].reshape(-1, 3), axis=0)) > 20 for frames in together)
    assert not np.array_equal(together[0][0], together[0][-1])


@pytest.mark.pixels
def test_rendering_does_not_change_the_simulation(backend):
    task = TASKS["cheetah-run"]
    seen, unseen = SUITE.make(task, "pixels"), SUITE.make(task, "state")
    seen.reset(seed=2)
    unseen.reset(seed=2)
    for step in range(10):
        action = np.full(6, (-1) ** step, np.float32)
        assert seen.step(action)[1] == unseen.step(action)[1]
        np.testing.assert_array_equal(seen.state(), unseen.state())
        np.testing.assert_array_equal(seen.frame_physics, unseen.frame_physics)
    np.testing.assert_array_equal(seen.render(), unseen.render())


@pytest.mark.pixels
def test_no_task_of_a_body_is_told_apart_by_its_picture(backend):
    """Bodies and floors are drawn alike, wherever the body has gone."""
    for embodiment, action_dim in (("walker", 6), ("cheetah", 6), ("quadruped", 12)):
        pictures = {}
        for task in SUITE.tasks():
            if task.paper and task.embodiment == embodiment:
                env = SUITE.make(task, "pixels")
                env.reset(seed=4)
                physics = env.simulator.physics
                with physics.reset_context():
                    if embodiment == "quadruped":
                        physics.named.data.qpos["root"][:3] = -30, 0, 1
                    else:
                        physics.named.data.qpos["rootx"] = -30
                pictures[task.name] = env.render()
                assert task.action_dim == action_dim
        first, *others = pictures.values()
        assert first[-8:, 8:-8].any(axis=-1).mean() > 0.5 or embodiment == "cheetah"  # there is floor below the body
        assert len(others) >= 4
        for other in others:
            np.testing.assert_array_equal(other, first)


@pytest.mark.pixels
@pytest.mark.filterwarnings("ignore:.*spec.*None")
def test_gymnasiums_checker_on_pixels(backend):
    check_env(SUITE.make(TASKS["walker-walk"], "pixels"), skip_render_check=True)


def _first_frame(name):
    return SUITE.make(TASKS[name], "pixels").reset(seed=6)[0]


@pytest.mark.pixels
def test_pictures_in_a_spawned_worker(backend):
    here = _first_frame("acrobot-swingup")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_first_frame, ("acrobot-swingup",))
    np.testing.assert_array_equal(here, there)


def run_python(code, **environment):
    """In a process with neither choice of a graphics library inherited."""
    kept = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY")}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, check=False
    )


STATE = """
import sys
import numpy as np
from wpt_bench.suites.dmc import SUITE
env = SUITE.make(SUITE.tasks()[0], "state")
env.reset(seed=0)
env.step(np.zeros(1, np.float32))
loaded = {name.split(".")[0] for name in sys.modules} & {"OpenGL", "glfw"}
with open("/proc/self/maps") as maps:
    for line in maps:
        if any(library in line for library in ("libEGL", "libOSMesa", "libGL", "glfw")):
            loaded.add(line.split("/")[-1].strip())
print(sorted(loaded))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the libraries of a process from /proc")
@pytest.mark.parametrize("environment", [{}, {"MUJOCO_GL": "egl"}, {"MUJOCO_GL": "osmesa"}])
def test_state_tasks_load_no_graphics_library(environment):
    done = run_python(STATE, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


PIXELS = """
from wpt_bench.protocol import UserError
from wpt_bench.suites.dmc import SUITE
try:
    SUITE.make(SUITE.tasks()[0], "pixels").reset(seed=0)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("environment", [{}, {"MUJOCO_GL": "egl"}, {"MUJOCO_GL": "osmesa"}, {"MUJOCO_GL": "glfw"}])
def test_without_a_library_one_sentence_says_what_to_install(tmp_path, environment):
    # A machine without EGL and OSMesa: PyOpenGL cannot be imported. GLFW comes in a wheel but has no display.
    (tmp_path / "OpenGL").mkdir()
    (tmp_path / "OpenGL" / "__init__.py").write_text("raise ImportError('no library')")
    done = run_python(PIXELS, PYTHONPATH=str(tmp_path), **environment)
    assert done.returncode == 0, done.stderr
    message = done.stdout.strip()
    assert message.count("\n") == 0
    for word in ("libosmesa6", "libegl1", "libgl1-mesa-dri", "MUJOCO_GL"):
        assert word in message


@pytest.mark.parametrize("value", ["disable", "vulkan"])
def test_mujoco_gl_that_gives_no_pictures(value):
    done = run_python(PIXELS, MUJOCO_GL=value)
    assert done.returncode == 0, done.stderr
    assert f"MUJOCO_GL={value}" in done.stdout


def test_available_backends_names_each(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    found = rendering.available_backends()
    assert set(found) == {"egl", "osmesa", "glfw"}
    try:
        chosen = rendering.choose_backend()
    except UserError:
        assert not (found["egl"] or found["osmesa"])
    else:
        assert found[chosen]
