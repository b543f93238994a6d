"""Holds measured throughput against the reference: ``python tests/benchmarks/throughput.py out/perf/throughput.json``.

Of several files of the same machine the median counts. ``--write`` makes them the reference instead. Exit code 0:
nothing is slower by more than the tolerance. 1: something is. 3: nothing could be compared.
"""

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wpt_bench.protocol import UserError

REFERENCE = Path(__file__).parents[2] / "results" / "throughput.json"
TOLERANCE = 0.2
"""Share by which a ratio may grow. results/README.md says by how much ratios of the same code differ."""
MACHINE = ("processor", "cores", "cpu_capability")
SLOWER, NOTHING_COMPARED = 1, 3


def read(path: Path) -> Any:
    """JSON; UserError for anything else."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}.") from error


def measured(paths: list[Path]) -> dict[str, list[float]]:
    """Times in calibrations by what was measured, one of each file of pytest-benchmark's."""
    found = defaultdict(list)
    for path in paths:
        for benchmark in benchmarks_in(path):
            ratio = benchmark["extra_info"]["calibrations"]
            found[benchmark["param"]].append(checked(ratio, benchmark["param"], path))
    for name, ratios in found.items():
        if len(ratios) != len(paths):
            raise UserError(
                f"{name!r} was measured {len(ratios)} times in {len(paths)} files; it has to be once in each."
            )
    return dict(found)


def benchmarks_in(path: Path) -> list[dict[str, Any]]:
    """Those that are measured in calibrations; UserError if there are none."""
    plain = read(path)
    try:
        found = [one for one in plain["benchmarks"] if "calibrations" in one["extra_info"] and one["param"]]
    except (KeyError, TypeError, AttributeError):
        found = []
    if found:
        return found
    raise UserError(f"{path} has no throughput in it; tests/benchmarks/test_throughput.py measures it.")


def checked(ratio: Any, name: str, path: Path) -> float:
    """The ratio; UserError if it is none."""
    if not isinstance(ratio, int | float) or not 0 < ratio < math.inf:
        raise UserError(f"{path} says that {name!r} takes {ratio} calibrations, which is no measurement.")
    return float(ratio)


def reference_in(path: Path) -> dict[str, float]:
    """The reference's ratios by what was measured."""
    try:
        return {name: checked(its["ratio"], name, path) for name, its in read(path)["figures"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no reference; --write makes one.") from error


def compare(ratios: dict[str, list[float]], reference: dict[str, float], console: Console) -> int:
    """Prints what changed; returns the exit code."""
    if absent := [name for name in reference if name not in ratios]:
        raise UserError(f"{absent[0]!r} was not measured, but the reference has it.")
    if unknown := [name for name in ratios if name not in reference]:
        raise UserError(f"The reference lacks {unknown[0]!r}; measure it anew and --write it.")
    table = Table("what", "now", "reference", "change", title="time in calibrations", title_justify="left")
    slower = []
    for name, was in reference.items():
        now = statistics.median(ratios[name])
        table.add_row(escape(name), f"{now:.2f}", f"{was:.2f}", f"{now / was - 1:+.0%}")
        if now > was * (1 + TOLERANCE):
            slower.append(f"{name} takes {now:.2f} calibrations instead of {was:.2f} ({now / was - 1:+.0%})")
    console.print(table)
    for line in slower:
        console.print(
            f"Slower: {escape(line)}, where {TOLERANCE:.0%} more is tolerated.", soft_wrap=True, highlight=False
        )
    return SLOWER if slower else 0


def write(ratios: dict[str, list[float]], paths: list[Path], to: Path) -> None:
    """Makes what was measured the reference."""
    made = {
        "repetitions": len(paths),
        **where(paths[0]),
        "figures": {
            name: {
                key: round(of(its), 4) for key, of in (("ratio", statistics.median), ("lowest", min), ("highest", max))
            }
            for name, its in ratios.items()
        },
    }
    try:
        to.write_text(json.dumps(made, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{to} cannot be written: {error.strerror}.") from error


def where(path: Path) -> dict[str, Any]:
    """How and on what it was measured; UserError if the file does not say."""
    first = benchmarks_in(path)[0]["extra_info"]
    try:
        return {
            **{key: first[key] for key in ("rounds", "threads")},
            **{key: first["machine"][key] for key in MACHINE},
            "versions": first["versions"],
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not say on what machine it was measured ({error} is missing).") from error


def elsewhere(path: Path, reference: Path) -> str:
    """A sentence if the reference is of another machine or other libraries, where ratios may differ by themselves."""
    here, there = where(path), read(reference)
    named = [name for name in (*MACHINE, "versions") if here[name] != there.get(name)]
    return f"The reference is of another machine: {', '.join(named)} differ. Ratios may shift with it." if named else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="what pytest wrote with --benchmark-json")
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="of another machine than ours")
    parser.add_argument("--write", action="store_true", help="renew the reference")
    chosen = parser.parse_args(arguments)
    try:
        ratios = measured(chosen.files)
        if not chosen.write:
            console = Console(width=None if sys.stdout.isatty() else 120)
            code = compare(ratios, reference_in(chosen.reference), console)
            if note := elsewhere(chosen.files[0], chosen.reference):
                console.print(escape(note), soft_wrap=True, highlight=False)
            return code
        write(ratios, chosen.files, chosen.reference)
        return 0
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        return NOTHING_COMPARED


if __name__ == "__main__":
    sys.exit(main())
