"""Settings: searched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from wpt_bench import profiles
from wpt_bench.cli.console import (
    CORES,
    OUT,
    Address,
    Device,
    Executor,
    GpusPerRun,
    Json,
    Methods,
    Out,
    ProfileName,
    Retries,
    Storage,
    Suite,
    Workers,
    Yes,
    app,
    command,
    parts,
    print_json,
    print_rows,
    say,
    say_wrong,
    seeds_in,
)
from wpt_bench.cli.jobs import data_of, make_jobs


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
    from wpt_bench.running.executors import choose
    from wpt_bench.running.plan import Layout

    selection = tuning.select(suite, profiles.load(profile), parts(tasks), parts(methods), seeds_in(seeds))
    layout = Layout(out)
    place = choose(
        executor, workers=workers, device=device, address=address, gpus_per_run=gpus_per_run, storage=storage
    )
    dataset = data_of([selection], layout, workers, yes, None)

    def make(number: int, runs: Any, stages: Any) -> Any:
        title = f"trial {number} of 0 to {trials - 1}"
        return make_jobs(runs, stages, dataset, layout, place, title=title, retries=retries)

    searches = tuning.searches(selection, dataset.digest if dataset else None)
    made = tuning.tune(searches, layout, trials, make)
    if as_json:
        print_json(msgspec.to_builtins(made))
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
    print_rows(rows, False, title=f"settings.{record.table}: {on}")
    if record.best is None:
        say_wrong([f"No trial of settings.{record.table} was without a failed run."])
        return
    best = f"Best is trial {record.best} (trial 0 has the profile's present settings). In the profile:"
    raised = f"Evaluations spent: {record.evaluations}. Raise tuning_evaluations by it: {', '.join(record.read_by)}."
    for text in (best, "", record.toml, "", raised, f"Record: {file}"):
        say(text)
