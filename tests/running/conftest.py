"""Data and a pre-trained model, made once by the real commands' own functions."""

from collections.abc import Iterator

import fsspec
import pytest
import torch

from running import small
from wpt_bench.data.store import Dataset
from wpt_bench.running import bench
from wpt_bench.running.grid import run_grid
from wpt_bench.running.local import this_machine
from wpt_bench.running.plan import Layout, stages


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Dataset]:
    layout = Layout(tmp_path_factory.mktemp("prepared"))
    dataset = bench.ensure_data(small.selection(), layout, small.silent, lambda question: False, workers=1)
    wanted = stages(small.selection(), dataset.digest)
    assert not run_grid((), layout, dataset.path, lambda *what: None, this_machine(1), stages=wanted).failed
    return layout, dataset


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of a bucket on a server of this machine; where to find it is in the environment."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("grid")
        yield "s3://grid"
    server.stop()
