"""A search of settings: real runs, the same whatever interrupts it, on no task of a table."""

import dataclasses
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import torch

from running import small
from wpt_bench import profiles, records, registry, tuning
from wpt_bench.analysis.scores import load_runs
from wpt_bench.data.store import Dataset
from wpt_bench.profiles import Profile
from wpt_bench.protocol import Choice, Method, UserError
from wpt_bench.records import Identity, digest
from wpt_bench.running import plan
from wpt_bench.running.grid import Outcome, run_grid
from wpt_bench.running.jobs import JobError, Work, failure, perform
from wpt_bench.running.local import this_machine
from wpt_bench.running.loop import Busy, Diverged, lock
from wpt_bench.running.plan import Layout, StageIdentity
from wpt_bench.running.storage import Unanswered
from wpt_bench.tuning import Make, Record, Search, Value, record_file, searches, tune

HELD_OUT = "cartpole-swingup"
SHIPPED = [(name, suite) for name in profiles.names() for suite in profiles.load(name).grids]


def found(profile: Profile, *methods: str, data: str | None = None, seeds: tuple[int, ...] = (0, 1)) -> list[Search]:
    return searches(tuning.select("dmc", profile, (HELD_OUT,), methods, seeds), data)


def here(layout: Layout, data: Path | None = None) -> Make:
    """Makes jobs one after another in this process."""

    def make(number: int, runs: Sequence[Identity], stages: Sequence[StageIdentity]) -> Outcome:
        failed = {}
        for job in [*stages, *runs]:
            try:
                perform(job, Work(layout, data), small.silent, patient=False)
            except JobError as error:
                failed[digest(job)] = error.sentence
        return Outcome((), failed)

    return make


def on_workers(layout: Layout, data: Path | None) -> Make:
    def make(number: int, runs: Sequence[Identity], stages: Sequence[StageIdentity]) -> Outcome:
        return run_grid(runs, layout, data, lambda *what: None, this_machine(1), stages=stages, retries=0)

    return make


# What may be searched


@pytest.mark.parametrize("method", registry.methods().values(), ids=registry.methods())
def test_what_is_searched_fits_and_changes_no_cost(method: Method) -> None:
    """Every profile's present settings are inside, and every value in it makes a run of the same number of updates."""
    rng, held = random.Random(method.name), 0
    for name, suite in SHIPPED:
        profile = profiles.load(name)
        if profile.observation not in method.observations:
            continue
        search = Search(method.settings_name, plan.select(suite, profile, (), (method.name,)), "digest")
        search.refuse_outside()
        now = plan.settings(search.selection, method)
        corners = [{key: _end(span, index) for key, span in search.space.items()} for index in (0, -1)]
        drawn = [{key: _drawn(span, rng) for key, span in search.space.items()} for _ in range(5)]
        for values in [*corners, *drawn]:
            (run, *_), held = search.runs(values), held + 1
            settings = plan.resolve(method, run.settings)
            assert {key: getattr(settings, key) for key in values} == values
            rest = {key for key, value in run.settings.items() if value != msgspec.to_builtins(now)[key]}
            assert rest <= values.keys()
            assert method.updates_per_step(settings) == method.updates_per_step(now)
            assert method.offline_updates(settings) == method.offline_updates(now)
    assert held and not {"batch", "length", "units", "hidden", "retrieved", "world_model"} & method.search.keys()


def _end(span: object, index: int) -> Value:
    return span.options[index] if isinstance(span, Choice) else (span.low, span.high)[index]


def _drawn(span: object, rng: random.Random) -> Value:
    return rng.choice(span.options) if isinstance(span, Choice) else rng.uniform(span.low, span.high)


def test_methods_of_one_table_are_searched_alike() -> None:
    of: dict[str, Mapping[str, object]] = {}
    for method in registry.methods().values():
        assert of.setdefault(method.settings_name, method.search) == method.search
    assert registry.method("dreamer").search == registry.method("wpt").search != {}


def test_a_method_that_says_nothing_of_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = dataclasses.replace(registry.method("sac"), search={})
    monkeypatch.setattr(registry, "method", lambda name: plain)
    with pytest.raises(UserError, match="sac declares no settings to search"):
        found(small.profile(), "sac")


def test_present_settings_outside_of_the_search_are_refused() -> None:
    profile = msgspec.structs.replace(small.profile(), settings={"sac": {"temperature": 7.0}})
    with pytest.raises(UserError, match=r"temperature is 7.0 in \[settings.sac\] of the profile 'small', outside"):
        found(profile, "sac")


# On which tasks


