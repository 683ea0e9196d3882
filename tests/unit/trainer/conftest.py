import pytest
import tiny_training
import torch


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Tiny matrices gain nothing from threads, and tests that run side by side would wait for each other's."""
    before = torch.get_num_threads()
    monkeypatch.setattr("winnow_trainer.train.usable_cpus", lambda: 1)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def trainer(tmp_path):
    return tiny_training.Trainer(tmp_path)
