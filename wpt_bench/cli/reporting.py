"""What finished runs say, and what seeds can resolve."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from wpt_bench import profiles, records, registry
from wpt_bench.cli.console import (
    OUT,
    Json,
    Methods,
    Out,
    ProfileName,
    Seeds,
    Tasks,
    app,
    command,
    console,
    numbers_in,
    parts,
    print_json,
    print_rows,
    progress_bar,
    say,
    say_wrong,
    seeds_in,
)
from wpt_bench.protocol import UserError

NARROWING = ("profile", "tasks", "methods", "seeds")


@command(app, "wpt-bench report dmc · wpt-bench report --profile quick · wpt-bench report results/dmc-quick")
def report(
    context: typer.Context,
    suite: Annotated[
        str,
        typer.Argument(help="dmc, metaworld, nothing for all with runs of the profile, or a published folder"),
    ] = "",
    profile: ProfileName = "quick",
    tasks: Tasks = "",
    methods: Methods = "",
    seeds: Seeds = "",
    out: Out = OUT,
    keep: Annotated[
        bool, typer.Option("--keep", help="of a published folder: also put into it the page and the figures of now")
    ] = False,
    as_json: Json = False,
) -> None:
    """Prints the comparison and renders the HTML report, from records alone.

    Of a published folder that is not as it was published, it renders what can be read, says what is wrong and ends with
    exit code 1.
    """
    from wpt_bench.running.plan import Layout, select

    if suite and suite not in registry.suites():
        folder = _published_folder(suite)
        for name in NARROWING:
            if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE":
                raise UserError(f"--{name} is for runs in --out; {folder} is rendered as a whole: leave --{name} away.")
        _report_published(folder, Layout(out), keep, as_json)
        return
    if keep:
        raise UserError("--keep is for a published folder; make one: wpt-bench publish dmc.")
    loaded = profiles.load(profile)
    names = [suite] if suite else _suites_with_runs(Layout(out).runs, loaded)
    if not names:
        raise UserError(f"There are no runs of profile {profile!r} in {out}; make some: wpt-bench bench dmc.")
    for name in names:
        report_grid(select(name, loaded, parts(tasks), parts(methods), seeds_in(seeds)), Layout(out), as_json)


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
    pairs = list(itertools.product(numbers_in(tasks, "Tasks", 1), numbers_in(seeds, "Seeds", 2)))
    rows = []
    with progress_bar("simulating") as progress:
        for done, (of_tasks, of_seeds) in enumerate(pairs):
            progress(done / len(pairs), f"{of_seeds} seeds, {of_tasks} tasks")
            rows.append(asdict(simulate(metric, of_seeds, of_tasks, trials=trials)))
    if not as_json:  # what fits a terminal
        rows = [{key: value for key, value in row.items() if key not in ("metric", "trials")} for row in rows]
    print_rows(rows, as_json, title=f"what seeds resolve: {metric}")


def _suites_with_runs(runs: Path, profile: profiles.Profile) -> list[str]:
    """Those of the profile's suites of which a run of it can be read."""
    from wpt_bench.analysis.scores import read_all

    identities = [one.run.identity for one in read_all(runs)[0]]
    found = {identity.suite for identity in identities if identity.profile == profile.name}
    return [name for name in profile.grids if name in found]


def _published_folder(name: str) -> Path:
    """The published folder of this name; UserError if it is none."""
    from wpt_bench.analysis.archive import is_published, published_in

    folder = Path(name)
    if is_published(folder):
        return folder
    if inside := published_in(folder):
        raise UserError(f"{name} is a folder of published folders; name one of them: wpt-bench report {inside[0]}.")
    raise UserError(
        f"{name!r} is neither a suite nor a published folder; suites are {', '.join(registry.suites())}, and "
        "published folders are what wpt-bench publish makes."
    )


def _report_published(folder: Path, layout: Any, keep: bool, as_json: bool) -> None:
    """The comparison and the page of a published folder; exits with 1 if it is not as it was published."""
    from wpt_bench.analysis import archive
    from wpt_bench.analysis.publish import encode, recompute

    comparisons, page, problems = render_published(folder, layout)
    _say(comparisons, page, as_json)
    if problems:
        say_wrong([*problems, f"The page is of what can be read; all that is wrong: wpt-bench verify {folder}."])
        raise typer.Exit(1)
    if keep:
        manifest = archive.read_manifest(folder)
        figures = encode(recompute(folder, manifest.suite, manifest.profile))
        keep_page(folder, page, archive.add(folder, manifest, {archive.FIGURES: figures}))


