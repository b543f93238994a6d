"""Whoever changes a published folder is found out, and what was changed is named."""

import json
import shutil

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.whole import (
    grid,
    its,
    lines_of,
    made_up,
    published,
    rows_of,
    vouch,
    write_lines,
    write_rows,
    write_whole,
)
from wpt_bench import records
from wpt_bench.analysis.verify import FIGURES_NAMED, differences, expected_rows, faults, published_folders, verify
from wpt_bench.protocol import UserError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    grid(root / "runs")
    write_whole(root / "runs", its("td3-bc", 0), online=False)
    write_whole(root / "runs", its("awac", 0), status="failed", error="no room")
    return published(root / "dmc-quick", root / "runs")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "dmc-quick")


def findings(folder):
    return verify(folder).findings


def test_an_honest_folder_is_found_honest(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    checked = verify(folder)
    assert checked.findings == ()
    assert (checked.runs, checked.episodes) == (5, 4 * (2 + 8 + 4 * 2) + 2)
    assert checked.figures > 100
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("vouched", [False, True])
def test_an_altered_return_is_found(folder, vouched):
    rows = rows_of(folder)
    rows[-1]["episode_return"] += 100.0  # of the last evaluation
    write_rows(folder, rows)
    if vouched:
        vouch(folder)
    said = findings(folder)
    assert any("episodes.parquet was altered or damaged" in text for text in said) != vouched
    (score,) = [text for text in said if f"figures.json: tables[0].scores.{rows[-1]['run']}.score " in text]
    assert "is published as" in score and "and its episodes give" in score
    assert any("figures.json: tables[0].methods[" in text for text in said)


def test_a_return_that_no_figure_needs_is_found_by_its_checksum_alone(folder):
    rows = rows_of(folder)
    row = next(row for row in rows if row["kind"] == "train")
    row["episode_return"] += 1.0
    write_rows(folder, rows)
    (said,) = findings(folder)
    assert "episodes.parquet was altered or damaged" in said


@pytest.mark.parametrize("vouched", [False, True])
def test_an_altered_figure_is_named_with_both_values(folder, vouched):
    values = json.loads((folder / "figures.json").read_bytes())
    method = values["tables"][0]["methods"][0]
    was, method["iqm"]["value"] = method["iqm"]["value"], 0.999
    (folder / "figures.json").write_text(json.dumps(values))
    if vouched:
        vouch(folder)
    said = findings(folder)
    assert len(said) == 2 - vouched
    assert f"tables[0].methods[0].iqm.value is published as 0.999 and its episodes give {was}." in said[-1]


def test_many_altered_figures_are_counted(folder):
    values = json.loads((folder / "figures.json").read_bytes())
    curves = [method["curve"] for method in values["tables"][0]["methods"] if method["curve"]]
    for curve in curves:
        for name in ("value", "low", "high"):
            curve[name] = [None if value is None else value + 1 for value in curve[name]]
    count = sum(len(curve[name]) for curve in curves for name in ("value", "low", "high"))
    (folder / "figures.json").write_text(json.dumps(values))
    vouch(folder)
    said = findings(folder)
    assert len(said) == FIGURES_NAMED + 1
    assert f"{count - FIGURES_NAMED} more figures differ" in said[-1]


def test_an_altered_seed_is_not_the_run_of_its_id(folder):
    lines = lines_of(folder)
    lines[0]["identity"]["seed"] = 7
    write_lines(folder, lines)
    vouch(folder)
    said = findings(folder)
    assert any(f"runs.jsonl, line 1, was altered: its id ({lines[0]['id']})" in text for text in said)
    assert any("has 4 usable runs and manifest.json says 5" in text for text in said)
    assert any(f"rows of run {lines[0]['id']}, which is not in runs.jsonl" in text for text in said)


def test_an_altered_seed_with_its_id_leaves_rows_behind(folder):
    lines = lines_of(folder)
    was, lines[0]["identity"]["seed"] = lines[0]["id"], 7
    lines[0]["id"] = records.digest(lines[0]["identity"])
    write_lines(folder, lines)
    vouch(folder)
    said = findings(folder)
    assert any(f"run {lines[0]['id']}" in text and "it lacks evaluation episode 0" in text for text in said)
    assert any(f"rows of run {was}, which is not in runs.jsonl" in text for text in said)


@pytest.mark.parametrize("kind", ["evaluation", "train"])
def test_a_dropped_episode_is_named(folder, kind):
    rows = rows_of(folder)
    (run, *_) = [line["id"] for line in lines_of(folder) if line["online"]]
    gone = next(row for row in rows if row["run"] == run and row["kind"] == kind and row["env_step"] == 4000)
    rows.remove(gone)
    write_rows(folder, rows)
    vouch(folder)
    expected = f"it lacks {kind} episode {gone['index']} at environment step 4000."
    assert any(expected in text and f"run {run}" in text and "episodes.parquet" in text for text in findings(folder))


def test_a_run_that_is_there_twice_is_found(folder):
    lines = lines_of(folder)
    write_lines(folder, [*lines, lines[2]])
    vouch(folder)
    (said,) = findings(folder)
    assert f"line 6, holds run {lines[2]['id']}, which is in the file before" in said


def test_rows_that_are_there_twice_are_found(folder):
    rows = rows_of(folder)
    write_rows(folder, [*rows, *[row for row in rows if row["run"] == rows[0]["run"]]])
    vouch(folder)
    assert any("it has, beyond what the protocol asks for," in text for text in findings(folder))


@pytest.mark.parametrize("name", ["runs.jsonl", "episodes.parquet", "figures.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "foreign", "missing"])
def test_a_damaged_file_is_named(folder, name, damage):
    path = folder / name
    raw = path.read_bytes()
    middle = raw.index(b'"suite"') + 1 if name == "manifest.json" else len(raw) // 2
    damaged = {
        "truncated": raw[: len(raw) // 2],
        "emptied": b"",
        "flipped": raw[:middle] + bytes([raw[middle] ^ 2]) + raw[middle + 1 :],
        "foreign": b"\xff\xfe[1, 2]",
    }
    path.write_bytes(damaged.get(damage, raw))
    if damage == "missing":
        path.unlink()
    said = findings(folder)
    assert said and any(str(path) in text for text in said)
    assert all(len(text.splitlines()) == 1 for text in said)


@pytest.mark.parametrize("column", ["run", "kind", "metrics"])
def test_text_that_is_no_text_is_named(folder, column):
    path = folder / "episodes.parquet"
    table = pq.read_table(path)
    bad = pa.array([b"\xff", *[value.encode() for value in table[column].to_pylist()[1:]]], pa.binary())
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, table.schema.field(column), bad.view(pa.string())), path)
    vouch(folder)
    said = findings(folder)
    assert any(f"{path} has rows of " in text and "utf-8" in text for text in said)


def test_another_schema_is_named(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: text.rindex('"schema": 1')] + '"schema": 2}')
    assert any(
        "manifest.json has schema 2 of published folders; this version reads schema 1" in t for t in findings(folder)
    )


def test_a_file_that_nobody_vouches_for_is_named(folder):
    (folder / "more.csv").write_text("")
    (said,) = findings(folder)
    assert "more.csv is not in manifest.json" in said


def test_a_failed_run_cannot_be_hidden(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (gap,) = manifest["left_out"]
    manifest["left_out"] = []
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert any("the length of tables[0].missing is published as 1" in text for text in findings(folder))
    manifest["left_out"] = [gap | {"record": gap["record"] | {"id": "0" * 16}}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert any("which was left out, is not the digest of its identity" in text for text in findings(folder))


def test_a_run_of_another_profile_does_not_belong(folder):
    lines = lines_of(folder)
    run, _ = made_up(its("wpt", 5, profile="lite"))
    write_lines(folder, [*lines, json.loads(msgspec.json.encode(run))])
    vouch(folder)
    assert any(f"run {run.id} is of dmc lite, not of dmc quick" in text for text in findings(folder))


@pytest.mark.parametrize(
    ("row", "changes", "said"),
    [
        (2, {"episode_return": float("nan")}, "has a return of nan"),
        (2, {"success_any": 0.5}, "successes of 0.5 and 0.0, which are neither 0 nor 1"),
        (2, {"success_any": 0.0, "success_last": 1.0}, "succeeds at its last step and at none"),
        (2, {"length": 998}, "train episode 0 at environment step 1000 has 998 environment steps, not 1000"),
        (2, {"guided_steps": 1001}, "has 1001 guided steps"),
        (2, {"updates": -1}, "has -1 updates"),
        (2, {"metrics": {"loss": float("inf")}}, "has a loss of inf"),
        (3, {"updates": 90}, "updates falls at evaluation episode 0 at environment step 2000, from 90 to 10"),
        (4, {"wall_clock": 0.1}, "wall_clock falls at evaluation episode 0"),
        (-1, {"updates": 71}, "its record has 70 updates and its rows end at 71"),
        (-1, {"wall_clock": 101.0}, "its record has a wall-clock of 100.0 s and its rows end at 101.0 s"),
        (2, {"env_step": 1002}, "it lacks train episode 0 at environment step 1000."),
        (-1, {"env_step": 9000}, "its record has 8000 environment steps and its rows end at 9000"),
    ],
)
def test_what_no_run_can_have_is_named(row, changes, said):
    run, rows = made_up(its("wpt", 0))
    assert list(faults(run, rows)) == []
    rows[row] = msgspec.structs.replace(rows[row], **changes)
    assert any(said in text for text in faults(run, rows))


def test_rows_out_of_order_are_named():
    run, rows = made_up(its("wpt", 0))
    rows[0], rows[1] = rows[1], rows[0]
    assert any("out of order from evaluation episode 1 at environment step 0 on" in text for text in faults(run, rows))


def test_a_protocol_that_says_nothing_is_named():
    run, rows = made_up(its("wpt", 0, protocol={}))
    (said,) = faults(run, rows)
    assert "does not say when it is evaluated" in said


def test_a_budget_that_is_no_whole_number_of_evaluations():
    # Every 2500 steps of 6000, episodes of 1000: after the episodes that pass 2500 and 5000, and after the last.
    protocol = {"evaluation_every": 0.41666, "evaluation_episodes": 1}
    run, _ = made_up(its("wpt", 0, budget=6000, protocol=protocol))
    rows = expected_rows(run, prior=False)
    assert [step for kind, step, _ in rows if kind == "evaluation"] == [0, 3000, 5000, 6000]


def test_a_prior_is_evaluated_once_after_the_first_evaluation_or_not_at_all():
    run, rows = made_up(its("wpt", 0))
    prior = [msgspec.structs.replace(row, kind="prior", guided_steps=500) for row in rows[:2]]
    whole = [*rows[:2], *prior, *rows[2:]]
    assert list(faults(run, rows)) == list(faults(run, whole)) == []
    (said,) = faults(run, [row for row in whole if row is not prior[1]])
    assert "lacks prior episode 1 at environment step 0" in said
    late = [*whole[:5], msgspec.structs.replace(prior[1], env_step=1000), *whole[5:]]
    beyond = "has, beyond what the protocol asks for, prior episode 1 at environment step 1000"
    assert any(beyond in said for said in faults(run, late))
    assert any("out of order" in said for said in faults(run, [*prior, *rows]))


def test_only_published_folders_are_looked_at(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "README.md").write_text("")
    assert published_folders(tmp_path) == published_folders(folder) == [folder]
    for nothing in (tmp_path / "other", tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"is no published folder and holds none; make one: wpt-bench publish"):
            published_folders(nothing)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-5, 5).filter(lambda x: abs(x) > 1e-3)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_tree_does_not_differ_from_itself(tree):
    assert list(differences(tree, json.loads(json.dumps(tree)))) == []


@given(JSON, JSON)
def test_a_replaced_branch_is_found_where_it_is(before, after):
    there = list(differences({"a": [0, {"b": before}]}, {"a": [0, {"b": after}]}))
    if json.dumps(before) == json.dumps(after):
        assert there == []
    assert all("a[1].b" in where for where, _, _ in there)


def test_rounding_is_no_difference_and_more_is():
    assert list(differences({"x": 0.3, "n": 1}, {"x": 0.3 + 1e-11, "n": 1.0})) == []
    assert list(differences({"x": 0.3}, {"x": 0.3 + 1e-9})) == [("x", 0.3, 0.3 + 1e-9)]
    assert [where for where, _, _ in differences([True, None, "a"], [1, 0, "b"])] == ["[0]", "[1]", "[2]"]
    assert [where for where, _, _ in differences({"a": None}, {"b": None})] == ["a", "b"]


# Experiments


@pytest.fixture
def experimented(tmp_path):
    """Two levels of a factor beside the grid; the second level's runs outnumber no group, but would be in its cells."""
    runs = tmp_path / "runs"
    grid(runs)
    shares = {1.0: {}, 0.5: {"subset": {"share": 0.5}}, 0.1: {"subset": {"share": 0.1}}}
    arms = []
    for share, part in shares.items():
        identities = [its("wpt", seed, **part) for seed in (0, 1)]
        if part:
            for identity in identities:
                write_whole(runs, identity, shift=900 * share)
        arms.append(records.Arm("quantity", str(share), share, share == 1.0, "wpt", identities))
    plan = records.Plan("data", "Why?", "dmc", "quick", {"quantity": "How much."}, arms)
    return published(tmp_path / "dmc-quick", runs, plans=[plan], grid=[its("wpt", 0), its("wpt", 1)])


def test_published_experiments_have_figures_that_are_checked_and_leave_the_tables_alone(experimented, original):
    assert verify(experimented).findings == ()
    ours, without = (json.loads((one / "figures.json").read_bytes()) for one in (experimented, original))
    (experiment,) = ours["experiments"]
    assert [arm["done"] for arm in experiment["factors"][0]["arms"]] == [2, 2, 2]
    own = {row["name"]: row["iqm"] for row in ours["tables"][0]["methods"]}
    theirs = {row["name"]: row.get("iqm") for row in without["tables"][0]["methods"]}
    assert own == {name: theirs[name] for name in own} and ours["tables"][0]["stale"] == []


def test_a_changed_plan_is_found_out(experimented):
    path = experimented / "experiments.json"
    path.write_text(path.read_text().replace('"level":"0.1"', '"level":"0.2"'))
    assert any("experiments.json was altered" in finding for finding in verify(experimented).findings)
    vouch(experimented)
    assert any(
        "experiments[0].factors[0].arms[2].level is published as" in what for what in verify(experimented).findings
    )
    path.write_text("{")
    assert any("cannot be read as the plans of experiments" in finding for finding in verify(experimented).findings)


def test_earlier_tasks_of_a_sequence_are_evaluated_last():
    run, rows = made_up(its("wpt", 0, earlier=("walker-stand", "walker-run")))
    last = [row for row in rows if row.kind == "evaluation"][-2:]
    earlier = [
        msgspec.structs.replace(row, kind="earlier", task=task)
        for task in ("walker-stand", "walker-run")
        for row in last
    ]
    assert list(faults(run, [*rows, *earlier])) == []
    assert any("lacks earlier walker-run episode 1" in said for said in faults(run, [*rows, *earlier[:-1]]))
    assert any("out of order" in said for said in faults(run, [*rows, *earlier[2:], *earlier[:2]]))
    alone, rows = made_up(its("wpt", 0))
    assert any("beyond what the protocol asks for" in said for said in faults(alone, [*rows, *earlier]))