@pytest.mark.parametrize(("name", "suite"), [its for its in SHIPPED if profiles.load(its[0]).grids[its[1]].tuning])
def test_the_profiles_tasks_for_tuning_are_in_no_table_and_need_no_other_data(name: str, suite: str) -> None:
    profile = profiles.load(name)
    selection = tuning.select(suite, profile)
    tables = {task for other in ("smoke", "quick", "published", "lite") for task in _table(other, suite)}
    assert not {task.name for task in selection.tasks} & tables
    assert set(selection.scenes) == set(plan.select(suite, profile).scenes)
    assert selection.grid.seeds == profile.grids[suite].seeds[:1]


def _table(name: str, suite: str) -> tuple[str, ...]:
    grids = profiles.load(name).grids
    return grids[suite].tasks if suite in grids else ()


def test_smoke_quick_and_lite_can_be_tuned() -> None:
    assert all(
        profiles.load(name).grids[suite].tuning for name in ("smoke", "quick", "lite") for suite in ("dmc", "metaworld")
    )


@pytest.mark.parametrize(("task", "table"), [("walker-walk", "lite"), ("cartpole-balance", "small")])
def test_a_task_of_a_table_is_refused(task: str, table: str) -> None:
    with pytest.raises(UserError, match=f"dmc/{task} stands in the results of the profile '{table}'"):
        tuning.select("dmc", small.profile(), (HELD_OUT, task), ("sac",))


# The search


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Record]:
    """Three trials of sac, two seeds each."""
    layout = Layout(tmp_path_factory.mktemp("calm"))
    (record,) = tune(found(small.profile(), "sac"), layout, 3, here(layout))
    return layout, record


def test_the_first_trial_is_the_present_and_the_others_differ(calm: tuple[Layout, Record]) -> None:
    _, record = calm
    (method,) = (registry.method(name) for name in record.methods)
    present = plan.settings(small.selection(("sac",)), method)
    assert record.trials[0].settings == {name: getattr(present, name) for name in method.search}
    assert len({json.dumps(trial.settings) for trial in record.trials}) == 3
    assert [trial.number for trial in record.trials] == [0, 1, 2]


def test_scores_are_those_of_the_reports_and_every_evaluation_is_counted(calm: tuple[Layout, Record]) -> None:
    layout, record = calm
    (search,) = found(small.profile(), "sac")
    assert record.evaluations == 3 * 2 * 3  # trials, seeds, evaluations of a run
    for trial in record.trials:
        runs = load_runs(layout.runs, suite="dmc", profile="small-tuning", expected=search.runs(trial.settings)).runs
        assert {run.id: run.score for run in trial.runs} == dict(zip(runs["id"], runs["auc"], strict=True))
        assert {run.id: run.evaluations for run in trial.runs} == dict(
            zip(runs["id"], runs["evaluations"], strict=True)
        )
        assert trial.value == pytest.approx(runs["auc"].mean())
    best = max(record.trials, key=lambda trial: trial.value or 0.0)
    assert record.trials[record.best or 0].value == best.value


def test_its_runs_are_in_no_report_of_the_profile(calm: tuple[Layout, Record]) -> None:
    with pytest.raises(UserError, match="holds no runs of suite dmc with profile small"):
        load_runs(calm[0].runs, suite="dmc", profile="small")


def test_what_is_pasted_is_what_was_run(calm: tuple[Layout, Record]) -> None:
    _, record = calm
    pasted = msgspec.structs.replace(small.profile(), settings=tomllib.loads(record.toml)["settings"])
    selection = tuning.select("dmc", pasted, (HELD_OUT,), ("sac",))
    (search,) = found(msgspec.structs.replace(small.profile(), settings={}), "sac")
    (run, *_) = search.runs(record.trials[record.best or 0].settings)
    assert msgspec.to_builtins(plan.settings(selection, selection.methods[0])) == run.settings


def test_interrupted_and_gone_on_with_it_ends_the_same_and_makes_no_run_twice(
    calm: tuple[Layout, Record], tmp_path: Path
) -> None:
    layout = Layout(tmp_path)
    make, made = here(layout), []

    def interrupted(number: int, runs: Sequence[Identity], stages: Sequence[StageIdentity]) -> Outcome:
        if number == 1:
            make(number, runs[:1], stages)
            raise KeyboardInterrupt
        return make(number, runs, stages)

    def counted(number: int, runs: Sequence[Identity], stages: Sequence[StageIdentity]) -> Outcome:
        made.append(number)
        return make(number, runs, stages)

    with pytest.raises(KeyboardInterrupt):
        tune(found(small.profile(), "sac"), layout, 3, interrupted)
    before = _times(layout)
    assert len(before) == 3
    (record,) = tune(found(small.profile(), "sac"), layout, 2, counted)
    assert len(record.trials) == 2 and made == [1]
    (record,) = tune(found(small.profile(), "sac"), layout, 3, counted)
    assert made == [1, 2] and before.items() <= _times(layout).items() and len(_times(layout)) == 6
    assert record == calm[1]
    assert msgspec.json.decode(record_file(layout, record.study).read_bytes(), type=Record) == record
    record_file(layout, record.study).unlink()  # as if killed before the last trial was written there
    (again,) = tune(found(small.profile(), "sac"), layout, 2, counted)  # asked for fewer than there are
    assert again == record and made == [1, 2] and record_file(layout, record.study).exists()