def report_grid(selection: Any, layout: Any, as_json: bool) -> None:
    """The comparison of a grid's finished runs, on the console and as a page."""
    from wpt_bench.analysis.compare import compare_runs
    from wpt_bench.analysis.experiment import summarise
    from wpt_bench.analysis.scores import Reading
    from wpt_bench.reports.page import write
    from wpt_bench.running import bench as benching
    from wpt_bench.running.experiment import current
    from wpt_bench.running.plan import identities

    suite, profile = selection.suite, selection.profile.name
    dataset = benching.find_data(selection, layout)
    expected = identities(selection, dataset.digest if dataset else None)
    reading, (plans, faults) = Reading(layout.runs), records.find_plans(layout.plans, suite, profile)
    plans, outdated = current(plans, dataset.digest if dataset else None)
    faults += outdated
    comparisons = compare_runs(reading, suite=suite, profile=profile, expected=expected, plans=plans)
    found = [summarise(plan, reading) for plan in plans]
    with progress_bar("computing labels") as progress:
        extras = benching.report_extras(selection, layout, progress)
    command = f"wpt-bench report {suite} --profile {profile}"
    for option, chosen, own in (
        ("tasks", [task.name for task in selection.tasks], selection.profile.grid(suite).tasks),
        ("methods", [method.name for method in selection.methods], selection.profile.grid(suite).methods),
        ("seeds", list(map(str, selection.grid.seeds)), list(map(str, selection.profile.grid(suite).seeds))),
    ):
        command += f" --{option} {','.join(chosen)}" if chosen != list(own) else ""
    page, title = layout.report(suite, profile), f"wpt-bench: {suite}, {profile}"
    made = write(
        comparisons,
        page,
        title=title,
        extras=extras,
        declared=_declared(),
        command=command,
        experiments=found,
        faults=faults,
    )
    _say(comparisons, made, as_json)


def report_experiment(plan: Any, layout: Any, again: str, as_json: bool) -> None:
    """The page of an experiment, and what it says on the console."""
    from wpt_bench.analysis.experiment import summarise
    from wpt_bench.analysis.scores import Reading
    from wpt_bench.reports.experiment import show, write

    summary = summarise(plan, Reading(layout.runs))
    folder = layout.report(plan.suite, f"{plan.profile}-{plan.name}")
    page = write(summary, folder, title=f"wpt-bench: {plan.suite}, {plan.profile}, {plan.name}", command=again)
    if as_json:
        print_json(json.loads((page.parent / "summary.json").read_text()) | {"report": str(page)})
        return
    show(summary, console)
    say(f"Report: {page}")


def keep_page(folder: Path, page: Path, manifest: Any) -> Any:
    """Puts the rendered page of a published folder, and its first figure, into it.

    The same records give the same bytes. Returns the manifest that vouches for them.
    """
    from wpt_bench.analysis import archive

    figures = [
        path for path in sorted((page.parent / "figures").iterdir()) if archive.FIRST_FIGURE.fullmatch(path.name)
    ]
    return archive.add(folder, manifest, {path.name: path.read_bytes() for path in (page, *figures)})


def render_published(folder: Path, layout: Any) -> tuple[Any, Path, list[str]]:
    """The comparisons of committed records, their page, and a sentence for whatever is not as it was published."""
    from wpt_bench.analysis import archive
    from wpt_bench.analysis.publish import read_published
    from wpt_bench.reports.page import write
    from wpt_bench.running import kept

    manifest = archive.read_manifest(folder)
    comparisons, found = read_published(folder, manifest.suite, manifest.profile)
    extras, faults = {}, []
    try:
        extras = kept.extras(folder) | {"data_card": archive.read_card(folder)}
    except (UserError, records.RecordError, OSError) as error:
        faults.append(str(error))
    title = f"wpt-bench: {manifest.suite}, {manifest.profile}, as published"
    page = layout.out / "reports" / f"published-{folder.resolve().name}"
    command = f"wpt-bench report {folder}"
    made = write(
        comparisons,
        page,
        title=title,
        extras=extras,
        declared=_declared(),
        command=command,
        experiments=found,
        faults=faults,
    )
    unread = [text for one in comparisons for text in one.table.problems]
    unread += [text for one in found for text in one.problems]
    return comparisons, made, list(dict.fromkeys([*faults, *unread]))


def _declared() -> Any:
    """Table 1 as the installed methods declare it."""
    from wpt_bench.analysis.properties import Declaration, declared

    return declared(
        Declaration(method.name, method.family, str(method.data_access), method.online)
        for method in registry.methods().values()
    )


def _say(comparisons: Any, page: Path, as_json: bool) -> None:
    """Says on the console what the page says."""
    from wpt_bench.reports.console import show
    from wpt_bench.reports.table_one import show_declared, show_measured

    if as_json:
        print_json(json.loads((page.parent / "summary.json").read_text()) | {"report": str(page)})
        return
    for comparison in comparisons:
        show(comparison, console)
    show_declared(_declared(), console)
    for comparison in comparisons:
        show_measured(comparison, console)
    say(f"Report: {page}")
