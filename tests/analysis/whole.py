"""Made-up runs with every row that the protocol asks for, and published folders of them to tamper with."""

import hashlib
import json
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.synthetic import identity
from wpt_bench.analysis.archive import EPISODES, MANIFEST, RUNS
from wpt_bench.analysis.publish import publish
from wpt_bench.records import Episode, Identity, Run, append_episodes, digest, write_run

LENGTH = 1000
PROTOCOL = {"action_repeat": 2, "evaluation_every": 0.25, "evaluation_episodes": 2}


def made_up(identity: Identity, *, online: bool = True, shift: float = 0.0) -> tuple[Run, list[Episode]]:
    """A finished run whose rows are written down here by hand, step by step, as a loop would."""
    rows: list[Episode] = []
    updates = 0 if online else 50

    def row(kind: str, step: int, index: int) -> Episode:
        score = 100.0 + 30 * identity.seed + step / 10 + 7 * index + shift
        metrics = {"loss": 1 / 3 + step, "entropy": -1e-300} if kind == "train" else {}
        return Episode(kind, step, index, score, 1.0, 0.0, LENGTH, 0, updates, len(rows) / 7, metrics)

    def evaluate(step: int) -> None:
        rows.extend([row("evaluation", step, index) for index in range(2)])

    evaluate(0)
    for index in range(8 if online else 0):
        updates += 10 * (index > 0)
        rows.append(row("train", (index + 1) * LENGTH, index))
        if index % 2 == 1:
            evaluate((index + 1) * LENGTH)
    run = Run(
        id=digest(identity),
        identity=identity,
        family="From scratch" if identity.method == "dreamer" else "WPT",
        data_access="none" if identity.method == "dreamer" else "reward-free",
        tuning="none",
        embodiment="walker",
        score="return",
        score_scale=1000.0,
        episode_length=LENGTH,
        online=online,
        status="done",
        provenance={"command": "wpt-bench run dmc", "versions": {"torch": "2.13.0"}},
        updates=updates,
        env_steps=rows[-1].env_step,
        wall_clock=100.0,
    )
    return run, rows


def its(method: str, seed: int, task: str = "walker-stand", **changes) -> Identity:
    return identity(method, task, seed, **{"budget": 8 * LENGTH, "protocol": PROTOCOL, **changes})


def write_whole(root: Path, identity: Identity, *, online: bool = True, shift: float = 0.0, **changes) -> str:
    run, rows = made_up(identity, online=online, shift=shift)
    folder = root / run.id
    write_run(folder, msgspec.structs.replace(run, **changes))
    append_episodes(folder, rows)
    return run.id


def grid(root: Path) -> list[str]:
    """Two methods with two seeds each; ids in the order of methods and seeds."""
    return [
        write_whole(root, its(method, seed), shift=shift)
        for method, shift in (("dreamer", 0.0), ("wpt", 90.0))
        for seed in (0, 1)
    ]


def published(folder: Path, root: Path, **experiments) -> Path:
    command = "wpt-bench publish dmc --profile quick --to results"
    publish(root, folder, suite="dmc", profile="quick", command=command, **experiments)
    return folder


# Tampering


def vouch(folder: Path) -> None:
    """Adapts the manifest's checksums to what the files hold now."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rows_of(folder: Path) -> list[dict]:
    return pq.read_table(folder / EPISODES).to_pylist()


def write_rows(folder: Path, rows: list[dict]) -> None:
    schema = pq.read_schema(folder / EPISODES)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / EPISODES, compression="zstd")


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / RUNS).read_text().splitlines()]


def write_lines(folder: Path, runs: list[dict]) -> None:
    """As a forger would, who leaves checksums of lines out."""
    (folder / RUNS).write_text("".join(json.dumps(run | {"checksum": ""}) + "\n" for run in runs))