def _times(layout: Layout) -> dict[str, int]:
    return {folder.name: (folder / records.RECORD).stat().st_mtime_ns for folder in records.find_runs(layout.runs)}


def test_a_damaged_study_is_named_and_deleted_it_costs_no_run(calm: tuple[Layout, Record]) -> None:
    layout, record = calm
    before, file = _times(layout), record_file(layout, record.study).with_name("study.sqlite3")
    file.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"study.sqlite3 cannot be used: file is not a database; .* delete"):
        tune(found(small.profile(), "sac"), layout, 3, here(layout))
    file.unlink()
    assert tune(found(small.profile(), "sac"), layout, 3, here(layout)) == [record]
    assert _times(layout) == before


def test_a_search_that_another_process_works_on_is_refused(tmp_path: Path) -> None:
    layout, (search,) = Layout(tmp_path), found(small.profile(), "sac")
    folder = record_file(layout, search.name).parent
    folder.mkdir(parents=True)
    with lock(folder), pytest.raises(Busy, match="is being worked on by another process"):
        tune([search], layout, 1, here(layout))


def test_another_question_is_another_study() -> None:
    (search,) = found(small.profile(), "sac")
    others = [
        found(small.profile(budget=4000), "sac"),
        found(small.profile(evaluation_episodes=3), "sac"),
        found(small.profile(), "sac", seeds=(0,)),
        found(msgspec.structs.replace(small.profile(), settings={"sac": {"hidden": 17}}), "sac"),
    ]
    assert len({search.name, *(other.name for (other,) in others)}) == 5
    assert "/" not in dataclasses.replace(search, table="../mine").name


def test_methods_of_one_table_are_judged_together_and_offline_ones_by_their_score(
    prepared: tuple[Layout, Dataset], tmp_path: Path
) -> None:
    _, dataset = prepared
    layout, names = Layout(tmp_path), ("iql", "dreamer", "wpt")
    both = found(small.profile(), *names, data=dataset.digest, seeds=(0,))
    assert [(search.table, len(search.selection.methods)) for search in both] == [("iql", 1), ("wpt", 2)]
    offline, shared = tune(both, layout, 1, here(layout, dataset.path))
    assert [run.method for run in shared.trials[0].runs] == ["dreamer", "wpt"]
    assert (offline.evaluations, shared.evaluations) == (1, 6)
    assert {"dreamer", "wpt", "wpt-random-replay"} < set(shared.read_by) and offline.read_by == ["iql"]
    runs = load_runs(layout.runs, suite="dmc", profile="small-tuning", expected=both[0].runs(both[0].present)).runs
    assert offline.trials[0].value == runs["score"].item()


