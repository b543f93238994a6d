"""Offline data: collected, described, checked, exchanged with Minari."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from wpt_bench import profiles, registry
from wpt_bench.cli.console import (
    CORES,
    OUT,
    Json,
    Out,
    ProfileName,
    Published,
    Suite,
    Tasks,
    Workers,
    Yes,
    command,
    console,
    data_app,
    parts,
    print_json,
    progress_bar,
    say,
    say_wrong,
)
from wpt_bench.cli.jobs import data_set, refuse_other_folders
from wpt_bench.protocol import UserError


@command(
    data_app,
    "wpt-bench data collect dmc · wpt-bench data collect metaworld --profile smoke --out /tmp/try · "
    "wpt-bench data collect dmc --profile lite --published results/dmc-lite",
)
def collect(
    suite: Suite,
    profile: ProfileName = "quick",
    tasks: Tasks = "",
    out: Out = OUT,
    workers: Workers = CORES,
    published: Published = None,
    yes: Yes = False,
) -> None:
    """Collects the offline data of a profile, or what is missing of it."""
    from wpt_bench.running.plan import Layout, select

    selection = select(suite, profiles.load(profile), parts(tasks))
    refuse_other_folders(published, suite)
    dataset = data_set(selection, Layout(out), workers, yes, published)
    say(f"{len(dataset.episodes)} episodes, digest {dataset.digest}, in {dataset.path}")


@command(data_app, "wpt-bench data card dmc · wpt-bench data card dmc --tasks walker-walk,walker-run --json")
def card(
    suite: Suite, profile: ProfileName = "quick", tasks: Tasks = "", out: Out = OUT, as_json: Json = False
) -> None:
    """Describes the data: episodes per embodiment and collector, and how good they are at each task."""
    from wpt_bench.data.card import table
    from wpt_bench.running import bench
    from wpt_bench.running.plan import Layout, select

    selection, layout = select(suite, profiles.load(profile), parts(tasks)), Layout(out)
    dataset = bench.find_data(selection, layout)
    if dataset is None:
        raise UserError(
            f"There is no {suite} data of profile {profile!r} in {out}; "
            f"collect it: wpt-bench data collect {suite} --profile {profile}."
        )
    with progress_bar("computing labels") as progress:
        made = bench.data_card(selection, layout, dataset, progress)
    print_json(msgspec.to_builtins(made)) if as_json else console.print(table(made))


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

    folder = Layout(out).data(what, profiles.load(profile).name) if what in registry.suites() else Path(what)
    if not (folder / "manifest.json").exists():
        raise UserError(f"{folder} holds no data set: there is no manifest.json in it.")
    problems = store.verify(folder)
    if as_json:
        print_json({"folder": str(folder), "ok": not problems, "problems": problems})
    else:
        say_wrong(problems)
        if not problems:
            say(f"{folder}: every file is whole.")
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

    dataset = Dataset.open(Layout(out).data(suite, profiles.load(profile).name))
    labelled: dict[str, Any] = {"suite": registry.suite(suite), "task": registry.task(suite, task)} if task else {}
    made = to_minari(dataset, dataset_id, scene=scene, **labelled)
    say(f"{made.total_episodes} episodes, {made.total_steps} agent steps, as {dataset_id}")


@command(data_app, "wpt-bench data import my/door-v0 out/data/metaworld-quick metaworld door-open", "import")
def import_(
    dataset_id: Annotated[str, typer.Argument(help="of a Minari data set on this machine")],
    folder: Annotated[Path, typer.Argument(help="of the data set to add it to")],
    suite: Suite,
    scene: Annotated[str, typer.Argument(help="embodiment (dmc) or task (metaworld) that it is of")],
    action_repeat: Annotated[int, typer.Option(min=1, help="environment steps per step of the Minari data")] = 2,
) -> None:
    """Adds a Minari data set as a shard.

    A profile uses the folder out/data/SUITE-PROFILE; its pre-training and runs are then made again. DMControl's rewards
    are computed from physics, which Minari does not hold: there, methods that see labels, the data card, and with it
    report and publish, end in an error.
    """
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
    say(f"{len(made.episodes)} episodes in {folder}")
