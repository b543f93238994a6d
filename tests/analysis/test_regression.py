"""The gate on real folders."""

from pathlib import Path

import numpy as np
import pytest

from analysis.synthetic import flat, write
from wpt_bench.analysis.publish import publish
from wpt_bench.analysis.regression import compare_folders
from wpt_bench.protocol import UserError

TASKS = ("walker-stand", "walker-walk")


def runs(root: Path, level: float, seeds, *, method="wpt", tasks=TASKS, generator=0, **changes) -> Path:
    rng = np.random.default_rng(generator)
    for task in tasks:
        for seed in seeds:
            write(root / "runs", method, task, seed, flat(float(rng.normal(level, 0.05))), **changes)
    return root


def answer(*folders: Path, **options) -> str:
    return compare_folders(*folders, **options).verdict.answer


def test_folders_are_compared_however_they_are_named(tmp_path):
    before = runs(tmp_path / "before", 0.6, range(10))
    worse = runs(tmp_path / "worse", 0.3, range(4), generator=1)
    alike = runs(tmp_path / "alike", 0.6, range(10), generator=2)
    publish(before / "runs", tmp_path / "dmc-quick", suite="dmc", profile="quick", command="made up")
    for baseline in (before, before / "runs", tmp_path / "dmc-quick"):
        assert (answer(baseline, worse), answer(baseline, alike / "runs")) == ("regressed", "pass")
    found = compare_folders(before, worse)
    assert found.verdict.seeds == {"wpt": (10, 4)} and (found.suite, found.profile) == ("dmc", "quick")
    (whole,) = [change for change in found.verdict.changes if not change.task and change.figure == "auc"]
    assert (whole.baseline, whole.candidate) == pytest.approx((0.6, 0.3), abs=0.05)
    assert whole.difference.value == pytest.approx(whole.candidate - whole.baseline)


def test_what_else_differs_is_said(tmp_path):
    before = runs(tmp_path / "before", 0.6, range(6))
    after = runs(tmp_path / "after", 0.6, range(6), method_version=2, settings={"actor_critic_lr": 1.0}, data="f" * 16)
    notes = " ".join(compare_folders(before, after).notes)
    assert "another version (1 before, 2 now)" in notes and "other settings (" in notes and "offline data" in notes
    assert "Code: 0123abcd before, 0123abcd now." in notes and "processor" not in notes and "safe side" not in notes
    again = tmp_path / "again"
    for number, revision in enumerate(("0123abcd", "4567efab")):
        machine = {"git_revision": revision, "machine": {"processor": "abacus"}}
        runs(again, 0.6, range(3 * number, 3 * number + 3), generator=1, provenance=machine)
    notes = " ".join(compare_folders(before, again).notes)
    assert "several revisions of the code" in notes and "0123abcd, 4567efab now" in notes
    assert "Another processor (x86_64 before, abacus now)" in notes and "safe side" in notes
    package = {"git_revision": "0123abcd", "package": "linear-search 1.1 (89ab)"}
    other = runs(tmp_path / "other", 0.6, range(6), generator=2, provenance=package)
    assert "Code: 0123abcd before, 0123abcd with linear-search 1.1 (89ab) now." in compare_folders(before, other).notes
    installed = {"git_revision": None, "versions": {"wpt-bench": "0.3"}}
    other = runs(tmp_path / "installed", 0.6, range(6), generator=2, provenance=installed)
    assert "Code: 0123abcd before, wpt-bench 0.3 now." in compare_folders(before, other).notes
    runs(again, 0.6, range(6), method="dreamer")
    assert "no runs of dreamer, which the candidate has" in " ".join(compare_folders(before, again).notes)
    part = runs(tmp_path / "part", 0.6, range(6), generator=2, subset={"share": 0.5}, stage="a" * 16)
    notes = " ".join(compare_folders(before, part).notes)
    assert "another part of the data (all before, {'share': 0.5} now)" in notes and "another pre-training" in notes


def test_the_baselines_own_records_are_no_candidate(tmp_path):
    before = runs(tmp_path / "before", 0.6, range(6))
    runs(before, 0.6, range(6, 8))
    with pytest.raises(UserError, match="16 of the candidate's runs are records of the baseline"):
        compare_folders(before, before)
    publish(before / "runs", tmp_path / "dmc-quick", suite="dmc", profile="quick", command="made up")
    with pytest.raises(UserError, match="in a folder of their own, with --out"):
        compare_folders(tmp_path / "dmc-quick", before)


def test_runs_of_two_kinds_are_no_candidate_unless_the_others_are_older(tmp_path):
    before = runs(tmp_path / "before", 0.6, range(8))
    mixed = runs(tmp_path / "mixed", 0.6, range(8), generator=1)
    runs(mixed, 0.1, range(4), settings={"actor_critic_lr": 1.0})
    with pytest.raises(UserError, match=r"two kinds: 8 would be left out \(.*settings"):
        compare_folders(before, mixed)
    newer = runs(tmp_path / "newer", 0.6, range(8), generator=1)
    runs(newer, 0.1, range(4), method_version=2)
    found = compare_folders(before, newer)
    assert found.verdict.answer == "regressed" and "are left out" in " ".join(found.notes)


