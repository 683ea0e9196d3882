"""Two threads run the model side by side on a CPU: both work, and nobody gets another's answer."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny_models
import tiny_server

from winnow_server.engine import Threads, workers_on

TEXTS = [" ".join(tiny_models.WORDS[start : start + 1 + start % 5]) for start in range(20)]


class Meter:
    """How many batches were in the model at once, at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def watch(self, network) -> None:
        network.register_forward_pre_hook(self._enter)
        network.register_forward_hook(self._leave)

    def _enter(self, *_) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        time.sleep(0.005)

    def _leave(self, *_) -> None:
        with self._lock:
            self._inside -= 1


def ask(server, text):
    return server.classify(text)["data"][0]["probs"]


@pytest.mark.parametrize(("workers", "at_once"), [(workers_on(2), 2), ([Threads(1, 1)], 1)])
def test_batches_run_side_by_side_and_each_text_gets_its_own_probabilities(checkpoint_folder, workers, at_once):
    meter = Meter()
    with tiny_server.running(checkpoint_folder, prepare=meter.watch, max_batch_tokens=16, workers=workers) as server:
        alone = [ask(server, text) for text in TEXTS]
        with ThreadPoolExecutor(16) as clients:
            together = list(clients.map(lambda text: ask(server, text), TEXTS * 10))
    assert meter.most == at_once
    for probabilities, expected in zip(together, alone * 10, strict=True):
        assert probabilities == pytest.approx(expected, abs=1e-5)


def test_a_server_is_ready_once_each_worker_has_run_a_text_and_a_full_batch(checkpoint_folder):
    gate = tiny_server.Gate()
    gate.close()
    with tiny_server.running(checkpoint_folder, prepare=gate.guard, workers=workers_on(2), wait=False) as server:
        assert gate.reached.wait(20)
        assert server.client.get("/v2/health/ready").json() == {"ready": False, "phase": "loading"}
        gate.open()
        server.until(lambda: server.client.get("/v2/health/ready").status_code == 200)
        assert gate.batches == [[12], [12] * 5] * 2


@pytest.mark.parametrize("cpus", range(1, 65))
def test_the_workers_threads_are_never_more_than_the_cores(cpus):
    first, *others = workers_on(cpus)
    assert sum(one.shared for one in (first, *others)) == cpus
    # A worker's own thread is one of its team, and libgomp counts the others.
    assert first.alone + sum(one.alone - 1 for one in others) <= cpus
