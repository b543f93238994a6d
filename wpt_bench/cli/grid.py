"""Grids and experiments: made, gone on with, looked at, planned."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from wpt_bench import experiments, profiles, records, registry
from wpt_bench.cli.console import (
    CORES,
    OUT,
    WORKERS_TO_PLAN,
    Address,
    Device,
    Executor,
    GpusPerRun,
    Json,
    Methods,
    Out,
    ProfileName,
    Published,
    Retries,
    Seeds,
    Storage,
    Suite,
    Tasks,
    TrackerNames,
    Workers,
    Yes,
    app,
    command,
    errors,
    numbers_in,
    parts,
    print_rows,
    say,
    seeds_in,
)
from wpt_bench.cli.jobs import (
    data_of,
    data_set,
    make_jobs,
    make_runs,
    refuse_other_folders,
    stages_of,
    take_published,
    takeable,
)
from wpt_bench.cli.reporting import report_experiment, report_grid


@command(
    app,
    "wpt-bench pretrain dmc · wpt-bench pretrain dmc --profile lite --published results/dmc-lite · "
    "wpt-bench pretrain metaworld --profile smoke --executor ray",
)
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
    published: Published = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Pre-trains the shared world model, or takes a published one, collecting the data first if need be."""
    from wpt_bench.running.executors import choose
    from wpt_bench.running.plan import Layout, select
    from wpt_bench.running.stages import read_stage

    selection, layout = select(suite, profiles.load(profile), parts(tasks), (), seeds_in(seeds)), Layout(out)
    refuse_other_folders(published, suite)
    place = choose(
        executor, workers=workers, device=device, address=address, gpus_per_run=gpus_per_run, storage=storage
    )
    dataset = data_set(selection, layout, workers, yes, published)
    wanted = stages_of([selection], dataset.digest)
    take_published(published, layout, wanted, {})
    if make_jobs((), list(wanted.values()), dataset, layout, place, retries=retries).failed:
        raise typer.Exit(1)
    rows = [
        {"stage": stage.id, "seed": stage.identity["seed"]}
        | {key: row[key] for key in ("embodiment", "model", "persistence", "mean", "context", "horizon")}
        for stage in map(functools.partial(read_stage, layout), wanted)
        if stage is not None
        for row in stage.open_loop
    ]
    print_rows(rows, as_json, title="open-loop error on held-out episodes (standardised, mean squared)")


