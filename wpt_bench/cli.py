"""The command line: parses, calls, prints; decides nothing."""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from wpt_bench import experiments, profiles, records, registry
from wpt_bench.protocol import UserError
from wpt_bench.records import RecordError

P = ParamSpec("P")
R = TypeVar("R")

console = Console()
errors = Console(stderr=True)

app = typer.Typer(
    help="How much online experience does non-curated offline data save?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="Collect, describe and check offline data; exchange it with Minari.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Suite = Annotated[str, typer.Argument(help="dmc or metaworld")]
ProfileName = Annotated[str, typer.Option("--profile", help="smoke, quick, ..., or a .toml file of your own")]
Tasks = Annotated[str, typer.Option("--tasks", help="comma-separated, or 'all'; default: the profile's")]
Methods = Annotated[str, typer.Option("--methods", help="comma-separated, or 'all'; default: the profile's")]
Seeds = Annotated[str, typer.Option("--seeds", help="comma-separated; default: the profile's")]
Out = Annotated[Path, typer.Option("--out", envvar="WPT_BENCH_OUT", help="where everything is kept")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="processes at a time", show_default="cores")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...")]
Retries = Annotated[int, typer.Option("--retries", min=0, help="how often a run that failed is tried again")]
Executor = Annotated[str, typer.Option("--executor", help="local (processes of this machine) or ray (a cluster)")]
Address = Annotated[
    str, typer.Option("--address", help="of a Ray cluster; default: RAY_ADDRESS, or one started on this machine")
]
GpusPerRun = Annotated[float, typer.Option("--gpus-per-run", min=0, help="a run's share of a GPU, on Ray")]
Storage = Annotated[
    str, typer.Option("--storage", help="URL that a cluster's workers exchange files through (s3://..., file://...)")
]
TrackerNames = Annotated[
    str, typer.Option("--tracker", help="tensorboard, wandb, both with a comma, or none: curves to watch, not records")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="collect missing data without asking")]
Json = Annotated[bool, typer.Option("--json", help="print JSON for programs")]

