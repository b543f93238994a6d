"""Data and a pre-trained model, made once by the real commands' own functions."""

from collections.abc import Iterator

import pytest
import torch

from running import small
from wpt_bench.data.store import Dataset
from wpt_bench.running import bench
from wpt_bench.running.plan import Layout


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
    bench.ensure_stages(small.selection(), layout, dataset, lambda job, share, what: None, workers=1)
    return layout, dataset
