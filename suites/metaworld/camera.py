"""The pixel observation of Meta-World: the paper's camera, the right way up."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from wpt_bench.protocol import IMAGE_SIZE
from wpt_bench.suites.metaworld import CAMERA
from wpt_bench.suites.metaworld.simulator import Simulator
from wpt_bench.suites.rendering import SETTINGS, Renderer

_POSITION = (0.75, 0.075, 0.7)  # of the camera, nearer than Meta-World's: the authors' setting

PROTOCOL: dict[str, Any] = {"camera": CAMERA, "cam_pos": list(_POSITION), "rolled": 180, "rendering": SETTINGS}
"""What must be equal for two pictures to be compared."""


class Camera:
    """Takes the pictures of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        """Moves the camera of the simulator's model; UserError if no graphics library works."""
        model = simulator.model
        camera = model.camera(CAMERA)
        camera.pos[:] = _POSITION
        # Meta-World mounts this camera upside down. Rolling it by half a turn about its own axis puts it right, with
        # left and right as they are; turning the rows of the picture over would give a mirror image.
        rolled = np.empty(4)
        mujoco.mju_mulQuat(rolled, camera.quat, np.array([0.0, 0.0, 0.0, 1.0]))
        camera.quat[:] = rolled
        self._data = simulator.data
        self._renderer = Renderer(model, IMAGE_SIZE)

    def image(self) -> NDArray[np.uint8]:
        """The scene as it is: uint8 ``(64, 64, 3)``."""
        return self._renderer.render(self._data, CAMERA)

    def close(self) -> None:
        """Frees the drawing context."""
        self._renderer.close()
