"""A change of behaviour must raise the method's version: losses after three updates, written down per version.

When this fails and the change is meant, raise the method's ``version`` in its file in ``baselines/`` and write the file
anew with ``python tests/baselines/test_golden.py``.
"""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import golden
from running.small import silent

from baselines import toy
from wpt_bench.protocol import Method

GOLDEN = Path(__file__).with_name("golden.json")


def losses(method: Method, kind: str, folder: Path) -> dict[str, float]:
    """Metrics of the third update of a method on the toy task."""
    agent = toy.agent(method, kind, folder)
    agent.offline(silent)
    if method.online:
        toy.fill(agent, kind)
    agent.update()
    agent.update()
    return agent.update()


def key(method: Method, kind: str) -> str:
    """Under which the losses are written down."""
    return f"{method.name} {method.version} {kind}"


@pytest.mark.parametrize(("method", "kind"), toy.CASES, ids=[f"{one.name}-{kind}" for one, kind in toy.CASES])
def test_behaviour_belongs_to_a_version(method: Method, kind: str, tmp_path: Path) -> None:
    golden.check(GOLDEN, key(method, kind), losses(method, kind, tmp_path))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        written = {key(method, kind): losses(method, kind, Path(folder)) for method, kind in toy.CASES}
    golden.write(GOLDEN, written)
