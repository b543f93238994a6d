import pytest
from tiny_suite import build


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four scenes, two collectors, three episodes each, without pictures; not to be changed on disk."""
    return build(tmp_path_factory.mktemp("data"))


@pytest.fixture
def pixel_dataset(tmp_path):
    """A cart with pictures and an arm with recorded labels, of which a test may damage the files."""
    return build(tmp_path / "data", ("cart", "arm-push"), episodes=2, collectors=("noise",), pixels=True)
