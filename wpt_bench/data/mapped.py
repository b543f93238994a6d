"""Numpy files on disk as read-only memory maps: checked before they are mapped, handed out in windows, let go again.

``Mapped`` is one flat ``.npy`` file. Its header is written and recognised here as 128 fixed bytes, so an untrusted file
is compared with what its manifest declares and never parsed.
"""

from __future__ import annotations

import mmap
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wpt_bench.protocol import UserError

HEADER_BYTES = 128


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The header of a C-ordered ``.npy`` file, format 1.0, always 128 bytes so that rows can be appended behind it."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}"
    prefix = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return prefix + text.encode("ascii").ljust(HEADER_BYTES - 11) + b"\n"


class Mapped:
    """One ``.npy`` file, mapped read-only when first touched.

    Args:
        path: the file.
        dtype, shape: what its manifest says it holds; checked against the file's header and size here, before any
            memory is reserved. A difference raises UserError naming the file.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        expected = HEADER_BYTES + dtype.itemsize * int(np.prod([1, *shape], dtype=object))
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                header = file.read(HEADER_BYTES)
        except OSError as error:
            raise UserError(f"{path} is missing or cannot be read ({error.strerror}); collect it again.") from error
        if size != expected:
            how = "truncated" if size < expected else "too long"
            raise UserError(f"{path} is {how}: {size} bytes instead of {expected}; collect it again.")
        if header != npy_header(dtype, shape):
            raise UserError(f"{path} does not hold the array that its manifest declares; collect it again.")
        self.path, self.dtype, self.shape = path, dtype, shape

    @cached_property
    def _map(self) -> mmap.mmap:
        with open(self.path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def array(self) -> NDArray[Any]:
        """The whole file, mapped: reading it costs memory only for the pages touched."""
        return np.frombuffer(self._map, self.dtype, offset=HEADER_BYTES).reshape(self.shape)

    def window(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, mapped, as an array from which neither the file nor its other rows are in sight.

        A slice of ``array`` would lead through its ``base`` to the whole shard, and so to what was not granted.
        """
        return np.asarray(_Window(self, start, stop))

    def release(self) -> None:
        """Takes the pages touched so far out of this process's memory; the operating system may keep them cached."""
        self._map.madvise(mmap.MADV_DONTNEED)


class _Window:
    """What owns the memory of one window: speaks numpy's array interface and keeps the map open."""

    __slots__ = ("__array_interface__", "_mapped")

    def __init__(self, mapped: Mapped, start: int, stop: int) -> None:
        rows = mapped.array[start:stop]
        self._mapped = mapped
        self.__array_interface__ = {**rows.__array_interface__, "data": (rows.ctypes.data, True)}


def mapped_file(array: NDArray[Any]) -> Mapped | None:
    """The map behind a window, or None for an array in memory."""
    owner = array.base
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner._mapped if isinstance(owner, _Window) else None
