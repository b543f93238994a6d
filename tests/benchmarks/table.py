"""Prints what the benchmarks measured: ``python tests/benchmarks/table.py out/perf/benchmarks.json``."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

COLUMNS = ("benchmark", "ours", "floor", "plain way", "ratio", "published", "the floor is")


def row(benchmark: dict[str, Any]) -> tuple[str, ...]:
    """Median of our way, floor and plain way in milliseconds; how many times faster ours is than the plain one."""
    info = benchmark["extra_info"]

    def milliseconds(value: float | None) -> str:
        return "" if value is None else f"{1e3 * value:.3g} ms"

    ratio = f"{info['ratio']:.2f}x" if "ratio" in info else ""
    published = f"{info['published']:.3g} s, {info['published_ratio']:.2f}x" if "published" in info else ""
    ours = milliseconds(benchmark["stats"]["median"])
    times = milliseconds(info.get("floor")), milliseconds(info.get("reference"))
    return escape(benchmark["name"].removeprefix("test_")), ours, *times, ratio, published, info.get("floor_of", "")


def main(path: Path) -> None:
    found = json.loads(path.read_text())
    cpu = found["machine_info"]["cpu"]
    table = Table(*COLUMNS, title=f"{cpu.get('brand_raw', 'unknown processor')}, {cpu.get('count')} cores")
    for benchmark in found["benchmarks"]:
        table.add_row(*row(benchmark))
    Console(width=None if sys.stdout.isatty() else 180).print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
