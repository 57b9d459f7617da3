"""What all tests share: no network, no display, and one test body for CPU and GPU."""

import logging
import os
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: a test that needs the network fails at once
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

torch.set_num_threads(1)  # two threads that wait for each other on a busy machine are many times slower than one


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command line, run in this process, sets up logging for itself."""
    yield
    logger = logging.getLogger("rekv")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device in turn; the GPU's turn is skipped where there is none."""
    return torch.device(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the CUDA kernel and copies cannot run without a device; where there is one, nothing is skipped."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
