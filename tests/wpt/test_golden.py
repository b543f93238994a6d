"""A change of behaviour must raise the method's version: losses after three updates, written down per version.

When this fails and the change is meant, raise ``VERSION`` in ``wpt_bench/wpt/methods.py`` and write the file anew with
``python tests/wpt/test_golden.py``.
"""

import json
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from wpt.toy import context, fill, silent, write_weights
from wpt_bench.wpt.methods import METHODS

GOLDEN = Path(__file__).with_name("golden.json")


def losses(name: str, folder: Path) -> dict[str, float]:
    """Metrics of the third update of a method on the toy task."""
    method = next(method for method in METHODS if method.name == name)
    agent = method.build(context(write_weights(folder)))
    agent.offline(silent)
    fill(agent)  # type: ignore[arg-type]
    agent.update()
    agent.update()
    return agent.update()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_behaviour_belongs_to_a_version(method, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text())
    key = f"{method.name} {method.version}"
    assert key in golden, "the version was raised: write the golden file anew"
    assert losses(method.name, tmp_path) == pytest.approx(golden[key], rel=2e-2, abs=1e-4)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        written = {f"{method.name} {method.version}": losses(method.name, Path(folder)) for method in METHODS}
    GOLDEN.write_text(json.dumps(written, indent=1) + "\n")
