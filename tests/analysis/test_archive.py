"""Published folders: loss-free, the same bytes for the same runs, and usable as far as they are whole."""

import json
import math
import shutil

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.synthetic import flat, write
from analysis.whole import grid, its, lines_of, published, rows_of, write_lines, write_rows, write_whole
from wpt_bench import records
from wpt_bench.analysis import archive, bounded
from wpt_bench.analysis.compare import compare_runs
from wpt_bench.analysis.publish import publish
from wpt_bench.analysis.scores import load_runs, load_tables
from wpt_bench.analysis.summary import figures
from wpt_bench.protocol import UserError
from wpt_bench.records import Episode, Recorded

FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**62)
EPISODE = st.builds(
    Episode,
    kind=st.sampled_from(["train", "evaluation"]),
    env_step=COUNT,
    index=COUNT,
    episode_return=FINITE,
    success_any=FINITE,
    success_last=FINITE,
    length=COUNT,
    guided_steps=COUNT,
    updates=COUNT,
    wall_clock=FINITE,
    metrics=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), FINITE, max_size=4),
)


@pytest.fixture
def runs(tmp_path):
    grid(tmp_path / "runs")
    return tmp_path / "runs"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(st.lists(EPISODE, max_size=5), min_size=1, max_size=4))
def test_every_digit_of_every_row_comes_back(tmp_path, monkeypatch, histories):
    monkeypatch.setattr(archive, "_ROWS_PER_GROUP", 4)  # so that a few runs fill several groups
    monkeypatch.setattr(bounded, "_refusal", lambda *what: "")  # looks at each file in a process of its own
    folder = tmp_path / "published"
    shutil.rmtree(folder, ignore_errors=True)
    found = []
    for seed, rows in enumerate(histories):
        run = records.read_run(write(tmp_path / "runs", "dreamer", "walker-stand", seed, flat(0.5)))
        found.append(Recorded(run, tmp_path / "nowhere", lambda rows=rows: rows))
    archive.write(folder, found, suite="dmc", profile="quick", command="")
    again, problems = archive.read(folder)
    assert problems == []
    ours = {one.run.id: (one.run, [repr(row) for row in one.episodes()]) for one in again}  # repr tells -0.0 from 0.0
    assert ours == {one.run.id: (one.run, [repr(row) for row in one.episodes()]) for one in found}
    shutil.rmtree(tmp_path / "runs")


def test_its_columns_are_the_fields_of_an_episode(tmp_path, runs):
    names = pq.read_schema(published(tmp_path / "made", runs) / archive.EPISODES).names
    assert names == ["run", *Episode.__struct_fields__]


def test_a_line_is_what_run_json_holds(tmp_path, runs):
    lines = lines_of(published(tmp_path / "made", runs))
    assert lines == [json.loads((folder / "run.json").read_bytes()) for folder in sorted(runs.iterdir())]


def test_the_same_runs_give_the_same_bytes(tmp_path, runs):
    first, second = published(tmp_path / "a", runs), published(tmp_path / "b", runs)
    for folder in sorted(runs.iterdir(), reverse=True):  # other folder names, another order of finding
        folder.rename(runs / f"{hash(folder.name) % 97:02d}-{folder.name}")
    published(second, runs)
    contents = {path.name: path.read_bytes() for path in first.iterdir()}
    assert contents == {path.name: path.read_bytes() for path in second.iterdir()}
    assert set(contents) == {"runs.jsonl", "episodes.parquet", "figures.json", "manifest.json"}


def test_comparisons_of_a_published_folder_are_those_of_its_runs(tmp_path, runs):
    write_whole(runs, its("wpt", 2), status="failed", error="Traceback\n  File secret.py\nOutOfMemory: no room")
    write_whole(runs, its("wpt", 0, budget=4000))  # another budget: stale
    made = published(tmp_path / "made", runs)
    theirs, ours = (compare_runs(root, suite="dmc", profile="quick") for root in (runs, made))
    assert [absent.why for absent in ours[0].table.missing] == ["OutOfMemory: no room"]
    assert len(ours[0].table.stale) == 1
    expected = figures(theirs)
    for absent in expected["tables"][0]["missing"]:
        absent["why"] = absent["why"].splitlines()[-1]
    assert figures(ours) == expected == json.loads((made / "figures.json").read_bytes())
    assert ours[0].table.problems == ()