@command(
    app,
    "wpt-bench run dmc · wpt-bench run dmc --tasks walker-walk --methods dreamer,wpt --seeds 0,1,2 --dry-run · "
    "wpt-bench run metaworld --profile lite --published results/metaworld-lite · "
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
    published: Published = None,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would run and what it would cost")] = False,
) -> None:
    """Makes all runs of a grid, methods x tasks x seeds, or goes on with them; makes data and pre-training first."""
    from wpt_bench.running.executors import choose
    from wpt_bench.running.plan import Layout, select
    from wpt_bench.running.tracking import chosen

    selection = select(suite, profiles.load(profile), parts(tasks), parts(methods), seeds_in(seeds))
    refuse_other_folders(published, suite)
    layout, trackers = Layout(out), chosen(tracker)
    place = choose(
        executor, workers=workers, device=device, address=address, gpus_per_run=gpus_per_run, storage=storage
    )
    if dry_run:
        _dry_run([selection], selection.profile, layout, workers, published)
    else:
        dataset = data_of([selection], layout, workers, yes, published)
        if make_runs([selection], dataset, layout, place, retries, trackers, published):
            raise typer.Exit(1)


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
    published: Published = None,
    yes: Yes = False,
) -> None:
    """From nothing to a report: data, pre-training, runs, comparison."""
    from wpt_bench.running.executors import choose
    from wpt_bench.running.plan import Layout, select
    from wpt_bench.running.tracking import chosen

    selection = select(suite, profiles.load(profile), parts(tasks), parts(methods), seeds_in(seeds))
    refuse_other_folders(published, suite)
    layout, trackers = Layout(out), chosen(tracker)
    place = choose(
        executor, workers=workers, device=device, address=address, gpus_per_run=gpus_per_run, storage=storage
    )
    dataset = data_of([selection], layout, workers, yes, published)
    failed = make_runs([selection], dataset, layout, place, retries, trackers, published)
    report_grid(selection, layout, as_json=False)
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
    published: Published = None,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would run and what it would cost")] = False,
    as_json: Json = False,
) -> None:
    """Makes all runs of an experiment, a profile varied in one thing at a time, and renders what came out.

    It goes on where it stopped, and shares runs with the plain grid and with other experiments where nothing differs.
    Other --tasks or --seeds add to what an earlier call began: the report is of all tasks with all seeds of both, and
    calls missing what was made with neither. Where data, versions or levels have changed since, it begins anew.
    """
    from wpt_bench.running import experiment as experimenting
    from wpt_bench.running.executors import choose
    from wpt_bench.running.plan import Layout
    from wpt_bench.running.tracking import chosen

    layout, asked, loaded, trackers = Layout(out), experiments.load(name), profiles.load(profile), chosen(tracker)
    varied = experimenting.grids(asked, suite, loaded, parts(tasks), seeds_in(seeds))
    refuse_other_folders(published, suite)
    selections = [one.selection for one in varied]
    place = choose(
        executor, workers=workers, device=device, address=address, gpus_per_run=gpus_per_run, storage=storage
    )
    if dry_run:
        levels = [f"{one.factor.name}/{one.level.name}" for one in varied]
        _dry_run(selections, loaded, layout, workers, published, levels)
        return
    dataset = data_of(selections, layout, workers, yes, published)
    digest = dataset.digest if dataset else None
    plan, lost = experimenting.keep(asked, loaded, experimenting.plan(asked, varied, digest), layout, digest)
    if lost:
        say(lost, errors)
    failed = make_runs(selections, dataset, layout, place, retries, trackers, published)
    again = f"wpt-bench experiment {name} --suite {suite} --profile {profile}"
    again += _narrowed(plan, asked.profile(loaded, suite).grid(suite))
    report_experiment(plan, layout, again, as_json)
    if failed:
        raise typer.Exit(1)


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
    """Says which runs of a grid, and of experiments with its profile that were begun, are pending, running,
    interrupted, done, failed, damaged or stale, and why.

    begun: with --storage, a cluster's worker has begun it there; whether it still works on it, storage cannot tell.
    interrupted: a process that worked on it died; the command that began it goes on with it. stale: made with other
    settings, data or versions than the grid and the experiments have now; it is in no report. damaged: the sentence
    says what to delete. experiment: the levels that count a run (experiment/factor/level).
    """
    from wpt_bench.running import bench as benching
    from wpt_bench.running import grid
    from wpt_bench.running.exchange import Stored
    from wpt_bench.running.experiment import current, levels
    from wpt_bench.running.plan import Layout, identities, select

    loaded, layout = profiles.load(profile), Layout(out)
    stored = Stored(storage) if storage else None
    rows = []
    for name in [suite] if suite else [name for name in loaded.grids if name in registry.suites()]:
        selection = select(name, loaded, parts(tasks), parts(methods), seeds_in(seeds))
        dataset = benching.find_data(selection, layout)
        digest = dataset.digest if dataset else None
        if stored and selection.needs_data and dataset is None:
            unknown = f"{out} has no {name} data, without which runs that learn from it cannot be looked up in storage"
            say(f"{unknown}: give the --out of the command that makes them.", errors)
        plans, faults = records.find_plans(layout.plans, selection.suite, loaded.name)
        plans, outdated = current(plans, digest)
        for fault in (*faults, *outdated):
            say(fault, errors)
        wanted: dict[str, tuple[Any, list[str]]] = {
            records.digest(run): (run, []) for run in identities(selection, digest)
        }
        wanted |= {
            run_id: (run, counted)
            for run_id, (run, counted) in levels(plans).items()
            if (not tasks or run.task in [task.name for task in selection.tasks])
            and (not methods or run.method in [method.name for method in selection.methods])
            and (not seeds or run.seed in selection.grid.seeds)
        }
        found: list[tuple[Any, list[str], str, str]] = []
        found += [(run, counted, *grid.standing(run, layout, stored)) for run, counted in wanted.values()]
        found += [(run, [], "stale", "") for run in grid.stale([run for run, _ in wanted.values()], layout)]
        rows += [
            {
                "suite": identity.suite,
                "task": identity.task,
                "method": identity.method,
                "seed": identity.seed,
                "profile": identity.profile,
                "experiment": counted,
                "status": state,
                "why": why,
            }
            for identity, counted, state, why in found
        ]
    if not as_json:
        empty = [key for key in ("experiment", "why") if not any(row[key] for row in rows)]
        rows = [{key: value for key, value in row.items() if key not in empty} for row in rows]
    print_rows(rows, as_json, title=f"runs in {out}")


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
        chosen = paper if tasks == "paper" else parts(tasks)
        selection = select(name, loaded, chosen, parts(methods), seeds_in(seeds))
        dataset = benching.find_data(selection, layout)
        digest = dataset.digest if dataset else "not collected"
        times = simulate.measured(layout, name, loaded.name)
        first += simulate.simulated((), stages(selection, digest), times)
        then += simulate.simulated(identities(selection, digest), (), times)
    rows = [asdict(row) for row in simulate.makespans(first + then, numbers_in(workers, "Workers", 1, 1_000_000))]
    print_rows(rows, as_json, title=f"{len(first)} stages and {len(then)} runs")


