"""The front door: one command for each job, all in one environment that is made once and reused.

Arguments after ``--`` go to the program behind a session: ``nox -s bench-dmc -- --tasks walker-walk --seeds 0,1``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2023.4.22"
nox.options.sessions = ["lint", "tests"]
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).parent
ENVIRONMENT = ROOT / ".nox" / "wpt-bench"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PATIENCE = 60  # seconds that a benchmark gets after Ctrl-C to put its work away
INCONCLUSIVE = 2  # what wpt-bench compare ends with


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """All tests but the slow ones."""
    install(session)
    processes = ("-n", "logical", "--maxprocesses", "2", "--dist", "worksteal")
    session.run(PYTHON, "-m", "pytest", *processes, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Style, types, and the arrows between the rooms."""
    install(session)
    session.run(PYTHON, "-m", "ruff", "check", ".")
    session.run(PYTHON, "-m", "ruff", "format", "--check", ".")
    with session.chdir(linked_package(ROOT / ".nox" / "linked")):
        session.run(PYTHON, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache")
        session.run(PYTHON.with_name("lint-imports"), "--config", ROOT / "pyproject.toml", "--no-cache")


@nox.session(name="bench-dmc", python=False)
def bench_dmc(session: nox.Session) -> None:
    """DMControl from nothing to a report: data, pre-training, runs, comparison."""
    bench(session, "bench", "dmc")


@nox.session(name="bench-metaworld", python=False)
def bench_metaworld(session: nox.Session) -> None:
    """Meta-World from nothing to a report: data, pre-training, runs, comparison."""
    bench(session, "bench", "metaworld")


@nox.session(python=False)
def experiment(session: nox.Session) -> None:
    """A profile varied in one thing at a time: -- data --suite metaworld; see wpt-bench list experiments."""
    bench(session, "experiment")


@nox.session(python=False)
def report(session: nox.Session) -> None:
    """Tables, curves and the HTML file of the runs there are."""
    bench(session, "report")


@nox.session(python=False)
def learning(session: nox.Session) -> None:
    """Every method learns a small task, with both kinds of observation; a table of what each got to."""
    install(session)
    options = ("--override-ini=addopts=-q --strict-markers -m learning", "--benchmark-disable")
    processes = ("-n", "logical", "--maxprocesses", "2", "--dist", "worksteal")
    environment = {"OMP_NUM_THREADS": "1"}
    session.run(PYTHON, "-m", "pytest", "tests/learning", *options, *processes, *session.posargs, env=environment)


@nox.session(python=False)
def chaos(session: nox.Session) -> None:
    """Kills, corruption and hostile files, far more of them than in the tests; prints what was survived."""
    install(session)
    options = ("--override-ini=addopts=-q --strict-markers -m chaos", "--benchmark-disable")
    session.run(PYTHON, "-m", "pytest", "tests", *options, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=False)
def cluster(session: nox.Session) -> None:
    """Grids on Ray clusters of this machine, one of which loses a node: results equal to the local pool's."""
    install(session)
    options = ("--override-ini=addopts=-q --strict-markers -m cluster", "--benchmark-disable")
    session.run(PYTHON, "-m", "pytest", "tests/running", *options, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=False)
def perf(session: nox.Session) -> None:
    """Speed, measured: each figure with its floor and its ratio to the plain way; JSON in out/perf/."""
    install(session)
    (ROOT / "out" / "perf").mkdir(parents=True, exist_ok=True)
    options = ("-q", "--benchmark-json=out/perf/benchmarks.json", "--benchmark-quiet")
    switched_on = "--override-ini=addopts="  # pyproject's switch benchmarks off
    session.run(PYTHON, "-m", "pytest", "tests/benchmarks", switched_on, *options, *session.posargs)
    session.run(PYTHON, "tests/benchmarks/table.py", "out/perf/benchmarks.json")


@nox.session(python=False)
def regression(session: nox.Session) -> None:
    """Has sample efficiency or throughput become worse? Runs of the code as it is against what results/ has."""
    out = ROOT / "out" / "regression" / code_digest(ROOT)
    bench(session, "run", "metaworld", "--profile", "gate", "--yes", "--out", str(out))
    measured, comment = out / "throughput.json", out.parent / "comment.md"
    comment.unlink(missing_ok=True)
    options = ("--override-ini=addopts=", "-q", f"--benchmark-json={measured}", "--benchmark-quiet")
    throughput = ("-m", "pytest", "tests/benchmarks/test_throughput.py", *options)
    slower = False
    try:
        session.run(PYTHON, *throughput, env={"OMP_NUM_THREADS": "1"})
        session.run(PYTHON, "tests/benchmarks/throughput.py", measured)
    except CommandFailed:  # the runs are judged all the same
        slower = True
    sides = (ROOT / "results" / "metaworld-gate", out)
    compare = (PYTHON.with_name("wpt-bench"), "compare", *sides, "--methods", "wpt", "--markdown", comment)
    session.run(*compare, success_codes=[0, INCONCLUSIVE])
    answer = comment.read_text().partition("\n")[0].removeprefix("### ")
    (session.warn if answer.endswith("inconclusive") else session.log)(answer)
    if slower:
        session.error("Throughput is worse, or could not be compared: see above.")


def code_digest(root: Path) -> str:
    """Of everything that a run's behaviour follows from: runs of other code are never taken for this code's."""
    rooms = (root / "wpt_bench", root / "baselines", root / "suites")
    sources = [path for room in rooms for path in room.rglob("*") if path.suffix in (".py", ".toml")]
    sources += [root / "pyproject.toml", root / "constraints.txt"]  # of the libraries
    whole = hashlib.sha256()
    for path in sorted(sources):
        whole.update(b"%s\0%s\0" % (path.relative_to(root).as_posix().encode(), path.read_bytes()))
    return whole.hexdigest()[:16]


def bench(session: nox.Session, *command: str) -> None:
    """Runs wpt-bench, and leaves it time to finish what it is writing when it is interrupted."""
    install(session)
    program = (PYTHON.with_name("wpt-bench"), *command, *session.posargs)
    session.run(*program, interrupt_timeout=PATIENCE, terminate_timeout=PATIENCE)


def install(session: nox.Session) -> None:
    """Makes the environment, unless the one there was made from these very files in this place.

    Python 3.11 is what the constraints were made for; without it, the Python that runs nox is taken.
    """
    sources = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    wanted = hashlib.sha256(b"\0".join([bytes(ROOT), *(path.read_bytes() for path in sources)])).hexdigest()
    stamp = ENVIRONMENT / "made-from"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    pythons = ("--python", "3.11", "--python", sys.executable)
    session.run_install(sys.executable, "-m", "virtualenv", "--quiet", "--no-periodic-update", *pythons, ENVIRONMENT)
    packages = ("--constraint", ROOT / "constraints.txt", "--editable", f"{ROOT}[test,lint]")
    session.run_install(PYTHON, "-m", "pip", "install", *packages)
    stamp.write_text(wanted)


def linked_package(folder: Path) -> Path:
    """A folder of links in which ``wpt_bench`` is one ordinary package, for tools that follow files, not installs."""
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "wpt_bench"
    package.mkdir(parents=True)
    mapped = [ROOT / name for name in ("baselines", "reports", "results", "suites")]
    for path in [*(ROOT / "wpt_bench").iterdir(), *mapped]:
        (package / path.name).symlink_to(path)
    return folder
