"""What a run tells while it trains: log lines, TensorBoard's event files, and trackers that fail."""

import io
import json
import logging
import struct

import numpy as np
import pytest
import torch

from winnow_classifier.errors import DivergedError
from winnow_trainer import logs
from winnow_trainer.learner import StepResult
from winnow_trainer.recorder import Recorder
from winnow_trainer.tensorboard import EventFile, crc32c
from winnow_trainer.watch import LossWatch, SeenStep


def steps(count, epoch=1):
    return [
        SeenStep(epoch, loss_sum=4.0 * n, rows=4, gradient_norm=n / 10, learning_rate=0.1) for n in range(1, count + 1)
    ]


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """A protocol buffer as (field number, value), with nothing known of its meaning."""
    at, found = 0, []
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            size = {1: 8, 5: 4}[kind]
            (value,), at = struct.unpack({1: "<d", 5: "<f"}[kind], data[at : at + size]), at + size
        found.append((key >> 3, value))
    return found


def events(path):
    """(step, other fields) of each record, its checksums checked."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        body = data[at + 12 : at + 12 + size]
        for content, place in ((data[at : at + 8], at + 8), (body, at + 12 + size)):
            crc = crc32c(content)
            assert struct.unpack_from("<I", data, place)[0] == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        parts = dict(fields(body))
        assert isinstance(parts.pop(1), float)  # when it was
        yield parts.pop(2), parts
        at += size + 16


def scalars(path):
    found = {}
    for step, parts in events(path):
        for _, value in fields(parts.get(5, b"")):
            named = dict(fields(value))
            found[named[1].decode(), step] = named[2]
    return found


def test_the_checksum_is_that_of_rfc_3720():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_event_files_hold_version_start_and_scalars(tmp_path):
    file = EventFile(tmp_path / "tensorboard", 300)
    file.log(301, {"train/loss": 0.5, "train/learning_rate": 0.25})
    file.close("Complete")
    (version, start, summary) = events(file.path)
    assert version == (0, {3: b"brain.Event:2"})
    assert start == (301, {7: b"\x08\x01"})
    assert summary[0] == 301
    assert scalars(file.path) == {("train/loss", 301): 0.5, ("train/learning_rate", 301): 0.25}
    assert ".tfevents." in file.path.name


def test_a_gpus_losses_are_looked_at_once_a_second_and_a_cpus_at_once():
    now = 10.0
    watch = LossWatch(on_cpu=False, clock=lambda: now, numbered=lambda rows: [int(row) + 1 for row in rows])

    def add(step, *losses):
        rows = np.arange(len(losses))
        watch.add(1, step, rows, StepResult(torch.tensor(losses), torch.tensor(0.5)), 0.1)

    add(1, 1.0, 2.0)
    now += 0.9
    assert not watch.due()
    add(2, 6.0)
    now += 0.1
    assert watch.due()
    seen = watch.look()
    assert [(step.loss_sum, step.rows) for step in seen.steps] == [(3.0, 2), (6.0, 1)]
    assert seen.mean == 3.0  # over rows, not over steps
    assert not watch.due()
    assert watch.look().steps == ()
    add(3, 1.0, 2.0)
    add(4, 1.0, float("inf"), 1.0)
    with pytest.raises(DivergedError, match="loss is not a finite number at epoch 1, step 4, on the training rows 2"):
        watch.look()
    assert LossWatch(on_cpu=True, clock=lambda: now, numbered=list).due()


def test_a_line_each_few_steps_has_the_mean_loss_since_the_last(caplog):
    caplog.set_level(logging.INFO)
    recorder = Recorder(3, 8, [])
    recorder.steps(steps(2), 2, 100.0, 9)
    recorder.steps(steps(6), 8, 200.0, 0)  # several at once, as a GPU's steps are seen
    told = [(record.message, record.step, record.loss, record.tokensPerSecond) for record in caplog.records]
    assert told == [
        ("Step", 3, pytest.approx((1 + 2 + 1) / 3, abs=1e-6), 200),
        ("Step", 6, pytest.approx((2 + 3 + 4) / 3, abs=1e-6), 200),
        ("Step", 8, pytest.approx((5 + 6) / 2), 200),  # the last one always
    ]
    assert caplog.records[-1].gradientNorm == 0.6


def test_a_log_line_is_one_json_object_and_a_terminal_has_its_moving_line_instead():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    root, steps_logger = logging.getLogger(), logging.getLogger("winnow_trainer.recorder")
    before = root.handlers[:], root.level
    try:
        for stream, lines in ((io.StringIO(), 1), (Terminal(), 0)):
            logs.set_up(stream)
            Recorder(1, 1, []).steps(steps(1), 1, 100.0, 9)
            assert len(stream.getvalue().splitlines()) == lines
            if lines:
                line = json.loads(stream.getvalue())
                assert {name: line[name] for name in ("message", "step", "loss", "learningRate")} == {
                    "message": "Step",
                    "step": 1,
                    "loss": 1.0,
                    "learningRate": 0.1,
                }
    finally:
        steps_logger.setLevel(logging.NOTSET)
        root.handlers[:], root.level = before


def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(tmp_path, caplog):
    class Down:
        def log(self, step, values):
            raise OSError("it is down")

        flush = close = None

    file = EventFile(tmp_path, 0)
    recorder = Recorder(1, 3, [Down(), file])
    recorder.steps(steps(3), 3, None, None)
    recorder.epoch(3, 0.5, {"test": {"f1": 0.9, "roc_auc": None}})
    recorder.close("Complete")
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert (warning.message, warning.tracker, warning.error) == (
        "Tracking ended, training goes on",
        "Down",
        "it is down",
    )
    found = scalars(file.path)
    assert found["train/loss", 3] == 3.0
    assert found["test/f1", 3] == pytest.approx(0.9)
    assert ("test/roc_auc", 3) not in found