def test_a_failed_run_fails_its_trial(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    """Of two methods on one table one finds too few episodes to retrieve."""
    _, dataset = prepared
    layout = Layout(tmp_path)
    both = found(small.profile(retrieved=20), "dreamer", "wpt", data=dataset.digest, seeds=(0,))
    (record,) = tune(both, layout, 1, on_workers(layout, dataset.path))
    (trial,) = record.trials
    assert trial.value is None and record.best is None and record.toml == ""
    assert [run.score is None for run in trial.runs] == [False, True]
    assert "Retrieval needs 20 offline episodes" in trial.runs[1].why
    assert [run.evaluations for run in trial.runs] == [3, 0] and record.evaluations == 3


def test_the_evaluations_of_a_run_that_failed_count(tmp_path: Path) -> None:
    """It diverges when it has been evaluated once."""
    layout = Layout(tmp_path)

    def progress(fraction: float, what: str = "") -> None:
        if fraction:
            raise Diverged("A loss is not finite.")

    def make(number: int, runs: Sequence[Identity], stages: Sequence[StageIdentity]) -> Outcome:
        (run,) = runs
        with pytest.raises(JobError) as raised:
            perform(run, Work(layout, None), progress, patient=False)
        return Outcome((), {digest(run): raised.value.sentence})

    (record,) = tune(found(small.profile(), "sac", seeds=(0,)), layout, 1, make)
    (run,) = record.trials[0].runs
    assert (run.score, run.why, record.evaluations) == (None, "A loss is not finite.", 1)


def test_a_trial_whose_worker_is_killed_does_not_count_and_is_made_again(
    calm: tuple[Layout, Record], tmp_path: Path
) -> None:
    layout, (search,) = Layout(tmp_path), found(small.profile(), "sac")

    def kill_the_second_run() -> None:
        rows = layout.runs / digest(search.runs(search.present)[1]) / records.ROWS
        while not rows.exists():
            time.sleep(0.01)
        (worker,) = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
        worker.kill()

    killer = threading.Thread(target=kill_the_second_run, daemon=True)
    killer.start()
    with pytest.raises(UserError, match=r"trial 0 of settings.sac \(its worker process died.* does not count"):
        tune([search], layout, 3, on_workers(layout, None))
    assert not record_file(layout, search.name).exists()
    (record,) = tune([search], layout, 3, on_workers(layout, None))
    assert record == calm[1]


@pytest.mark.parametrize("fault_of_the_settings", [False, True])
def test_a_trial_counts_if_one_of_its_runs_failed_by_itself(fault_of_the_settings: bool, tmp_path: Path) -> None:
    """Beside a run that failed for the machine's sake."""
    layout, searched = Layout(tmp_path), found(small.profile(), "sac")

    def make(number: int, runs: Sequence[Identity], stages: Sequence[StageIdentity]) -> Outcome:
        first, second = map(digest, runs)
        machine = {first} if fault_of_the_settings else {first, second}
        return Outcome((), {first: "No space.", second: "A loss is not finite."}, frozenset(machine))

    if fault_of_the_settings:
        (record,) = tune(searched, layout, 1, make)
        assert [trial.value for trial in record.trials] == [None]
        assert {run.why for run in record.trials[0].runs} == {"No space.", "A loss is not finite."}
    else:
        with pytest.raises(UserError, match=r"By no fault of its settings, trial 0 of settings.sac"):
            tune(searched, layout, 1, make)


def _too_much() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def _too_much_of_numpy() -> None:
    np.empty(2**60, dtype=np.uint8)


def _no_such_file() -> None:
    Path("/nowhere/at/all").read_bytes()


def _damaged() -> None:
    raise records.RecordError("A file is damaged.")


def _diverged() -> None:
    raise Diverged("A loss is not finite.")


def _storage_is_out() -> None:
    raise Unanswered("Storage s3://bucket does not answer as it should.")


def _of_another_shape() -> None:
    torch.zeros(2) @ torch.zeros(3)


@pytest.mark.parametrize(
    ("fail", "machine"),
    [
        (_too_much, True),
        (_too_much_of_numpy, True),
        (_no_such_file, True),
        (_damaged, True),
        (_storage_is_out, True),
        (_diverged, False),
        (_of_another_shape, False),
    ],
)
def test_whose_fault_a_failure_is_survives_the_way_to_the_grid(fail: Callable[[], None], machine: bool) -> None:
    with pytest.raises(Exception) as raised:
        fail()
    told = failure(raised.value)
    assert isinstance(told, JobError)
    again = pickle.loads(pickle.dumps(told))
    assert again.machine is told.machine is machine and again.sentence == told.sentence


def test_where_the_pre_training_fails_no_trial_is_spent(prepared: tuple[Layout, Dataset], tmp_path: Path) -> None:
    _, dataset = prepared
    large = msgspec.structs.replace(small.profile().pretraining, learning_rate=1e30)
    profile = msgspec.structs.replace(small.profile(), pretraining=large)
    its = found(profile, "wpt", data=dataset.digest, seeds=(0,))
    with pytest.raises(UserError, match="Pre-training failed: "):
        tune(its, Layout(tmp_path), 1, here(Layout(tmp_path), dataset.path))
    assert not record_file(Layout(tmp_path), its[0].name).exists()


def test_killed_the_command_goes_on_and_says_what_to_paste(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wpt_bench", "tune", "dmc", "--profile", "smoke", "--methods", "sac"]
    command += ["--tasks", HELD_OUT, "--workers", "1", "--out", str(tmp_path)]
    layout = Layout(tmp_path)
    process = subprocess.Popen([*command, "--trials", "2"], stderr=subprocess.DEVNULL, start_new_session=True)
    while len(before := list(records.find_runs(layout.runs))) < 2:  # until trial 1 is under way
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {name: mtime for name, mtime in _times(layout).items() if _done(layout.runs / name)}
    assert finished
    ended = subprocess.run([*command, "--trials", "3"], capture_output=True, text=True, check=True)
    assert "Evaluations spent: 9. Raise tuning_evaluations by it: sac." in ended.stdout
    assert "[settings.sac]\nlearning_rate = " in ended.stdout
    assert len(_times(layout)) == 3 and {folder.name for folder in before} <= _times(layout).keys()
    assert finished.items() <= _times(layout).items()
    (file,) = (tmp_path / "tuning").glob("dmc-smoke-sac-*/tuning.json")
    assert str(file) in ended.stdout
    assert [trial["number"] for trial in json.loads(file.read_text())["trials"]] == [0, 1, 2]


def _done(folder: Path) -> bool:
    return records.read_run(folder).status == "done"
