"""What there is: methods, tasks, profiles, experiments, and this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer

from wpt_bench import experiments, profiles, registry
from wpt_bench.cli.console import OUT, Json, Out, app, command, print_rows
from wpt_bench.protocol import UserError

WIDE = (
    *("paper", "version", "online", "tuning", "tuning_evaluations"),
    *("memory_gib", "disk_gib", "observation", "episode_length", "action_repeat"),
)
"""What --json has and a terminal has no room for."""


@command(app, "wpt-bench list methods · wpt-bench list tasks --suite dmc --json", "list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, tasks, suites, profiles or experiments")],
    suite: Annotated[str, typer.Option("--suite", help="tasks of this suite only")] = "",
    as_json: Json = False,
) -> None:
    """Lists methods, tasks, suites, profiles or experiments."""
    listings: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "methods": _methods,
        "experiments": _experiments,
        "tasks": lambda: _tasks(suite),
        "suites": lambda: [{"suite": name, "version": one.version} for name, one in registry.suites().items()],
        "profiles": _profiles,
    }
    if what not in listings:
        raise registry.nearest("listing", what, listings)
    if suite and what != "tasks":
        raise UserError(f"--suite is for tasks: wpt-bench list tasks --suite {suite}.")
    rows = listings[what]()
    if not as_json:  # what fits a terminal
        rows = [{key: value for key, value in row.items() if key not in WIDE} for row in rows]
    print_rows(rows, as_json, title=what)


def _methods() -> list[dict[str, Any]]:
    return [
        {
            "name": method.name,
            "family": method.family,
            "data_access": str(method.data_access),
            "observations": list(method.observations),
            "online": method.online,
            "version": method.version,
            "tuning": method.tuning,
            "tuning_evaluations": method.tuning_evaluations,
            "paper": method.paper,
        }
        for method in registry.methods().values()
    ]


def _experiments() -> list[dict[str, Any]]:
    found = [experiments.load(name) for name in experiments.names()]
    return [
        {"name": one.name, "question": one.question, "factors": [factor.name for factor in one.factors]}
        for one in found
    ]


def _tasks(suite: str) -> list[dict[str, Any]]:
    chosen = [registry.suite(suite)] if suite else list(registry.suites().values())
    return [
        {
            "suite": task.suite,
            "name": task.name,
            "paper": task.paper,
            "embodiment": task.embodiment,
            "state_dim": task.state_dim,
            "action_dim": task.action_dim,
            "episode_length": task.episode_length,
            "action_repeat": task.action_repeat,
            "score": task.score,
        }
        for one in chosen
        for task in one.tasks()
    ]


def _profiles() -> list[dict[str, Any]]:
    return [
        {
            "name": profile.name,
            "description": profile.description,
            "observation": profile.observation,
            "minutes": profile.minutes,
            "memory_gib": profile.memory_gib,
            "disk_gib": profile.disk_gib,
            "suites": list(profile.grids),
        }
        for profile in map(profiles.load, profiles.names())
    ]


@command(app, "wpt-bench doctor · wpt-bench doctor --json")
def doctor(out: Out = OUT, as_json: Json = False) -> None:
    """Says what is installed, which rendering back ends work, and what each profile needs."""
    from wpt_bench.doctor import diagnose

    checks = diagnose(out)
    print_rows([msgspec.to_builtins(check) for check in checks], as_json, title="doctor")
    if not all(check.ok for check in checks if check.required):
        raise typer.Exit(1)
