"""The command line: parses, calls, prints; decides nothing. A module for each kind of command."""

from wpt_bench.cli import data, gate, grid, listing, published, reporting, tuning  # each adds its commands
from wpt_bench.cli.console import app, main

__all__ = ["app", "data", "gate", "grid", "listing", "main", "published", "reporting", "tuning"]

_ORDER = (
    *("list", "doctor", "pretrain", "run", "bench", "experiment", "tune", "status", "plan"),
    *("report", "resolution", "publish", "verify", "compare", "error-rates"),
)
app.registered_commands.sort(key=lambda one: _ORDER.index(str(one.name or getattr(one.callback, "__name__", ""))))