def test_figures_are_json_as_they_are_read_back(runs):
    made = figures(compare_runs(runs, suite="dmc", profile="quick"))
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_gaps_are_listed(tmp_path, runs):
    failed = write_whole(runs, its("wpt", 2), status="failed", error="why")
    running = write_whole(runs, its("wpt", 3), status="running")
    (runs / "torn").mkdir()
    (runs / "torn" / "run.json").write_text("{")
    lost = write_whole(runs, its("wpt", 4))
    (runs / lost / "episodes.jsonl").write_text("no JSON\n")
    manifest = publish(runs, tmp_path / "made", suite="dmc", profile="quick", command="c")
    gaps = {gap.id: gap for gap in manifest.left_out}
    assert {key: gap.status for key, gap in gaps.items()} == {
        failed: "failed",
        running: "running",
        "torn": "unreadable",
        lost: "unreadable",
    }
    assert gaps[failed].why == "why" and gaps[lost].why.startswith("episodes.jsonl, line 1,")
    assert str(tmp_path) not in (tmp_path / "made" / "manifest.json").read_text()
    table = load_runs(tmp_path / "made", suite="dmc", profile="quick")
    assert {absent.id for absent in table.missing} == {failed, running, lost}
    (problem,) = table.problems
    assert "manifest.json says that torn was not published" in problem


def test_without_a_finished_run_nothing_is_published(tmp_path):
    write_whole(tmp_path / "runs", its("wpt", 2), status="failed", error="why")
    with pytest.raises(UserError, match=r"holds no finished run of suite dmc with profile quick; make some: wpt-bench"):
        published(tmp_path / "made", tmp_path / "runs")
    assert not (tmp_path / "made").exists()


def test_a_bad_line_is_a_problem_and_the_rest_is_used(tmp_path, runs):
    made = published(tmp_path / "made", runs)
    lines = (made / "runs.jsonl").read_text().splitlines()
    lines[1] = lines[1][:-10]
    lines[2] = lines[2].replace('"schema":1', '"schema":9')
    (made / "runs.jsonl").write_text("\n".join(lines))
    table = load_runs(made, suite="dmc", profile="quick")
    assert len(table.runs) == 2
    damaged, torn, other = table.problems
    assert "runs.jsonl was altered or damaged" in damaged
    assert "runs.jsonl, line 2, cannot be read as a run record" in torn
    assert "runs.jsonl, line 3, has record schema 9; this version reads schema 1." in other


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "foreign", "missing"])
def test_unreadable_episodes_are_one_sentence_and_every_run_is_missing(tmp_path, runs, damage):
    made = published(tmp_path / "made", runs)
    path = made / "episodes.parquet"
    raw, column = path.read_bytes(), pq.read_metadata(path).row_group(0).column(0)
    last = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
    flipped = raw[:last] + bytes([raw[last] ^ 1]) + raw[last + 1 :]
    path.write_bytes({"truncated": raw[:-9], "emptied": b"", "flipped": flipped}.get(damage, raw))
    if damage == "foreign":
        pq.write_table(pq.read_table(path).drop_columns("metrics"), path)
    if damage == "missing":
        path.unlink()
    table = load_runs(made, suite="dmc", profile="quick")
    assert len(table.runs) == 0 and len(table.missing) == 4
    assert len(table.problems) == 2 and all("episodes.parquet" in problem for problem in table.problems)


def test_a_missing_manifest_leaves_the_runs_usable(tmp_path, runs):
    made = published(tmp_path / "made", runs)
    (made / "manifest.json").unlink()
    (table,) = load_tables(made, suite="dmc", profile="quick")
    assert len(table.runs) == 4
    (problem,) = table.problems
    assert "manifest.json cannot be read" in problem


def test_an_altered_score_names_the_published_file(tmp_path, runs):
    made = published(tmp_path / "made", runs)
    rows = rows_of(made)
    rows[0]["episode_return"] = math.nan
    write_rows(made, rows)
    table = load_runs(made, suite="dmc", profile="quick")
    assert len(table.runs) == 3
    assert any("episodes.parquet: the score of evaluation episode 0" in problem for problem in table.problems)


def test_one_run_may_not_be_there_twice(tmp_path, runs):
    made = published(tmp_path / "made", runs)
    lines = lines_of(made)
    write_lines(made, [*lines, lines[0]])
    found, problems = archive.read(made)
    assert len(found) == 4
    assert any(f"line 5, holds run {lines[0]['id']}, which is in the file before" in problem for problem in problems)


def test_a_manifest_of_another_schema_is_named(tmp_path, runs):
    made = published(tmp_path / "made", runs)
    manifest = archive.read_manifest(made)
    other = msgspec.structs.replace(manifest, schema=9)
    (made / "manifest.json").write_bytes(msgspec.json.encode(other))
    with pytest.raises(records.RecordError, match=r"manifest\.json has schema 9 of published folders"):
        archive.read_manifest(made)
