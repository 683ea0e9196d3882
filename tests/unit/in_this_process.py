"""Fixtures of tests that train in the process of all tests, which a training takes for its own: a conftest imports them."""

import logging

import pytest
import tiny_training
import torch
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny matrices gain nothing from threads, and tests that run side by side would wait for each other's.

    Of a whole module, so that it holds for a training that all tests of one look at.
    """
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("winnow_trainer.train.usable_cpus", lambda: 1)
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def pictures(request, monkeypatch):
    """Drawn only where a test looks at them (mark `pictures`): the six of a checkpoint take 0.3 s of a core, that of an import 0.2 s.

    That is axes, ticks and letters of matplotlib, on one figure already: nothing in it stands out to be spared.
    """
    if "pictures" not in request.keywords:
        monkeypatch.setattr("winnow_trainer.plots.pictures", lambda *_: {})
        monkeypatch.setattr("winnow_trainer.picture.draw", lambda *_: b"\x89PNG")


@pytest.fixture(autouse=True)
def denormals():
    """A run flushes denormals to zero in its whole process, which Hypothesis notices in the tests that come after."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def own_logging():
    """A command sets logging up for its process, which here is that of all tests: on a stream that ends with the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture(autouse=True)
def precision():
    """accelerate keeps the precision of a process's first accelerator, and refuses another one."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def trainer(tmp_path):
    return tiny_training.Trainer(tmp_path)
