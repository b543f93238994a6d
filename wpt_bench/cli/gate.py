"""The regression gate, and how often it errs."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from wpt_bench.cli.console import (
    Json,
    app,
    command,
    console,
    numbers_in,
    parts,
    print_json,
    progress_bar,
)
from wpt_bench.records import make_folder, write_atomic

FAILED = 3

Folder = Annotated[Path, typer.Argument(help="a published folder, a folder of runs, or what --out named")]
GateSuite = Annotated[str, typer.Option("--suite", help="dmc or metaworld; default: the one there is")]
GateProfile = Annotated[str, typer.Option("--profile", help="default: the one there is")]
GateMethods = Annotated[str, typer.Option("--methods", help="comma-separated; default: the baseline's")]
Alpha = Annotated[float, typer.Option("--alpha", min=0.001, max=0.5, help="chance of calling unchanged code regressed")]
Margin = Annotated[
    float, typer.Option("--margin", min=0.01, max=1.0, help="share of a figure that may be lost and pass")
]


@command(
    app,
    "wpt-bench compare results/metaworld-gate out/candidate · "
    "wpt-bench compare results/metaworld-gate out/candidate --json · "
    "wpt-bench compare before/out after/out --profile gate --methods wpt --markdown comment.md",
    failed=FAILED,
)
def compare(
    baseline: Folder,
    candidate: Folder,
    suite: GateSuite = "",
    profile: GateProfile = "",
    methods: GateMethods = "",
    tasks: Annotated[str, typer.Option("--tasks", help="comma-separated; default: the baseline's")] = "",
    alpha: Alpha = 0.05,
    margin: Margin = 0.25,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="file for the verdict as a comment on a pull request")
    ] = None,
    as_json: Json = False,
) -> None:
    """Says whether the candidate's sample efficiency is worse than the baseline's: pass, regressed or inconclusive.

    Exit code 0: pass. 1: regressed. 2: inconclusive, more seeds are needed. 3: nothing could be compared. The
    candidate's runs have to be made by the code that is judged, in a folder of their own: what is finished is not made
    again.
    """
    from wpt_bench.analysis.gate import EXIT_CODES
    from wpt_bench.analysis.regression import compare_folders
    from wpt_bench.reports import gate as gate_report

    if markdown:  # the verdict of another comparison is not to be taken for this one's
        markdown.unlink(missing_ok=True)
    found = compare_folders(
        baseline,
        candidate,
        suite=suite,
        profile=profile,
        methods=parts(methods),
        tasks=parts(tasks),
        alpha=alpha,
        margin=margin,
    )
    code = EXIT_CODES[found.verdict.answer]
    if markdown:
        make_folder(markdown.parent)
        write_atomic(markdown, gate_report.markdown(found).encode())
    if as_json:
        print_json(
            {"answer": found.verdict.answer, "exit_code": code, "why": gate_report.sentence(found), **asdict(found)}
        )
    else:
        gate_report.show(found, console)
    raise typer.Exit(code)


@command(
    app,
    "wpt-bench error-rates results/metaworld-gate · wpt-bench error-rates results/metaworld-gate --seeds 4,8 --json",
    "error-rates",
)
def error_rates(
    baseline: Folder,
    suite: GateSuite = "",
    profile: GateProfile = "",
    methods: GateMethods = "",
    seeds: Annotated[str, typer.Option("--seeds", help="of a candidate, comma-separated")] = "2,4,8,16",
    trials: Annotated[int, typer.Option("--trials", min=10, help="candidates drawn for each rate")] = 1000,
    alpha: Alpha = 0.05,
    margin: Margin = 0.25,
    as_json: Json = False,
) -> None:
    """Measures how often the gate errs: candidates are drawn from the baseline's own runs and from broken ones.

    The baseline's own as they are, and with every score lowered; broken ones are the arms of the experiments that were
    published with the baseline.
    """
    from wpt_bench.analysis.rates import error_rates as measure
    from wpt_bench.analysis.rates import methods_in
    from wpt_bench.reports.gate import show_rates

    rates: list[Any] = []
    known = methods_in(baseline, suite, profile, parts(methods))
    pairs = list(itertools.product(known, numbers_in(seeds, "Seeds", 1)))
    with progress_bar("drawing candidates") as progress:
        for done, (method, size) in enumerate(pairs):
            progress(done / len(pairs), f"{method}, {size} seeds")
            rates += measure(
                baseline,
                suite=suite,
                profile=profile,
                method=method,
                seeds=[size],
                trials=trials,
                alpha=alpha,
                margin=margin,
            )
    if as_json:
        print_json([asdict(rate) for rate in rates])
    else:
        show_rates(rates, console)
