"""Published runs: packed and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from wpt_bench import profiles, records, registry
from wpt_bench.cli.console import (
    OUT,
    RESULTS,
    Json,
    Out,
    ProfileName,
    Suite,
    app,
    command,
    errors,
    print_json,
    progress_bar,
    say,
    say_wrong,
)
from wpt_bench.cli.reporting import keep_page, render_published
from wpt_bench.protocol import UserError


@command(app, "wpt-bench publish dmc · wpt-bench publish metaworld --profile lite --to results")
def publish(
    suite: Suite,
    profile: ProfileName = "quick",
    to: Annotated[Path, typer.Option("--to", help="folder of published folders")] = RESULTS,
    out: Out = OUT,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="make the folder anew of what --out has: drop runs of older versions and what else --out lacks",
        ),
    ] = False,
) -> None:
    """Packs the finished runs of a suite and profile into a folder to commit: records, every figure, the pre-trained
    world models that they started from (weights if all fit in 8 MiB), the data card, the actions that data of learning
    collectors are played from (if all fit in 8 MiB), and the page."""
    from wpt_bench.analysis import archive
    from wpt_bench.analysis import publish as publishing
    from wpt_bench.running import bench as benching
    from wpt_bench.running import kept
    from wpt_bench.running.experiment import current
    from wpt_bench.running.plan import Layout, identities, select, stages

    selection, layout = select(suite, profiles.load(profile)), Layout(out)
    name, known = selection.profile.name, registry.suite(suite).name
    dataset = benching.find_data(selection, layout)
    plans, faults = records.find_plans(layout.plans, known, name)
    if plans and dataset is None:
        raise UserError(
            f"Which runs are of experiments is told by their data set, and {layout.data(suite, name)} is not there; "
            f"collect it: wpt-bench data collect {suite} --profile {profile}."
        )
    plans, outdated = current(plans, dataset.digest if dataset else None)
    gaps = [*faults, *outdated]
    command = f"wpt-bench publish {suite} --profile {profile} --to {to}" + ("" if out == OUT else f" --out {out}")
    folder = to / f"{known}-{name}"
    before = kept.Before()
    if archive.is_published(folder) and not replace:
        archive.refuse_altered(folder)
        before = kept.before(folder, layout)
    grid = identities(selection, dataset.digest if dataset else None)
    made = publishing.publish(
        layout.runs, folder, suite=known, profile=name, command=command, plans=plans, grid=grid, replace=replace
    )
    used = {one.run.identity.stage for one in archive.read(folder)[0] if one.run.status == "done"}
    own = [records.digest(stage) for stage in stages(selection, dataset.digest)] if dataset else before.stages
    contents, left_out = kept.contents(layout, [stage for stage in own if stage in used])
    gaps += left_out
    others = before.files
    if dataset is None and replace:
        gaps.append(f"Of the data nothing is kept: {layout.data(suite, name)} is not there.")
    if dataset is not None and not benching.missing_scenes(selection, dataset):
        with progress_bar("computing labels") as progress:
            rows = benching.card_rows(selection, layout, dataset, progress)
        recordings, left_out = kept.recordings(selection, dataset)
        gaps += left_out
        others = {records.CARD: msgspec.json.format(msgspec.json.encode(rows)), **recordings}
    made = archive.add(folder, made, {**contents, **others})
    made = keep_page(folder, render_published(folder, layout)[1], made)
    for gap in (*gaps, *(f"{gap.id} ({gap.status}): {gap.why}" for gap in made.left_out)):
        say(f"Left out: {gap}", errors)
    say(f"{made.runs} runs, {made.episodes} episodes, in {folder}")
    say(f"Check it: wpt-bench verify {folder}")


@command(app, "wpt-bench verify results · wpt-bench verify results/metaworld-gate --rerun c2d1 --episodes 2", "verify")
def verify_published(
    path: Annotated[Path, typer.Argument(help="a published folder, or a folder of them")],
    rerun: Annotated[
        str | None, typer.Option("--rerun", help="train the beginning of this run again: its id or first digits")
    ] = None,
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="training episodes to make again")] = 3,
    out: Out = OUT,
    as_json: Json = False,
) -> None:
    """Recomputes every published figure and checksum; with --rerun, trains a run's first episodes again.

    Exit code 0: everything is as published. 1: something is not. 3: a run was made again in another environment than
    the recorded one, where equality cannot be demanded, and nothing else was found.
    """
    from wpt_bench.analysis import verify as verifying

    if rerun == "":
        raise UserError("--rerun names a run, by its id or the first digits of it: see the lines of runs.jsonl.")
    folders = verifying.published_folders(path)
    one = None if rerun is None else verifying.find_run(folders, rerun)
    checked = [verifying.verify(folder) for folder in folders]
    if not as_json:  # before the long part, which may end in an error of its own
        for its in checked:
            _say_checked(its)
    again = _again(one, out, episodes) if one else None
    found = any(its.findings for its in (*checked, again) if its)
    undecided = again is not None and not again.reproduced
    if as_json:
        plain = [msgspec.to_builtins(its, enc_hook=str) for its in checked]
        print_json({"ok": not found and not undecided, "folders": plain, "rerun": msgspec.to_builtins(again)})
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

    with progress_bar("training again") as progress:
        return rerun(one.run, one.episodes(), Layout(out), progress, episodes=episodes)


def _say_checked(its: Any) -> None:
    say_wrong(its.findings)
    compared = f"{its.runs} runs, {its.episodes} episodes and {its.figures} figures compared"
    say(f"{its.folder}: {compared}, {len(its.findings)} findings.")


def _say_again(again: Any) -> None:
    from wpt_bench.running.rerun import TOLERANCE

    say_wrong(again.findings)
    made = f"Run {again.run}: {again.episodes} training episodes were made again"
    if not again.environment:
        said = f"{made}; {again.compared} rows were compared, each to the last bit, {len(again.findings)} findings."
        say(said)
        return
    environment = "; ".join(again.environment)
    compared = f"{again.compared} returns from before the first update were compared, within {TOLERANCE:.0%}"
    say(
        f"{made}, but not in the environment of its record ({environment}), so equality cannot be demanded: "
        f"{compared if again.compared else 'nothing of it can be compared'}.",
        errors,
    )
