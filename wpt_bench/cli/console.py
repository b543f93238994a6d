"""What all commands share: options, errors in one sentence, tables, progress, questions."""

from __future__ import annotations

import functools
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from wpt_bench import records
from wpt_bench.profiles import MOST_COUNTS
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
Published = Annotated[
    Path | None,
    typer.Option("--published", help="a published folder: what it has of the same data and settings is not made again"),
]
TrackerNames = Annotated[
    str, typer.Option("--tracker", help="tensorboard, wandb, both with a comma, or none: curves to watch, not records")
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes",
        "-y",
        help="agree to adding to data that is there, which makes its runs stale; a first collection asks nothing",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON for programs")]

OUT, RESULTS = Path("out"), Path("results")
WORKERS_TO_PLAN = "1,2,4,8,16,32,64,128,256,512,1000"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command(
    group: typer.Typer, examples: str, name: str | None = None, failed: int = 1
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Registers a command whose user errors end in one sentence and exit code ``failed``, and faults of ours in it too.

    A command line that cannot be parsed ends with 2, or with ``failed`` where that is above, for then 2 means more.
    """

    class Command(TyperCommand):
        def parse_args(self, *args: Any) -> list[str]:
            try:
                return super().parse_args(*args)
            except Exception as error:
                if getattr(error, "exit_code", None) == 2:
                    error.exit_code = max(2, failed)  # type: ignore[attr-defined]
                raise

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
            except (typer.Exit, typer.Abort):
                raise
            except Exception as error:
                if (message := _sentence(error)) is not None:
                    say_wrong([message])
                elif failed == 1:  # what Python ends with by itself
                    raise
                else:
                    traceback.print_exc()
                raise typer.Exit(failed) from None

        group.command(name, cls=Command, epilog=f"Examples: {examples}")(guarded)
        return guarded

    return register


def _sentence(error: Exception) -> str | None:
    """What users are told of an error, None if it is a fault of ours."""
    if isinstance(error, UserError | RecordError):
        return str(error)
    return records.unwritable(error) if isinstance(error, OSError) else None


LONGEST_NAME = 28
"""Letters of a cell beyond which it is no name but a sentence."""


def print_rows(rows: list[dict[str, Any]], as_json: bool, *, title: str) -> None:
    """Rows with the same keys, as a table or as JSON."""
    if as_json:
        print_json(rows)
        return
    tight: dict[str, Any] = {"padding": (0, 1, 0, 0), "show_edge": False, "pad_edge": False}
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, **tight)
    # A name that is cut in two cannot be copied: heads are cut at their words, and sentences give way.
    words = {name: name.split("_") for name in (rows[0] if rows else ())}
    widest = {
        name: max(len(text) for text in (*head, *(_cell(row[name]) for row in rows))) for name, head in words.items()
    }
    names = {name: width for name, width in widest.items() if width <= LONGEST_NAME}
    room = console.width - 2 * len(widest) - sum(names.values()) - LONGEST_NAME * (len(names) < len(widest))
    for name, head in words.items():
        table.add_column(" ".join(head), overflow="fold", width=names.get(name) if room >= 0 else None)
    for row in rows:
        table.add_row(*[Text(_cell(value)) for value in row.values()])
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < math.inf else f"{value:.3g}"
    return str(value)


def print_json(value: Any) -> None:
    """For programs."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def say_wrong(sentences: Iterable[str]) -> None:
    """Says on standard error what is wrong, a line for each thing."""
    for sentence in sentences:
        say(sentence, errors, label="Error: ")


def say(text: str, where: Console = console, *, label: str = "") -> None:
    """A line as it is: brackets are no markup, and the terminal wraps it. ``label`` stands before it in red."""
    where.print(Text.assemble((label, "red"), text), soft_wrap=True)


def asking(yes: bool) -> Callable[[str], bool]:
    """Asks a question, unless ``yes`` answers all of them; UserError where nobody can be asked."""

    def confirm(question: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UserError(f"{question} Say --yes to agree where nobody can be asked.")
        return typer.confirm(question, default=True)

    return confirm


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[..., None]]:
    """A progress bar with time left that goes away when it is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}", markup=False),
    )
    with Progress(*columns, console=errors, transient=True) as bars:
        bar = bars.add_task(title, total=1.0, what="")

        def progress(fraction: float, what: str = "") -> None:
            bars.update(bar, completed=fraction, what=what)

        yield progress


@contextmanager
def grid_bars(names: dict[str, str], title: str = "all") -> Iterator[Callable[[str, float, str], None]]:
    """One bar for everything with time left, one for each job that is being done; finished ones leave a line."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}", markup=False),
    )
    with Progress(*columns, console=errors) as bars:
        overall = bars.add_task(title, total=len(names), what=f"0/{len(names)}")
        active: dict[str, TaskID] = {}
        fractions: dict[str, float] = {}

        def show(run_id: str, fraction: float, what: str) -> None:
            if fractions.get(run_id, 0.0) >= 1.0:  # what it said before it ended, heard late
                return
            fractions[run_id] = fraction
            ended = sum(value >= 1.0 for value in fractions.values())
            bars.update(overall, completed=sum(fractions.values()), what=f"{ended}/{len(names)}")
            if run_id not in active and fraction < 1:
                active[run_id] = bars.add_task(names[run_id], total=1.0, what="")
            if fraction < 1:
                bars.update(active[run_id], completed=fraction, what=what)
            elif run_id in active:
                bars.remove_task(active.pop(run_id))
                say(f"{names[run_id]}: {what}", bars.console)

        yield show


def parts(text: str) -> tuple[str, ...]:
    """Of a list with commas."""
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def seeds_in(text: str) -> tuple[int, ...]:
    """Seeds of a list with commas; none of an empty one."""
    return tuple(numbers_in(text, "Seeds", 0, MOST_COUNTS)) if text else ()


def numbers_in(text: str, what: str, least: int, most: int = 255) -> list[int]:
    """Whole numbers separated by commas, none below ``least`` or above ``most``."""
    try:
        found = [int(part) for part in parts(text)]
    except ValueError:
        found = []
    if not found or min(found) < least or max(found) > most:
        raise UserError(f"{what} are whole numbers from {least} to {most} separated by commas, as 0,1,2, not {text!r}.")
    return found


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
