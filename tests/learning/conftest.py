"""What the learning tests found, as a table at the end."""

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    rows = sorted(dict(report.user_properties)["learning"] for report in reports if report.user_properties)
    if rows:
        terminalreporter.section("learning: method, observations, tasks, random, learned (per seed), best possible")
    for row in rows:
        terminalreporter.line(row)