@pytest.mark.parametrize("which", ["baseline", "candidate"])
@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]], ids=["all", "one task"])
def test_failed_runs_are_named_with_the_reason(tmp_path, which, tasks):
    whole = runs(tmp_path / "whole", 0.6, range(6))
    broken = tmp_path / "broken"
    runs(broken, 0.6, range(6), generator=1, tasks=[task for task in TASKS if task not in tasks])
    runs(broken, 0.6, range(6), tasks=tasks, status="failed", error="Traceback\nLossError: it became nan")
    folders = (broken, whole) if which == "baseline" else (whole, broken)
    with pytest.raises(UserError, match=rf"The {which}, .*broken, is not whole: .*it became nan"):
        compare_folders(*folders)


@pytest.mark.parametrize("name", ["episodes.parquet", "manifest.json", "figures.json"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_altered_published_folder_is_not_compared(tmp_path, name, which):
    folders = [tmp_path / "before" / "dmc-quick", tmp_path / "after" / "dmc-quick"]
    for generator, folder in enumerate(folders):
        made = runs(tmp_path / f"out {generator}", 0.6, range(6), generator=generator)
        publish(made / "runs", folder, suite="dmc", profile="quick", command="made up")
    assert answer(*folders) in ("pass", "inconclusive")
    raw = bytearray((folders[which] / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folders[which] / name).write_bytes(bytes(raw))
    with pytest.raises(UserError, match=rf"{name} .*All that is wrong: wpt-bench verify"):
        compare_folders(*folders)


def test_offline_methods_are_judged_by_their_final_score(tmp_path):
    before = runs(tmp_path / "before", 0.6, range(8), online=False)
    after = runs(tmp_path / "after", 0.2, range(8), generator=1, online=False)
    found = compare_folders(before, after)
    assert found.verdict.answer == "regressed" and {change.figure for change in found.verdict.changes} == {"score"}
    with pytest.raises(UserError, match="online on one side and offline on the other"):
        compare_folders(before, runs(tmp_path / "online", 0.6, range(8)))


def test_a_candidate_that_lacks_what_the_baseline_has_is_no_candidate(tmp_path):
    before = runs(tmp_path / "before", 0.6, range(4))
    runs(before, 0.2, range(4), method="dreamer")
    whole = runs(tmp_path / "whole", 0.6, range(4), generator=1)
    with pytest.raises(UserError, match="no runs of the baseline's method dreamer"):
        compare_folders(before, whole)
    assert answer(before, whole, methods=["wpt"]) in ("pass", "inconclusive")
    part = runs(tmp_path / "part", 0.6, range(4), tasks=TASKS[:1], generator=2)
    with pytest.raises(UserError, match="no runs of the baseline's task walker-walk"):
        compare_folders(before, part, methods=["wpt"])
    assert answer(before, part, methods=["wpt"], tasks=TASKS[:1]) in ("pass", "inconclusive")
    write(part / "runs", "wpt", TASKS[1], 0, flat(0.6))
    with pytest.raises(UserError, match="missing: walker-walk seed 1"):
        compare_folders(before, part, methods=["wpt"])
    write(part / "runs", "wpt", TASKS[0], 9, flat(0.6), status="failed")
    with pytest.raises(UserError, match=r"has \d+ of \d+ runs"):
        compare_folders(before, part, methods=["wpt"], tasks=TASKS[:1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"budget": 5000}, "budget of 10,000 environment steps, the candidate of 5,000"),
        ({"suite_version": 2}, "version 1 of the suite, the candidate of 2"),
        ({"protocol": {"action_repeat": 4}}, r"differ in the protocol of walker-stand \(action_repeat"),
        ({"profile": "lite"}, "holds no runs of suite dmc with profile quick"),
        ({"observation": "pixels"}, "holds no runs"),
    ],
)
def test_what_is_made_otherwise_is_not_compared(tmp_path, changes, sentence):
    before = runs(tmp_path / "before", 0.6, range(4))
    after = runs(tmp_path / "after", 0.6, range(4), **changes)
    with pytest.raises(UserError, match=sentence):
        compare_folders(before, after)


def test_bad_arguments_end_in_a_sentence(tmp_path):
    before = runs(tmp_path / "before", 0.6, range(1))
    other = runs(tmp_path / "other", 0.6, range(1), generator=1)
    (tmp_path / "empty").mkdir()
    for folders, options, sentence in (
        ((tmp_path / "nowhere", before), {}, "is no folder"),
        ((tmp_path / "empty", before), {}, "has no readable runs"),
        ((before, tmp_path / "empty"), {}, "holds no runs"),
        ((before, before), {"methods": ["wtp"]}, "no runs of the method 'wtp'; it has wpt"),
        ((before, before), {"tasks": ["walker"]}, "no runs of the task 'walker'"),
        ((before, before), {"suite": "metaworld"}, "no readable runs of suite metaworld"),
        ((before, other), {}, "decides nothing"),
    ):
        with pytest.raises(UserError, match=sentence):
            compare_folders(*folders, **options)
    runs(before, 0.6, range(1), profile="lite")
    with pytest.raises(UserError, match="dmc lite, dmc quick; say which"):
        compare_folders(before, before)
