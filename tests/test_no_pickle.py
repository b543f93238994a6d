"""No file that wpt-bench reads or writes can carry code: JSON, TOML, safetensors, npy headers, Parquet and HDF5."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for room in ("wpt_bench", "baselines", "suites", "reports") for path in (ROOT / room).rglob("*.py")]
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
CALLS = {"torch.load", "torch.save", "np.load", "numpy.load", "np.save", "pd.read_pickle"} | {"eval", "exec"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_pickled(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not {name.partition(".")[0] for name in imported} & MODULES
    assert not called & CALLS