OUT, RESULTS = Path("out"), Path("results")
WORKERS_TO_PLAN = "1,2,4,8,16,32,64,128,256,512,1000"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command(group: typer.Typer, examples: str, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Registers a command whose user errors end in one sentence and a non-zero exit."""

    def register(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    if _interrupted:  # a compiled module that is interrupted at its import says ImportError
                        raise KeyboardInterrupt from error
                    raise
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the way out is not to be interrupted
                errors.print("Interrupted. What is finished is kept; the same command goes on from here.")
                raise typer.Exit(130) from None
            except (UserError, RecordError) as error:
                errors.print(f"[red]Error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
                raise typer.Exit(1) from None
            except OSError as error:
                if (message := records.unwritable(error)) is None:
                    raise
                errors.print(f"[red]Error:[/] {_plain(message)}", highlight=False, soft_wrap=True)
                raise typer.Exit(1) from None

        group.command(name, epilog=f"Examples: {examples}")(guarded)
        return guarded

    return register


# What there is


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
    rows = listings[what]()
    if not as_json:  # what fits a terminal
        wide = ("paper", "version", "online", "tuning", "tuning_evaluations")
        rows = [{key: value for key, value in row.items() if key not in wide} for row in rows]
    _show(rows, as_json, title=what)


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
    _show([msgspec.to_builtins(check) for check in checks], as_json, title="doctor")
    if not all(check.ok for check in checks if check.required):
        raise typer.Exit(1)


# Offline data


@command(data_app, "wpt-bench data collect dmc · wpt-bench data collect metaworld --profile smoke --out /tmp/try")
def collect(
    suite: Suite,
    profile: ProfileName = "quick",
    tasks: Tasks = "",
    out: Out = OUT,
    workers: Workers = CORES,
    yes: Yes = False,
) -> None:
    """Collects the offline data of a profile, or what is missing of it."""
    from wpt_bench.running import bench
    from wpt_bench.running.plan import Layout, select

    selection = select(suite, profiles.load(profile), _split(tasks))
    layout = Layout(out)
    with _bar("collecting data") as progress:
        dataset = bench.ensure_data(selection, layout, progress, _confirm(yes), workers=workers)
    console.print(f"{len(dataset.episodes)} episodes, digest {dataset.digest}, in {dataset.path}", highlight=False)


@command(data_app, "wpt-bench data card dmc · wpt-bench data card dmc --tasks walker-walk,walker-run --json")
def card(
    suite: Suite, profile: ProfileName = "quick", tasks: Tasks = "", out: Out = OUT, as_json: Json = False
) -> None:
    """Describes the data: episodes per embodiment and collector, and how good they are at each task."""
    from wpt_bench.data.card import table
    from wpt_bench.running import bench
    from wpt_bench.running.plan import Layout, select

    selection, layout = select(suite, profiles.load(profile), _split(tasks)), Layout(out)
    dataset = bench.find_data(selection, layout)
    if dataset is None:
        raise UserError(
            f"There is no {suite} data of profile {profile!r} in {out}; "
            f"collect it: wpt-bench data collect {suite} --profile {profile}."
        )
    with _bar("computing labels") as progress:
        made = bench.data_card(selection, layout, dataset, progress)
    _json(msgspec.to_builtins(made)) if as_json else console.print(table(made))


@command(data_app, "wpt-bench data verify dmc · wpt-bench data verify out/data/dmc-quick")
def verify(
    what: Annotated[str, typer.Argument(help="a suite, or the folder of a data set")],
    profile: ProfileName = "quick",
    out: Out = OUT,
    as_json: Json = False,
) -> None:
    """Recomputes every checksum of a data set."""
    from wpt_bench.data import store
    from wpt_bench.running.plan import Layout

    folder = Layout(out).data(what, profile) if what in registry.suites() else Path(what)
    if not (folder / "manifest.json").exists():
        raise UserError(f"{folder} holds no data set: there is no manifest.json in it.")
    problems = store.verify(folder)
    if as_json:
        _json({"folder": str(folder), "ok": not problems, "problems": problems})
    else:
        for problem in problems:
            errors.print(f"[red]Error:[/] {_plain(problem)}", highlight=False, soft_wrap=True)
        if not problems:
            console.print(f"{folder}: every file is whole.", highlight=False)
    if problems:
        raise typer.Exit(1)


@command(data_app, "wpt-bench data export dmc walker wpt-bench/walker-v0 --task walker-walk", "export")
def export(
    suite: Suite,
    scene: Annotated[str, typer.Argument(help="embodiment (dmc) or task (metaworld) whose episodes to write")],
    dataset_id: Annotated[str, typer.Argument(help="of the new Minari data set")],
    task: Annotated[str, typer.Option("--task", help="whose rewards to add; default: none")] = "",
    profile: ProfileName = "quick",
    out: Out = OUT,
) -> None:
    """Writes episodes as a Minari data set."""
    from wpt_bench.data.minari_io import to_minari
    from wpt_bench.data.store import Dataset
    from wpt_bench.running.plan import Layout

    dataset = Dataset.open(Layout(out).data(suite, profile))
    labelled: dict[str, Any] = {"suite": registry.suite(suite), "task": registry.task(suite, task)} if task else {}
    made = to_minari(dataset, dataset_id, scene=scene, **labelled)
    console.print(f"{made.total_episodes} episodes, {made.total_steps} agent steps, as {dataset_id}", highlight=False)


@command(data_app, "wpt-bench data import my/walker-v0 out/data/mine dmc walker", "import")
def import_(
    dataset_id: Annotated[str, typer.Argument(help="of a Minari data set on this machine")],
    folder: Annotated[Path, typer.Argument(help="of the data set to add it to")],
    suite: Suite,
    scene: Annotated[str, typer.Argument(help="embodiment (dmc) or task (metaworld) that it is of")],
    action_repeat: Annotated[int, typer.Option(min=1, help="environment steps per step of the Minari data")] = 2,
) -> None:
    """Adds a Minari data set as a shard."""
    from wpt_bench.data.minari_io import from_minari

    of_scene = [task for task in registry.suite(suite).tasks() if task.scene == scene]
    if not of_scene:
        raise registry.nearest(f"scene of {suite}", scene, {task.scene for task in registry.suite(suite).tasks()})
    made = from_minari(
        dataset_id,
        folder,
        suite=registry.suite(suite),
        embodiment=of_scene[0].embodiment,
        scene=scene,
        action_repeat=action_repeat,
    )
    console.print(f"{len(made.episodes)} episodes in {folder}", highlight=False)


# The grid


@command(app, "wpt-bench pretrain dmc · wpt-bench pretrain metaworld --profile smoke --executor ray")
def pretrain(
    suite: Suite,
    profile: ProfileName = "quick",
    tasks: Tasks = "",
    seeds: Seeds = "",
    out: Out = OUT,
    workers: Workers = CORES,
    retries: Retries = 1,
    device: Device = "cpu",
    executor: Executor = "local",
    address: Address = "",
    gpus_per_run: GpusPerRun = 0.0,
    storage: Storage = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Pre-trains the shared world model, collecting the data first if need be."""
    from wpt_bench.running import bench as benching
    from wpt_bench.running.plan import Layout, select

    selection, layout = select(suite, profiles.load(profile), _split(tasks), (), _seeds(seeds)), Layout(out)
    where = _where(workers, device, executor, address, gpus_per_run, storage)
    dataset = _data(selection, layout, workers, yes)
    with _grid_bars(_job_names(_stages([selection], dataset).values())) as show:
        stages = benching.ensure_stages(selection, layout, dataset, show, retries=retries, **where)
    rows = [
        {"stage": stage.id, "seed": stage.identity["seed"]}
        | {key: row[key] for key in ("embodiment", "model", "persistence", "mean", "context", "horizon")}
        for stage in stages
        for row in stage.open_loop
    ]
    _show(rows, as_json, title="open-loop error on held-out episodes (standardised, mean squared)")


@command(
    app,
    "wpt-bench run dmc · wpt-bench run dmc --tasks walker-walk --methods dreamer,wpt --seeds 0,1,2 --dry-run · "
    "wpt-bench run dmc --executor ray --address auto --storage s3://bucket/grid",
)
def run(
    suite: Suite,
    profile: ProfileName = "quick",
    tasks: Tasks = "",
    methods: Methods = "",
    seeds: Seeds = "",
    out: Out = OUT,
    workers: Workers = CORES,
    retries: Retries = 1,
    device: Device = "cpu",
    executor: Executor = "local",
    address: Address = "",
    gpus_per_run: GpusPerRun = 0.0,
    storage: Storage = "",
    tracker: TrackerNames = "tensorboard",
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would run and what it would cost")] = False,
) -> None:
    """Makes all runs of a grid, methods x tasks x seeds, or goes on with them; makes data and pre-training first."""
    from wpt_bench.running.plan import Layout, select

    selection = select(suite, profiles.load(profile), _split(tasks), _split(methods), _seeds(seeds))
    if dry_run:
        _dry_run([selection], Layout(out), workers)
    else:
        where = _where(workers, device, executor, address, gpus_per_run, storage)
        _run([selection], Layout(out), where, retries, tracker, yes)


@command(app, "wpt-bench bench dmc · wpt-bench bench metaworld --profile smoke --seeds 0")
def bench(
    suite: Suite,
    profile: ProfileName = "quick",
    tasks: Tasks = "",
    methods: Methods = "",
    seeds: Seeds = "",
    out: Out = OUT,
    workers: Workers = CORES,
    retries: Retries = 1,
    device: Device = "cpu",
    executor: Executor = "local",
    address: Address = "",
    gpus_per_run: GpusPerRun = 0.0,
    storage: Storage = "",
    tracker: TrackerNames = "tensorboard",
    yes: Yes = False,
) -> None:
    """From nothing to a report: data, pre-training, runs, comparison."""
    from wpt_bench.running.plan import Layout, select

    selection = select(suite, profiles.load(profile), _split(tasks), _split(methods), _seeds(seeds))
    where = _where(workers, device, executor, address, gpus_per_run, storage)
    failed = _run([selection], Layout(out), where, retries, tracker, yes, check=False)
    _report(selection, Layout(out), as_json=False)
    if failed:
        raise typer.Exit(1)


@command(
    app,
    "wpt-bench experiment data --suite metaworld · wpt-bench experiment ablation --profile smoke · "
    "wpt-bench experiment mine.toml --seeds 0,1,2 --dry-run",
)
def experiment(
    name: Annotated[str, typer.Argument(help="as `wpt-bench list experiments` has it, or a .toml file of your own")],
    suite: Annotated[str, typer.Option("--suite", help="dmc or metaworld")] = "dmc",
    profile: ProfileName = "quick",
    tasks: Annotated[str, typer.Option("--tasks", help="comma-separated; default: the experiment's")] = "",
    seeds: Annotated[str, typer.Option("--seeds", help="comma-separated; default: the experiment's")] = "",
    out: Out = OUT,
    workers: Workers = CORES,
    retries: Retries = 1,
    device: Device = "cpu",
    executor: Executor = "local",
    address: Address = "",
    gpus_per_run: GpusPerRun = 0.0,
    storage: Storage = "",
    tracker: TrackerNames = "tensorboard",
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would run and what it would cost")] = False,
    as_json: Json = False,
) -> None:
    """Makes all runs of an experiment, a profile varied in one thing at a time, and renders what came out.

    It goes on where it stopped, and shares runs with the plain grid and with other experiments where nothing differs.
    """
    from wpt_bench.running import experiment as experimenting
    from wpt_bench.running.plan import Layout

    layout, asked = Layout(out), experiments.load(name)
    varied = experimenting.grids(asked, suite, profiles.load(profile), _split(tasks), _seeds(seeds))
    selections = [one.selection for one in varied]
    if dry_run:
        _dry_run(selections, layout, workers)
        return
    where = _where(workers, device, executor, address, gpus_per_run, storage)
    needing = [one for one in selections if one.needs_data]
    dataset = _data(needing[0], layout, workers, yes) if needing else None
    plan = experimenting.plan(asked, varied, dataset.digest if dataset else None)
    experimenting.keep(plan, layout)
    failed = _run(selections, layout, where, retries, tracker, yes, check=False)
    again = f"wpt-bench experiment {name} --suite {suite} --profile {profile}"
    again += "".join(f" --{option} {given}" for option, given in (("tasks", tasks), ("seeds", seeds)) if given)
    _report_experiment(plan, layout, again, as_json)
    if failed:
        raise typer.Exit(1)


@command(
    app,
    "wpt-bench tune dmc --methods wpt,sac --profile lite --trials 20 · "
    "wpt-bench tune metaworld --tasks faucet-close,door-close --seeds 0,1 --json",
)
def tune(
    suite: Suite,
    profile: ProfileName = "quick",
    tasks: Annotated[
        str, typer.Option("--tasks", help="comma-separated, of no table of results; default: the profile's for tuning")
    ] = "",
    methods: Methods = "",
    seeds: Annotated[str, typer.Option("--seeds", help="comma-separated; default: the profile's first")] = "",
    trials: Annotated[int, typer.Option("--trials", min=1, help="of every table of settings, in all")] = 20,
    out: Out = OUT,
    workers: Workers = CORES,
    retries: Retries = 1,
    device: Device = "cpu",
    executor: Executor = "local",
    address: Address = "",
    gpus_per_run: GpusPerRun = 0.0,
    storage: Storage = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Searches methods' settings on tasks that are in no table of results, or goes on with a search.

    Every table of settings gets the same number of trials. A trial is one run for each task, seed and chosen method
    that reads the table; trial 0 has the profile's present settings. Pre-training is shared, and not tuned.

    What comes out: TOML to paste into the profile, in place of the lines of these names, and the number of evaluations
    that were spent. Raise tuning_evaluations by it where the methods that read the table are declared, so that reports
    show it. With more --trials the same command goes on.
    """
    from wpt_bench import tuning
    from wpt_bench.running import grid
    from wpt_bench.running.plan import Layout

    selection = tuning.select(suite, profiles.load(profile), _split(tasks), _split(methods), _seeds(seeds))
    layout, where = Layout(out), _where(workers, device, executor, address, gpus_per_run, storage)
    dataset = _data(selection, layout, workers, yes) if selection.needs_data else None

    def make(number: int, runs: Any, stages: Any) -> Any:
        names = _job_names([*stages, *runs])
        with _grid_bars(names, f"trial {number} of 0 to {trials - 1}") as show:
            data = dataset.path if dataset else None
            outcome = grid.run_grid(runs, layout, data, show, stages=stages, retries=retries, **where)
        _say_failed(outcome.failed, names)
        return outcome

    searches = tuning.searches(selection, dataset.digest if dataset else None)
    made = tuning.tune(searches, layout, trials, make)
    if as_json:
        _json(msgspec.to_builtins(made))
    else:
        for record in made:
            _say_tuned(record, tuning.record_file(layout, record.study))
    if any(record.best is None for record in made):
        raise typer.Exit(1)


def _say_tuned(record: Any, file: Path) -> None:
    """The trials of a search, and how to use what came out."""
    rows = [
        {"trial": trial.number, "score": "failed" if trial.value is None else trial.value} | trial.settings
        for trial in record.trials
    ]
    on = f"{', '.join(record.methods)} on {', '.join(record.tasks)}, seeds {', '.join(map(str, record.seeds))}"
    _show(rows, False, title=f"settings.{record.table}: {on}")
    if record.best is None:
        errors.print(
            f"[red]Error:[/] No trial of settings.{_plain(record.table)} was without a failed run.", soft_wrap=True
        )
        return
    best = f"Best is trial {record.best} (trial 0 has the profile's present settings). In the profile:"
    raised = f"Evaluations spent: {record.evaluations}. Raise tuning_evaluations by it: {', '.join(record.read_by)}."
    for text in (best, "", record.toml, "", raised, f"Record: {file}"):
        console.print(_plain(text), highlight=False, soft_wrap=True)


@command(
    app, "wpt-bench status · wpt-bench status dmc --profile quick --json · wpt-bench status --storage s3://bucket/grid"
)
def status(
    suite: Annotated[str, typer.Argument(help="dmc, metaworld, or nothing for all")] = "",
    profile: ProfileName = "quick",
    tasks: Tasks = "",
    methods: Methods = "",
    seeds: Seeds = "",
    out: Out = OUT,
    storage: Storage = "",
    as_json: Json = False,
) -> None:
    """Says which runs of a grid are pending, running, interrupted, done, failed, damaged or stale, and why.

    begun: with --storage, a cluster's worker has begun it there; whether it still works on it, storage cannot tell.
    interrupted: a process that worked on it died; the command that began it goes on with it. stale: made with other
    settings, data or versions than the grid's now; it is in no report. damaged: the sentence says what to delete.
    """
    from wpt_bench.running import bench as benching
    from wpt_bench.running import grid
    from wpt_bench.running.exchange import Stored
    from wpt_bench.running.plan import Layout, identities, select

    loaded, layout = profiles.load(profile), Layout(out)
    stored = Stored(storage) if storage else None
    rows = []
    for name in [suite] if suite else [name for name in loaded.grids if name in registry.suites()]:
        selection = select(name, loaded, _split(tasks), _split(methods), _seeds(seeds))
        dataset = benching.find_data(selection, layout)
        wanted = identities(selection, dataset.digest if dataset else None)
        if stored and selection.needs_data and dataset is None:
            unknown = f"{out} has no {name} data, without which runs that learn from it cannot be looked up in storage"
            errors.print(f"{_plain(unknown)}: give the --out of the command that makes them.", soft_wrap=True)
        found: list[tuple[Any, str, str]] = []
        found += [(identity, *grid.standing(identity, layout, stored)) for identity in wanted]
        found += [(identity, "stale", "") for identity in grid.stale(wanted, layout)]
        rows += [
            {
                "suite": identity.suite,
                "task": identity.task,
                "method": identity.method,
                "seed": identity.seed,
                "profile": identity.profile,
                "status": state,
                "why": why,
            }
            for identity, state, why in found
        ]
    if not as_json and not any(row["why"] for row in rows):
        rows = [{key: value for key, value in row.items() if key != "why"} for row in rows]
    _show(rows, as_json, title=f"runs in {out}")


@command(app, "wpt-bench report dmc · wpt-bench report --profile quick · wpt-bench report results/dmc-quick")
def report(
    suite: Annotated[
        str, typer.Argument(help="dmc, metaworld, nothing for every suite with runs, or a published folder")
    ] = "",
    profile: ProfileName = "quick",
    tasks: Tasks = "",
    methods: Methods = "",
    seeds: Seeds = "",
    out: Out = OUT,
    as_json: Json = False,
) -> None:
    """Prints the comparison and renders the HTML report, from records alone."""
    from wpt_bench.analysis.archive import is_published
    from wpt_bench.running.plan import Layout, select

    if suite not in registry.suites() and is_published(Path(suite)):
        _report_published(Path(suite), Layout(out), as_json)
        return
    loaded = profiles.load(profile)
    names = [suite] if suite else [name for name in loaded.grids if Layout(out).data(name, loaded.name).exists()]
    if not names:
        raise UserError(f"There are no runs of profile {profile!r} in {out}; make some: wpt-bench bench dmc.")
    for name in names:
        _report(select(name, loaded, _split(tasks), _split(methods), _seeds(seeds)), Layout(out), as_json)


# Published runs


@command(app, "wpt-bench publish dmc · wpt-bench publish metaworld --profile lite --to results")
def publish(
    suite: Suite,
    profile: ProfileName = "quick",
    to: Annotated[Path, typer.Option("--to", help="folder of published folders")] = RESULTS,
    out: Out = OUT,
) -> None:
    """Packs the finished runs of a suite and profile, with every figure, into a folder to commit."""
    from wpt_bench.analysis import publish as publishing
    from wpt_bench.running import bench as benching
    from wpt_bench.running.plan import Layout, identities, select

    selection, layout = select(suite, profiles.load(profile)), Layout(out)
    name, known = selection.profile.name, registry.suite(suite).name
    dataset = benching.find_data(selection, layout)
    plans, faults = records.find_plans(layout.plans, known, name)
    for fault in faults:
        errors.print(f"Left out: {_plain(fault)}", highlight=False, soft_wrap=True)
    command = f"wpt-bench publish {suite} --profile {profile} --to {to}" + ("" if out == OUT else f" --out {out}")
    folder = to / f"{known}-{name}"
    made = publishing.publish(
        layout.runs,
        folder,
        suite=known,
        profile=name,
        command=command,
        plans=plans,
        grid=identities(selection, dataset.digest if dataset else None),
    )
    for gap in made.left_out:
        errors.print(f"Left out: {_plain(f'{gap.id} ({gap.status}): {gap.why}')}", highlight=False, soft_wrap=True)
    console.print(f"{made.runs} runs, {made.episodes} episodes, in {folder}", highlight=False, soft_wrap=True)
    console.print(f"Check it: wpt-bench verify {folder}", highlight=False, soft_wrap=True)


@command(app, "wpt-bench verify results · wpt-bench verify results/dmc-quick --rerun 3f2a --episodes 2", "verify")
def verify_published(
    path: Annotated[Path, typer.Argument(help="a published folder, or a folder of them")],
    rerun: Annotated[
        str, typer.Option("--rerun", help="train the beginning of this run again: its id or first digits")
    ] = "",
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="training episodes to make again")] = 3,
    out: Out = OUT,
    as_json: Json = False,
) -> None:
    """Recomputes every published figure and checksum; with --rerun, trains a run's first episodes again.

    Exit code 0: everything is as published. 1: something is not. 3: a run was made again in another environment than
    the recorded one, where equality cannot be demanded, and nothing else was found.
    """
    from wpt_bench.analysis import verify as verifying

    folders = verifying.published_folders(path)
    one = verifying.find_run(folders, rerun) if rerun else None
    checked = [verifying.verify(folder) for folder in folders]
    if not as_json:  # before the long part, which may end in an error of its own
        for its in checked:
            _say_checked(its)
    again = _again(one, out, episodes) if one else None
    found = any(its.findings for its in (*checked, again) if its)
    undecided = again is not None and not again.reproduced
    if as_json:
        plain = [msgspec.to_builtins(its, enc_hook=str) for its in checked]
        _json({"ok": not found and not undecided, "folders": plain, "rerun": msgspec.to_builtins(again)})
    elif again:
        _say_again(again)
    if found:
        raise typer.Exit(1)
    if undecided:
        raise typer.Exit(3)


def _again(one: Any, out: Path, episodes: int) -> Any:
    """The beginning of a published run, trained again."""
    from wpt_bench.running.plan import Layout
    from wpt_bench.running.rerun import rerun

    with _bar("training again") as progress:
        return rerun(one.run, one.episodes(), Layout(out), progress, episodes=episodes)


def _say_findings(findings: Iterable[str]) -> None:
    for finding in findings:
        errors.print(f"[red]Error:[/] {_plain(finding)}", highlight=False, soft_wrap=True)


def _say_checked(its: Any) -> None:
    _say_findings(its.findings)
    compared = f"{its.runs} runs, {its.episodes} episodes and {its.figures} figures compared"
    console.print(f"{its.folder}: {compared}, {len(its.findings)} findings.", highlight=False, soft_wrap=True)


def _say_again(again: Any) -> None:
    from wpt_bench.running.rerun import TOLERANCE

    _say_findings(again.findings)
    made = f"Run {again.run}: {again.episodes} training episodes were made again"
    if not again.environment:
        said = f"{made}; {again.compared} rows were compared, each to the last bit, {len(again.findings)} findings."
        console.print(said, highlight=False, soft_wrap=True)
        return
    environment = "; ".join(again.environment)
    compared = f"{again.compared} returns from before the first update were compared, within {TOLERANCE:.0%}"
    errors.print(
        _plain(
            f"{made}, but not in the environment of its record ({environment}), so equality cannot be demanded: "
            f"{compared if again.compared else 'nothing of it can be compared'}."
        ),
        highlight=False,
        soft_wrap=True,
    )


# What the commands share


def _data(selection: Any, layout: Any, workers: int, yes: bool) -> Any:
    """The grid's data set."""
    from wpt_bench.running import bench as benching

    with _bar("collecting data") as progress:
        return benching.ensure_data(selection, layout, progress, _confirm(yes), workers=workers)


def _stages(selections: Sequence[Any], dataset: Any) -> dict[str, Any]:
    """What the runs of several grids start from, by id."""
    from wpt_bench.records import digest
    from wpt_bench.running.plan import stages

    return {digest(stage): stage for selection in selections for stage in stages(selection, dataset.digest)}


def _job_names(jobs: Iterable[Any]) -> dict[str, str]:
    """What to call stages and runs, by id."""
    from wpt_bench.running.plan import PretrainingIdentity

    def name(job: Any) -> str:
        if isinstance(job, PretrainingIdentity):
            return " ".join(["pre-training", *([job.scene] if job.scene else []), str(job.seed)])
        task = job.task if isinstance(job, records.Identity) else "for all tasks"
        return f"{job.method} {task} {job.seed}"

    return {records.digest(job): name(job) for job in jobs}


def _where(workers: int, device: str, executor: str, address: str, gpus_per_run: float, storage: str) -> dict[str, Any]:
    """Where a grid's jobs are made, as arguments of those who make them."""
    from wpt_bench.running.executors import choose

    start = choose(
        executor, workers=workers, device=device, address=address, gpus_per_run=gpus_per_run, storage=storage
    )
    return {"workers": workers, "device": device, "start": start, "storage": storage}


def _run(
    selections: Sequence[Any],
    layout: Any,
    where: dict[str, Any],
    retries: int,
    tracker: str,
    yes: bool,
    check: bool = True,
) -> bool:
    """Makes pre-trainings and runs of grids on the same data; returns (or, with ``check``, exits with) whether any
    failed."""
    from wpt_bench.running import grid
    from wpt_bench.running.plan import together
    from wpt_bench.running.tracking import chosen

    trackers = chosen(tracker)
    needing = [selection for selection in selections if selection.needs_data]
    dataset = _data(needing[0], layout, where["workers"], yes) if needing else None
    runs = together(selections, dataset.digest if dataset else None)
    stages = _stages(needing, dataset)
    names = _job_names([*stages.values(), *runs.values()])
    with _grid_bars(names) as show:
        outcome = grid.run_grid(
            list(runs.values()),
            layout,
            dataset.path if dataset else None,
            show,
            stages=list(stages.values()),
            retries=retries,
            trackers=trackers,
            **where,
        )
    _say_failed(outcome.failed, names)
    if outcome.failed and check:
        raise typer.Exit(1)
    return bool(outcome.failed)


def _say_failed(failed: Mapping[str, str], names: Mapping[str, str]) -> None:
    for run_id, why in failed.items():
        errors.print(f"[red]Failed:[/] {_plain(names[run_id])}: {_plain(why.strip().splitlines()[-1])}", soft_wrap=True)


def _dry_run(selections: Sequence[Any], layout: Any, workers: int) -> None:
    from wpt_bench.running import bench as benching
    from wpt_bench.running import grid
    from wpt_bench.running.plan import together

    needing = [one for one in selections if one.needs_data]
    selection = (needing or selections)[0]
    dataset = benching.find_data(selection, layout)
    missing = benching.missing_scenes(selection, dataset) if needing else []
    runs = together(selections, dataset.digest if dataset and not missing else None)
    states = [(identity, grid.status(identity, layout)) for identity in runs.values()]
    pending = [identity for identity, state in states if state != "done"]
    rows = [
        {"method": identity.method, "task": identity.task, "seed": identity.seed, "status": state}
        for identity, state in states
    ]
    _show(
        rows,
        False,
        title=f"{selection.suite} · {selection.profile.name} · {selection.grid.budget:,} environment steps each",
    )
    cost = benching.estimate(selection, layout, pending, workers=workers)
    if missing:
        console.print(
            f"To be collected first: {', '.join(missing)}; then what several runs share is trained.", highlight=False
        )
    basis = "from finished runs" if cost.measured else "from the profile"
    console.print(
        f"{cost.runs} runs to make on {workers} workers: about {cost.hours:.2f} hours ({basis}); disk about "
        f"{cost.disk_gib} GiB ({cost.free_disk_gib:.0f} free); memory up to {cost.memory_gib} GiB.",
        highlight=False,
    )


@command(
    app,
    "wpt-bench plan dmc · wpt-bench plan --tasks paper --seeds 0,1,2,3,4 --workers 1,10,100,1000 --json",
)
def plan(
    suite: Annotated[str, typer.Argument(help="dmc, metaworld, or nothing for both as one grid")] = "",
    profile: ProfileName = "quick",
    tasks: Annotated[
        str,
        typer.Option("--tasks", help="comma-separated, 'all', or 'paper' for the paper's 72; default: the profile's"),
    ] = "",
    methods: Methods = "",
    seeds: Seeds = "",
    workers: Annotated[str, typer.Option("--workers", help="numbers of workers, comma-separated")] = WORKERS_TO_PLAN,
    out: Out = OUT,
    as_json: Json = False,
) -> None:
    """Simulates a grid on more workers, from the times that finished runs of the profile took.

    Each worker takes the next job that may begin; times are means by method, whatever the task. Collecting data and
    moving files are not counted.
    """
    from dataclasses import asdict

    from wpt_bench.running import bench as benching
    from wpt_bench.running import simulate
    from wpt_bench.running.plan import Layout, identities, select, stages

    loaded, layout = profiles.load(profile), Layout(out)
    first: list[Any] = []
    then: list[Any] = []
    for name in [suite] if suite else [name for name in loaded.grids if name in registry.suites()]:
        paper = [task.name for task in registry.suite(name).tasks() if task.paper]
        chosen = paper if tasks == "paper" else _split(tasks)
        selection = select(name, loaded, chosen, _split(methods), _seeds(seeds))
        dataset = benching.find_data(selection, layout)
        digest = dataset.digest if dataset else "not collected"
        times = simulate.measured(layout, name, loaded.name)
        first += simulate.simulated((), stages(selection, digest), times)
        then += simulate.simulated(identities(selection, digest), (), times)
    rows = [asdict(row) for row in simulate.makespans(first + then, _numbers(workers, "Workers", 1, 1_000_000))]
    _show(rows, as_json, title=f"{len(first)} stages and {len(then)} runs")


@command(app, "wpt-bench resolution · wpt-bench resolution --seeds 3,5 --tasks 4 --trials 500 --json")
def resolution(
    seeds: Annotated[str, typer.Option("--seeds", help="numbers of seeds, comma-separated")] = "3,5,10",
    tasks: Annotated[str, typer.Option("--tasks", help="numbers of tasks, comma-separated")] = "4,10",
    metric: Annotated[str, typer.Option("--metric", help="iqm, median, mean or optimality_gap")] = "iqm",
    trials: Annotated[int, typer.Option("--trials", min=100, help="simulated comparisons for each row")] = 2000,
    as_json: Json = False,
) -> None:
    """Simulates what seeds can resolve: coverage of intervals, and the smallest difference that is seen.

    Half widths and differences are in standard deviations of one task's scores over seeds; a difference is the one
    that is called separated in 80% of the trials.
    """
    from dataclasses import asdict

    from wpt_bench.analysis.aggregate import METRICS
    from wpt_bench.analysis.resolution import simulate

    if metric not in METRICS:
        raise registry.nearest("metric", metric, METRICS)
    pairs = list(itertools.product(_numbers(tasks, "Tasks", 1), _numbers(seeds, "Seeds", 2)))
    rows = []
    with _bar("simulating") as progress:
        for done, (of_tasks, of_seeds) in enumerate(pairs):
            progress(done / len(pairs), f"{of_seeds} seeds, {of_tasks} tasks")
            rows.append(asdict(simulate(metric, of_seeds, of_tasks, trials=trials)))
    if not as_json:  # what fits a terminal
        rows = [{key: value for key, value in row.items() if key not in ("metric", "trials")} for row in rows]
    _show(rows, as_json, title=f"what seeds resolve: {metric}")


def _numbers(text: str, what: str, least: int, most: int = 255) -> list[int]:
    """Whole numbers separated by commas, none below ``least`` or above ``most``."""
    try:
        found = [int(part) for part in _split(text)]
    except ValueError:
        found = []
    if not found or min(found) < least or max(found) > most:
        raise UserError(f"{what} are whole numbers from {least} to {most} separated by commas, not {text!r}.")
    return found


def _report(selection: Any, layout: Any, as_json: bool) -> None:
    from wpt_bench.analysis.compare import compare_runs
    from wpt_bench.analysis.experiment import summarise
    from wpt_bench.analysis.scores import Reading
    from wpt_bench.running import bench as benching
    from wpt_bench.running.plan import identities

    suite, profile = selection.suite, selection.profile.name
    dataset = benching.find_data(selection, layout)
    expected = identities(selection, dataset.digest if dataset else None)
    reading, (plans, faults) = Reading(layout.runs), records.find_plans(layout.plans, suite, profile)
    comparisons = compare_runs(reading, suite=suite, profile=profile, expected=expected, plans=plans)
    found = [summarise(plan, reading) for plan in plans]
    with _bar("computing labels") as progress:
        extras = benching.report_extras(selection, layout, progress)
    command = f"wpt-bench report {suite} --profile {profile}"
    for option, chosen, own in (
        ("tasks", [task.name for task in selection.tasks], selection.profile.grid(suite).tasks),
        ("methods", [method.name for method in selection.methods], selection.profile.grid(suite).methods),
        ("seeds", list(map(str, selection.grid.seeds)), list(map(str, selection.profile.grid(suite).seeds))),
    ):
        command += f" --{option} {','.join(chosen)}" if chosen != list(own) else ""
    page, title = layout.report(suite, profile), f"wpt-bench: {suite}, {profile}"
    _render(comparisons, page, title, command, extras, as_json, experiments=found, faults=faults)


def _report_experiment(plan: Any, layout: Any, again: str, as_json: bool) -> None:
    """The page of an experiment, and what it says on the console."""
    from wpt_bench.analysis.experiment import summarise
    from wpt_bench.analysis.scores import Reading
    from wpt_bench.reports.experiment import show, write

    summary = summarise(plan, Reading(layout.runs))
    folder = layout.report(plan.suite, f"{plan.profile}-{plan.name}")
    page = write(summary, folder, title=f"wpt-bench: {plan.suite}, {plan.profile}, {plan.name}", command=again)
    if as_json:
        _json(json.loads((page.parent / "summary.json").read_text()) | {"report": str(page)})
        return
    show(summary, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


def _report_published(folder: Path, layout: Any, as_json: bool) -> None:
    """A page of committed records."""
    from wpt_bench.analysis.archive import read_manifest
    from wpt_bench.analysis.publish import read_published

    manifest = read_manifest(folder)
    comparisons, found = read_published(folder, manifest.suite, manifest.profile)
    title = f"wpt-bench: {manifest.suite}, {manifest.profile}, as published"
    page = layout.out / "reports" / f"published-{folder.resolve().name}"
    _render(comparisons, page, title, f"wpt-bench report {folder}", {}, as_json, experiments=found)


def _render(
    comparisons: Any,
    folder: Path,
    title: str,
    command: str,
    extras: dict[str, Any],
    as_json: bool,
    *,
    experiments: Sequence[Any] = (),
    faults: Sequence[str] = (),
) -> None:
    """Writes the page and says on the console what it says."""
    from wpt_bench.analysis.properties import Declaration, declared
    from wpt_bench.reports.page import write
    from wpt_bench.reports.table_one import show_declared, show_measured
    from wpt_bench.reports.tables import show

    by_code = declared(
        Declaration(method.name, method.family, str(method.data_access), method.online)
        for method in registry.methods().values()
    )
    page = write(
        comparisons,
        folder,
        title=title,
        extras=extras,
        declared=by_code,
        command=command,
        experiments=experiments,
        faults=faults,
    )
    if as_json:
        _json(json.loads((page.parent / "summary.json").read_text()) | {"report": str(page)})
        return
    for comparison in comparisons:
        show(comparison, console)
    show_declared(by_code, console)
    for comparison in comparisons:
        show_measured(comparison, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


# Printing and asking


def _show(rows: list[dict[str, Any]], as_json: bool, *, title: str) -> None:
    if as_json:
        _json(rows)
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in rows[0] if rows else ():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*[_plain(_cell(value)) for value in row.values()])
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _confirm(yes: bool) -> Callable[[str], bool]:
    def confirm(question: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UserError(f"{question} Say --yes to agree where nobody can be asked.")
        return typer.confirm(question, default=True)

    return confirm


@contextmanager
def _bar(title: str) -> Iterator[Callable[..., None]]:
    """A progress bar with time left that goes away when it is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[what]}"), console=errors, transient=True) as bars:
        bar = bars.add_task(title, total=1.0, what="")

        def progress(fraction: float, what: str = "") -> None:
            bars.update(bar, completed=fraction, what=_plain(what))

        yield progress


@contextmanager
def _grid_bars(names: dict[str, str], title: str = "all") -> Iterator[Callable[[str, float, str], None]]:
    """One bar for everything with time left, one for each job that is being done; finished ones leave a line."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[what]}"))
    with Progress(*columns, console=errors) as bars:
        overall = bars.add_task(title, total=len(names), what=f"0/{len(names)}")
        active: dict[str, TaskID] = {}
        fractions: dict[str, float] = {}

        def show(run_id: str, fraction: float, what: str) -> None:
            fractions[run_id] = fraction
            ended = sum(value >= 1.0 for value in fractions.values())
            bars.update(overall, completed=sum(fractions.values()), what=f"{ended}/{len(names)}")
            if run_id not in active and fraction < 1:
                active[run_id] = bars.add_task(names[run_id], total=1.0, what="")
            if fraction < 1:
                bars.update(active[run_id], completed=fraction, what=_plain(what))
            elif run_id in active:
                bars.remove_task(active.pop(run_id))
                bars.console.print(f"{names[run_id]}: {_plain(what)}", highlight=False)

        yield show


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _split(text))
    except ValueError:
        raise UserError(f"Seeds are whole numbers separated by commas, not {text!r}.") from None


_interrupted = False


def _interrupt(number: int, frame: Any) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of ``wpt-bench``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where the caller ignores it
        signal.signal(signal.SIGINT, _interrupt)
    app()
