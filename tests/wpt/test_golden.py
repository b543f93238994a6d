"""A change of behaviour must raise the method's version: what three updates come to, written down per version.

When this fails and the change is meant, raise ``VERSION`` in ``wpt_bench/wpt/methods.py``, or ``PRETRAINING_VERSION``
in ``wpt_bench/running/plan.py``, and write the file anew with ``python tests/wpt/test_golden.py``.
"""

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import golden
from running.small import silent

from wpt.toy import SETTINGS, SIZE, context, episodes, fill, write_weights
from wpt_bench.profiles import Pretraining
from wpt_bench.running.plan import PRETRAINING_VERSION
from wpt_bench.wpt.methods import METHODS
from wpt_bench.wpt.pretraining import Pretrainer

GOLDEN = Path(__file__).with_name("golden.json")
SEED = 1
"""With it, random replay draws other episodes than those that are retrieved."""
EPISODE = 10
"""Of whose first four steps the prior, where there is one, has the last two."""
LEARNS_FAST = msgspec.structs.replace(SETTINGS, model_lr=2e-2, entropy=1e-2)


def losses(name: str, folder: Path) -> dict[str, float]:
    """What a method retrieves of the toy task's episodes, its third update, and what it does then."""
    method = next(method for method in METHODS if method.name == name)
    start = np.array([2.0, 2.5, 3.0], np.float32)
    agent = method.build(context(write_weights(folder), LEARNS_FAST, seed=SEED, initial_observation=start))
    found = dict(agent.offline(silent))
    found |= {f"retrieved_{place}": index for place, index in enumerate(found.pop("retrieved", ()))}
    fill(agent, reward=10.0)  # type: ignore[arg-type]
    agent.update()
    agent.update()
    found |= agent.update()
    carry = agent.begin(1, seed=EPISODE, evaluation=False)
    for step in range(4):
        action, carry = agent.act(carry, start[None], evaluation=False)
        found |= {f"action_{step}_{dimension}": float(number) for dimension, number in enumerate(action[0])}
    return found


def pretraining_losses() -> dict[str, float]:
    """The third update of pre-training on the toy task's episodes."""
    settings = Pretraining(batch=4, length=8, learning_rate=1e-3)
    pretrainer = Pretrainer(episodes(), SIZE, settings, "state", "fp32", SEED, "cpu")
    pretrainer.update()
    pretrainer.update()
    return pretrainer.update()


PRETRAINING_KEY = f"pretraining {PRETRAINING_VERSION}"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_behaviour_belongs_to_a_version(method, tmp_path: Path) -> None:
    golden.check(GOLDEN, f"{method.name} {method.version}", losses(method.name, tmp_path))


def test_pretraining_belongs_to_a_version() -> None:
    golden.check(GOLDEN, PRETRAINING_KEY, pretraining_losses())


def test_no_two_methods_are_written_down_alike() -> None:
    written = json.loads(GOLDEN.read_text()).values()
    assert len({json.dumps(one) for one in written}) == len(METHODS) + 1


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        written = {f"{method.name} {method.version}": losses(method.name, Path(folder)) for method in METHODS}
    golden.write(GOLDEN, written | {PRETRAINING_KEY: pretraining_losses()})
