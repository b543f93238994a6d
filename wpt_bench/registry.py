"""Finds methods and suites: ours, and other packages', all through entry points.

A package adds a method with ``[project.entry-points."wpt_bench.methods"]`` pointing at a ``protocol.Method`` or a
sequence of them, and a suite with ``wpt_bench.suites`` pointing at a ``protocol.Suite``.
"""

from __future__ import annotations

import difflib
import functools
import warnings
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from wpt_bench.protocol import Method, Suite, Task, UserError

_METHODS, _SUITES = "wpt_bench.methods", "wpt_bench.suites"


def nearest(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist: it names the nearest ones that do."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    return UserError(f"There is no {kind} {name!r}; did you mean {', '.join(map(repr, close))}?")


@functools.cache
def registered() -> dict[str, tuple[Method, EntryPoint]]:
    """All methods by name, with what they were found by.

    A package whose entry point cannot be loaded is left out with a warning.
    """
    found: dict[str, tuple[Method, EntryPoint]] = {}
    for point, loaded in _loaded(_METHODS)[0]:
        for item in [loaded] if isinstance(loaded, Method) else loaded:
            if item.name in found:
                raise UserError(f"Two packages register a method named {item.name!r}; rename or uninstall one of them.")
            found[item.name] = item, point
    return dict(sorted(found.items()))


def methods() -> dict[str, Method]:
    """All methods by name."""
    return {name: its for name, (its, _) in registered().items()}


def method(name: str) -> Method:
    """The method of this name; UserError naming the nearest ones otherwise."""
    if name not in methods():
        raise _unknown(_METHODS, name, methods())
    return methods()[name]


@functools.cache
def suites() -> dict[str, Suite]:
    """All suites by name."""
    found = {point.name: suite for point, suite in _loaded(_SUITES)[0]}
    return dict(sorted(found.items()))


def suite(name: str) -> Suite:
    """The suite of this name; UserError naming the nearest ones otherwise."""
    if name not in suites():
        raise _unknown(_SUITES, name, suites())
    return suites()[name]


def task(suite_name: str, name: str) -> Task:
    """The task of this name, with or without its suite's prefix (``walker-walk``, ``dmc/walker-walk``)."""
    tasks = {task.name: task for task in suite(suite_name).tasks()}
    prefix, _, short = name.rpartition("/")
    if short not in tasks or prefix not in ("", tasks[short].id.split("/")[0]):
        raise nearest(f"task of the {suite_name} suite named", name, tasks)
    return tasks[short]


@functools.cache
def _loaded(group: str) -> tuple[list[tuple[EntryPoint, Any]], list[str]]:
    """Entry points with what they hold, and a sentence, which is also a warning, for each that cannot be loaded."""
    found, failed = [], []
    for point in entry_points(group=group):
        try:
            if (loaded := point.load()) is None:
                raise LookupError("it holds nothing")
            found.append((point, loaded))
        except Exception as error:  # a stranger's package may fail in any way; ours must go on
            why = f"{group} entry point {point.name!r} cannot be loaded: {type(error).__name__}: {error}."
            failed.append(why)
            warnings.warn(why, stacklevel=3)
    return found, failed


def _unknown(group: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that does not exist; it may be in what could not be loaded."""
    kind = group.removeprefix("wpt_bench.").removesuffix("s")
    return UserError(" ".join([str(nearest(kind, name, known)), *_loaded(group)[1]]))