def _narrowed(plan: Any, own: Any) -> str:
    """Options that ask for a plan's tasks and seeds, as far as they are not those of the experiment's ``own`` grid."""
    tasks, seeds = records.spanned([run for arm in plan.arms for run in arm.runs])
    options = f" --tasks {','.join(tasks)}" if tasks != list(own.tasks) else ""
    return options + (f" --seeds {','.join(map(str, seeds))}" if seeds != sorted(own.seeds) else "")


def _dry_run(
    selections: Sequence[Any],
    profile: Any,
    layout: Any,
    workers: int,
    published: Path | None,
    levels: Sequence[str] = (),
) -> None:
    """Says what grids of a profile would run and cost: as it is, or with variations that ``levels`` names."""
    from wpt_bench.running import bench as benching
    from wpt_bench.running import grid
    from wpt_bench.running.estimate import estimate
    from wpt_bench.running.plan import identities, together
    from wpt_bench.running.stages import is_done

    needing = [one for one in selections if one.needs_data]
    selection = (needing or selections)[0]
    dataset = benching.find_data(selection, layout)
    missing = benching.missing_scenes(selection, dataset) if needing else []
    if missing:
        benching.refuse_missing_episodes(selection)
    digest = dataset.digest if dataset and not missing else None
    runs = together(selections, digest)
    counted: dict[str, list[str]] = {run_id: [] for run_id in runs}
    for level, its in zip(levels, selections, strict=False):
        for run in identities(its, digest):
            counted[records.digest(run)].append(level)
    there = takeable(published)
    states: dict[str, str] = {run_id: grid.status(identity, layout) for run_id, identity in runs.items()}
    states |= {run_id: "published" for run_id, state in states.items() if state != "done" and run_id in there}
    pending = [identity for run_id, identity in runs.items() if states[run_id] not in ("done", "published")]
    rows = [
        {"method": identity.method, "task": identity.task, "seed": identity.seed, "status": states[run_id]}
        | ({"levels": counted[run_id]} if levels else {})
        for run_id, identity in runs.items()
    ]
    print_rows(
        rows,
        False,
        title=f"{selection.suite} · {selection.profile.name} · {selection.grid.budget:,} environment steps each",
    )
    if missing:
        say(f"To be collected first: {', '.join(missing)}.")
    shared = stages_of(needing, digest or "not collected")
    first = [stage for stage_id, stage in shared.items() if not is_done(layout, stage_id) and stage_id not in there]
    if first:
        said = f"To be pre-trained or shared by tasks: {len(first)}; the hours below are with them."
        say(said)
    cost = estimate(profile, selection.suite, layout, [*first, *pending], workers=workers)
    basis = "from finished runs" if cost.measured else "from the profile"
    say(
        f"{cost.runs} runs to make on {workers} workers: about {cost.hours:.2f} hours ({basis}); disk about "
        f"{cost.disk_gib} GiB ({cost.free_disk_gib:.0f} free); memory up to {cost.memory_gib} GiB."
    )
