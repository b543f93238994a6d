"""What is in the wheel, and that it works where the checkout is not."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from wpt_bench import doctor, profiles, registry

ROOT = Path(__file__).parents[2]


def test_every_file_of_every_room_is_in_the_wheel(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("wpt_bench/")}
    rooms = {
        "wpt_bench": "wpt_bench",
        **{name: f"wpt_bench/{name}" for name in ("baselines", "reports", "results", "suites")},
    }
    there = {
        f"{rooms[room]}/{path.relative_to(ROOT / room).as_posix()}"
        for room in rooms
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == there
    assert any(name.endswith("profiles/quick.toml") for name in inside)


def test_nothing_else_lands_in_site_packages(wheel: Path) -> None:
    assert {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()} == {
        "wpt_bench",
        "wpt_bench-0.1.0.dist-info",
    }


def test_the_wheel_runs_without_the_checkout(run, target: Path) -> None:
    where = "import wpt_bench.suites.dmc as d, wpt_bench.cli as c; print(d.__file__, c.__file__)"
    done = run("-c", where)
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(target) for file in done.stdout.split())


@pytest.mark.parametrize("what", ["tasks", "methods", "profiles"])
def test_the_wheel_lists_what_the_checkout_lists(run, target: Path, what: str) -> None:
    done = run(str(target / "bin" / "wpt-bench"), "list", what, "--json")
    assert done.returncode == 0, done.stderr
    listed = {(item.get("suite"), item["name"]) for item in json.loads(done.stdout)}
    if what == "tasks":
        assert listed == {(name, task.name) for name, suite in registry.suites().items() for task in suite.tasks()}
    elif what == "methods":
        assert listed == {(None, name) for name in registry.methods()}
    else:
        assert listed == {(None, name) for name in profiles.names()}


HELP = """
import runpy, sys
sys.argv = ["wpt-bench", "--help"]
try:
    runpy.run_path({program!r}, run_name="__main__")
finally:
    assert "torch" not in sys.modules, "--help has to wait for torch"
"""


def test_help_does_not_wait_for_torch(run, target: Path) -> None:
    done = run("-c", HELP.format(program=str(target / "bin" / "wpt-bench")))
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


def test_doctor_finds_this_environment_good(tmp_path: Path) -> None:
    checks = {check.name: check for check in doctor.diagnose(tmp_path / "out" / "deep")}
    expected = ["packages", "suites", "methods"] + (["python"] if sys.version_info[:2] == (3, 11) else [])
    for name in expected:
        assert checks[name].ok, checks[name]
    assert {f"profile {name}" for name in profiles.names()} <= checks.keys()
    assert all(check.ok == (check.advice == "") for check in checks.values())


def test_doctor_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "9.9" if name == "mujoco" else real(name))
    checks = {check.name: check for check in doctor.diagnose(tmp_path)}
    assert not checks["packages"].ok
    assert "mujoco 9.9 is not ==3.3.0" in checks["packages"].found
    assert "constraints.txt" in checks["packages"].advice
