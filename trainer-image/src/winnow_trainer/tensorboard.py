"""Event files that TensorBoard reads: records of length, checksums and a protocol buffer, three messages of which suffice.

The formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and framework/summary.proto.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from winnow_classifier.mirror import VOLUME, Mirror

VERSION = b"brain.Event:2"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class EventFile:
    """One process's part of a run. What older parts say of later steps is passed over: the run went on from here."""

    def __init__(self, folder: Path, steps_done: int, mirror: Mirror = VOLUME) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{steps_done}"
        self._mirror = mirror
        self._file = self.path.open("wb", buffering=0)
        self._write(0, _field(3, _BYTES, _sized(VERSION)))
        self._write(steps_done + 1, _field(7, _BYTES, _sized(_field(1, _VARINT, _varint(1)))))  # SessionLog, START

    def log(self, step: int, values: Mapping[str, float]) -> None:
        summary = b"".join(_field(1, _BYTES, _sized(_value(tag, value))) for tag, value in values.items())
        self._write(step, _field(5, _BYTES, _sized(summary)))

    def flush(self) -> None:
        self._mirror.store(self.path)

    def close(self, state: str) -> str | None:
        self._file.close()
        self.flush()
        return None

    def _write(self, step: int, what: bytes) -> None:
        event = _field(1, _FIXED64, struct.pack("<d", time.time())) + _field(2, _VARINT, _varint(step)) + what
        self._file.write(record(event))


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _value(tag: str, value: float) -> bytes:
    return _field(1, _BYTES, _sized(tag.encode())) + _field(2, _FIXED32, struct.pack("<f", value))


def _field(number: int, wire_type: int, content: bytes) -> bytes:
    return _varint(number << 3 | wire_type) + content


def _sized(content: bytes) -> bytes:
    return _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, turned and moved so that the checksum of a checksum is a good one."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # Castagnoli's polynomial, reflected
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
