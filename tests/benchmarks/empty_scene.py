"""What no picture is faster than: an empty scene, drawn and read back."""

import statistics
import time

import mujoco

from wpt_bench.protocol import IMAGE_SIZE
from wpt_bench.suites.rendering import Renderer


def seconds_of_an_empty_picture() -> float:
    """The median of a hundred."""
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    data, seconds = mujoco.MjData(model), []
    mujoco.mj_forward(model, data)
    with Renderer(model, IMAGE_SIZE) as renderer:
        for _ in range(100):
            started = time.perf_counter()
            renderer.render(data, -1)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
