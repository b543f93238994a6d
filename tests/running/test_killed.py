"""SIGKILL at any moment leaves no trace in the results: every method, both kinds of observation, stages included.

The tasks are points in a box, of which pictures need no graphics library. Moments are counted in steps of the simulator
and in files put in place, not in seconds, of which most go by before a run has begun: they fall between updates, in
evaluations, in episodes and in the middle of checkpoints. ``nox -s chaos`` kills far more often.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from data import tiny_suite
from learning import test_learning as learning

from running import killing
from wpt_bench import registry
from wpt_bench.data.store import Dataset
from wpt_bench.protocol import Method
from wpt_bench.running.plan import select

ONE_OF_EACH_KIND = ("wpt", "sac", "iql", "cal-ql", "mt-bc")
FROM_PIXELS = ("wpt",)


@pytest.fixture(scope="module", autouse=True)
def _known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "suites", lambda: {"tiny": tiny_suite.SUITE})
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    folder, collectors = tmp_path_factory.mktemp("data"), ("noise", "drift")
    scenes = ("cart", "boat")
    return {
        "state": tiny_suite.build(folder / "state", scenes, episodes=11, collectors=collectors),
        "pixels": tiny_suite.build(folder / "pixels", scenes, episodes=11, collectors=collectors, pixels=True),
    }


def killed(method: Method, kind: str, data: Dataset, folder: Path, kills: int, seed: int) -> int:
    """Makes the runs of a method twice, once killed again and again; returns how often."""
    whole = learning.short(learning.profile(kind))
    whole = msgspec.structs.replace(whole, pretraining=msgspec.structs.replace(whole.pretraining, updates=6))
    selection = select("tiny", whole, learning.ALL if method.shared else learning.ONE, (method.name,))
    its = killing.jobs(selection, data.digest)
    moments = killing.counted(killing.make_all, its, folder / "calm", data.path)
    rng, out = random.Random(f"{method.name} {kind} {seed}"), folder / "killed"
    count = killing.kill_until_done(kills, moments, rng, killing.make_all, its, out, data.path)
    assert killing.outcome(its, out) == killing.outcome(its, folder / "calm")
    return count


@pytest.mark.parametrize(
    ("name", "kind"), [(name, "state") for name in ONE_OF_EACH_KIND] + [(name, "pixels") for name in FROM_PIXELS]
)
def test_killed_three_times_it_ends_the_same(name: str, kind: str, data: dict[str, Dataset], tmp_path: Path) -> None:
    assert killed(registry.method(name), kind, data[kind], tmp_path, kills=3, seed=0) > 0


@pytest.mark.chaos
@pytest.mark.parametrize(("method", "kind"), learning.EVERY)
def test_every_method_killed_again_and_again_ends_the_same(
    method: Method, kind: str, data: dict[str, Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = killed(method, kind, data[kind], tmp_path, kills=8, seed=1)
    assert count > 0
    with capsys.disabled():
        print(f"\n{method.name} from {kind}: {count} kills survived")  # noqa: T201
