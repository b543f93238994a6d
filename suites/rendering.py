"""Small pictures of MuJoCo scenes, fast on a CPU.

Software OpenGL spends nearly all its time on what a 64x64 picture does not need: shadows, reflections, multi-sampling,
a skybox, finely cut round shapes, and an offscreen buffer of 640x480 or more. Here they are off, and the buffer is as
large as the picture. The settings are part of a pixel run's protocol.

A graphics library is loaded when a ``Renderer`` is made and not before.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wpt_bench.protocol import UserError

BACKENDS = ("egl", "osmesa", "glfw")
SETTINGS: dict[str, Any] = {
    "renderer": "mujoco",
    "shadows": False,
    "reflections": False,
    "skybox": False,
    "haze": False,
    "samples": 0,
    "slices": 12,
    "stacks": 8,
    "floor_cells": 2500,
}
"""What is drawn and how; belongs to the protocol of a pixel observation."""

_PROBE = """
import sys, mujoco
from wpt_bench.suites.rendering import Renderer
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 2'/><geom size='1' rgba='1 0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with Renderer(model, 16, backend=sys.argv[1]) as renderer:
    sys.exit(0 if renderer.render(data, -1).any() else 1)
"""


@contextlib.contextmanager
def without_graphics() -> Iterator[None]:
    """Within it, importing mujoco or dm_control loads no graphics library, whatever ``MUJOCO_GL`` says."""
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disable"
    try:
        yield
    finally:
        if before is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = before


with without_graphics():
    import mujoco


class Renderer:
    """Draws a model from one of its cameras into a square uint8 picture.

    The offscreen size and quality in ``model.vis`` and the drawn grid of large floors are changed; nothing of the
    simulation is. Several renderers may
    live in one process. Use it as a context manager, or call ``close``.
    """

    def __init__(self, model: mujoco.MjModel, size: int, *, backend: str | None = None) -> None:
        """Makes a drawing context for ``model`` and pictures of ``size`` x ``size``.

        Raises:
            UserError: if no graphics library works (``backend`` is chosen by ``choose_backend`` unless given).
        """
        self._model = model
        backend = backend or choose_backend()
        visual = model.vis
        visual.global_.offwidth = visual.global_.offheight = size
        visual.quality.offsamples = SETTINGS["samples"]
        visual.quality.shadowsize = 0
        visual.quality.numslices = SETTINGS["slices"]
        visual.quality.numstacks = SETTINGS["stacks"]
        _coarsen_floors(model)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        flags = mujoco.mjtRndFlag
        for flag, setting in (
            (flags.mjRND_SHADOW, "shadows"),
            (flags.mjRND_REFLECTION, "reflections"),
            (flags.mjRND_SKYBOX, "skybox"),
            (flags.mjRND_HAZE, "haze"),
        ):
            self._scene.flags[flag] = SETTINGS[setting]
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._rectangle = mujoco.MjrRect(0, 0, size, size)
        self._picture = np.empty((size, size, 3), np.uint8)
        try:
            # MuJoCo's own context class, whatever ``MUJOCO_GL`` was when mujoco was imported.
            self._context = importlib.import_module(f"mujoco.{backend}").GLContext(size, size)
            self._context.make_current()
            self._mujoco = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        except Exception as error:  # every library, and PyOpenGL where it finds none, fails in its own way
            raise UserError(_NO_LIBRARY) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mujoco)
        # Runs when this object goes, and before the graphics library does at the end of the process.
        self._free = weakref.finalize(self, _free, self._context, self._mujoco)

    def render(self, data: mujoco.MjData, camera: int | str) -> NDArray[np.uint8]:
        """The scene as ``camera`` (id or name; -1 is MuJoCo's free camera) sees it: uint8 ``(size, size, 3)``.

        Raises:
            ValueError: if the model has no such camera.
        """
        if not self._free.alive:
            raise ValueError("This renderer was closed: make another one.")
        self._camera.fixedcamid = self._camera_id(camera)
        if self._camera.fixedcamid == -1:
            mujoco.mjv_defaultFreeCamera(self._model, self._camera)
        else:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        # Another renderer's context may be current.
        self._context.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._options, None, self._camera, everything, self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._mujoco)
        mujoco.mjr_readPixels(self._picture, None, self._rectangle, self._mujoco)
        return self._picture[::-1].copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Frees the drawing context; safe to call twice."""
        self._free()

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _camera_id(self, camera: int | str) -> int:
        if isinstance(camera, str):
            number = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
            known = number >= 0
        else:
            number, known = camera, -1 <= camera < self._model.ncam
        if not known:
            raise ValueError(f"The model has no camera {camera!r}.")
        return int(number)


def choose_backend() -> str:
    """The graphics library to draw with: ``MUJOCO_GL`` if it names one, else EGL where it truly works, else OSMesa.

    Where ``MUJOCO_GL`` is unset, ``PYOPENGL_PLATFORM`` is heeded: PyOpenGL would use no other library.

    The choice is put into ``MUJOCO_GL``, so worker processes started later neither probe again nor choose otherwise.

    Raises:
        UserError: if none works, or ``MUJOCO_GL`` switches graphics off or names nothing we know.
    """
    asked = (os.environ.get("MUJOCO_GL") or os.environ.get("PYOPENGL_PLATFORM", "")).lower().strip()
    if asked in BACKENDS:
        return asked
    if asked not in ("", "enable", "enabled", "on", "true", "1"):
        raise UserError(
            f"MUJOCO_GL={asked} gives no pictures: set it to {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, or unset it "
            "to let wpt-bench choose."
        )
    for backend in ("egl", "osmesa"):
        if _works(backend):
            os.environ["MUJOCO_GL"] = backend
            return backend
    raise UserError(_NO_LIBRARY)


def available_backends() -> dict[str, bool]:
    """Each back end we know, and whether it draws a picture on this machine (tried in a process of its own)."""
    return {backend: _works(backend) for backend in BACKENDS}


_NO_LIBRARY = (
    "Pixel observations need a graphics library and none works here: install the Debian package libosmesa6, or libegl1 "
    "with libgl1-mesa-dri (MUJOCO_GL=osmesa or MUJOCO_GL=egl forces one, unset it takes EGL where it works and else "
    "OSMesa)."
)


@functools.cache
def _works(backend: str) -> bool:
    # In another process, because PyOpenGL can be bound to one library per process only.
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, backend],
            env=environment | {"MUJOCO_GL": "disable"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _coarsen_floors(model: mujoco.MjModel) -> None:
    # MuJoCo draws a plane cell by cell, up to 200 x 200 of them, which is all the time of a picture with a large floor.
    # The third number of a plane's size is the spacing of these cells and is used for drawing only.
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE):
        x, y, spacing = model.geom_size[geom]
        cells = np.prod([min(mujoco.mjMAXPLANEGRID, 2 * half / spacing) for half in (x, y)])
        if cells > SETTINGS["floor_cells"]:
            model.geom_size[geom, 2] = np.sqrt(4 * x * y / SETTINGS["floor_cells"])


def _free(context: Any, mujoco_context: Any) -> None:
    # MuJoCo deletes its textures and buffers by number in whichever context is current: it must be their own.
    context.make_current()
    mujoco_context.free()
    context.free()
