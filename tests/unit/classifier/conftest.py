import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices gain nothing from threads, and tests that run side by side would wait for each other's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
